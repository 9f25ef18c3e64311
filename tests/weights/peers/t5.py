"""T5 of the transformers library, versions 1.0 and 1.1."""

import numpy as np
import torch
import transformers
from peer_cases import draw
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

MADE_WITH = f"torch {torch.__version__}, transformers {transformers.__version__}"
PAD, EOS, STEPS, OFFSETS = 0, 1, 9, 140
WATCHED = (
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "decoder.block.0.layer.1.layer_norm.weight",
)
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def cases():
    """Both versions; texts so long that distances share buckets, and decoders of another depth."""
    return [
        case(
            [5, 11, 2],
            [4, 6, 3],
            seed=1,
            vocab_size=47,
            d_model=44,
            d_kv=10,
            d_ff=24,
            num_heads=4,
            num_layers=3,
            num_decoder_layers=1,
            relative_attention_num_buckets=12,
            relative_attention_max_distance=20,
            feed_forward_proj="relu",
        ),
        case(
            [21, 7],
            [3, 10],
            seed=3,
            vocab_size=53,
            d_model=48,
            d_kv=20,
            d_ff=40,
            num_heads=3,
            num_layers=2,
            feed_forward_proj="gated-gelu",
            layer_norm_epsilon=1e-3,
            tie_word_embeddings=False,
        ),
    ]


def rows(random, lengths, vocabulary):
    """Drawn words, EOS and padding; lengths count words and EOS."""
    tokens = np.full((len(lengths), max(lengths)), PAD)
    for row, length in zip(tokens, lengths, strict=True):
        row[:length] = [*random.randint(2, vocabulary, length - 1), EOS]
    return tokens


def case(source, target, seed, **fields):
    """States, logits, gradients and the written text of drawn sources and targets."""
    config = {"model_type": "t5", **fields}
    model = T5ForConditionalGeneration(T5Config(**fields, decoder_start_token_id=PAD)).eval()
    tied = config.get("tie_word_embeddings", True)
    if not tied:
        # The library ties in any case, until it finds two different tensors in a file.
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    left_out = (*COPIES, "lm_head.weight") if tied else COPIES
    shapes = {
        name: list(tensor.shape)
        for name, tensor in model.state_dict().items()
        if name not in left_out
    }
    drawn = {name: torch.tensor(draw(name, tuple(shape))) for name, shape in shapes.items()}
    model.load_state_dict(drawn, strict=False)
    random = np.random.RandomState(seed)
    source = torch.tensor(rows(random, source, config["vocab_size"]))
    target = torch.tensor(rows(random, target, config["vocab_size"]))
    words = (source != PAD).long()
    begun = torch.nn.functional.pad(target, (1, 0), value=PAD)
    out = model(input_ids=source, attention_mask=words, decoder_input_ids=begun[:, :-1])
    loss = nn.functional.cross_entropy(out.logits.flatten(0, 1), target.flatten())
    loss.backward()
    parameters = dict(model.named_parameters())
    written = model.generate(
        source,
        attention_mask=words,
        do_sample=False,
        max_new_tokens=STEPS,
        suppress_tokens=[PAD],
        output_scores=True,
        return_dict_in_generate=True,
    )
    best = torch.stack(written.scores).topk(2).values
    # Else another order of sums might write another text.
    assert (best[..., 0] - best[..., 1]).min() > 1e-3
    return {
        "config": config,
        "tensors": shapes,
        "source": source.tolist(),
        "target": begun.tolist(),
        "outputs": {
            "encoded": rounded(out.encoder_last_hidden_state[words.bool()]),
            "logits": rounded(out.logits),
            "loss": loss.item(),
            "gradients": {name: rounded(parameters[name].grad) for name in WATCHED},
            "written": written.sequences.tolist(),
        },
        "buckets": [buckets(config, bidirectional) for bidirectional in (True, False)],
    }


def buckets(config, bidirectional):
    """The rows of the bias for keys at -OFFSETS..OFFSETS from the query."""
    return T5Attention._relative_position_bucket(
        torch.arange(-OFFSETS, OFFSETS + 1),
        bidirectional,
        config.get("relative_attention_num_buckets", 32),
        config.get("relative_attention_max_distance", 128),
    ).tolist()


def rounded(x):
    """Seven digits of each number."""
    return [float(f"{value:.7g}") for value in x.detach().flatten().tolist()]
