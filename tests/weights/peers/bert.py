"""BERT of the transformers library, alone and with its heads."""

import numpy as np
import torch
import transformers
from peer_cases import draw
from transformers import BertConfig, BertForPreTraining, BertModel

MADE_WITH = f"torch {torch.__version__}, transformers {transformers.__version__}"
PAD, CLS, SEP = 0, 1, 2
COPIES = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
WATCHED = ("embeddings.token_type_embeddings.weight", "encoder.layer.1.attention.self.value.bias")


def cases():
    """The bare encoder without its pooler, on single texts; one with all heads, on pairs."""
    return [
        case(
            [[7], [3], [10], [2]],
            BertModel,
            {"add_pooling_layer": False},
            vocab_size=31,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=72,
            max_position_embeddings=23,
        ),
        case(
            [[4, 3], [2, 7], [6, 1]],
            BertForPreTraining,
            {},
            vocab_size=43,
            hidden_size=48,
            num_hidden_layers=3,
            num_attention_heads=3,
            intermediate_size=40,
            max_position_embeddings=17,
            hidden_act="gelu_new",
            layer_norm_eps=1e-5,
        ),
    ]


def rows(texts, vocabulary):
    """[CLS] a [SEP] or [CLS] a [SEP] b [SEP] with drawn words, and which of them a token is in."""
    random = np.random.RandomState(len(texts))
    length = max(1 + sum(words + 1 for words in row) for row in texts)
    tokens, segments = np.full((2, len(texts), length), PAD)
    for row, lengths in enumerate(texts):
        ids, of = [CLS], [0]
        for number, words in enumerate(lengths):
            ids += [*random.randint(3, vocabulary, words), SEP]
            of += [number] * (words + 1)
        tokens[row, : len(ids)] = ids
        segments[row, : len(of)] = of
    return tokens, segments


def case(texts, kind, options, **fields):
    """States, pooled states, their unit mean, and gradients of a sum of powers."""
    module = kind(BertConfig(**fields), **options).eval()
    encoder = module if kind is BertModel else module.bert
    shapes = {
        name: list(tensor.shape)
        for name, tensor in module.state_dict().items()
        if name not in COPIES
    }
    drawn = {name: torch.tensor(draw(name, tuple(shape))) for name, shape in shapes.items()}
    module.load_state_dict(drawn, strict=False)
    tokens, segments = map(torch.tensor, rows(texts, fields["vocab_size"]))
    words = tokens != PAD
    out = encoder(tokens, attention_mask=words.long(), token_type_ids=segments)
    states = out.last_hidden_state
    pooled = states[:, 0] if out.pooler_output is None else out.pooler_output
    mean = (states * words[..., None]).sum(1) / words.sum(1, keepdim=True)
    loss = (states[words] ** 3).mean() + (pooled**2).mean()
    loss.backward()
    parameters = dict(encoder.named_parameters())
    prefix = "" if kind is BertModel else "bert."
    return {
        "config": {"model_type": "bert", **fields},
        "tensors": shapes,
        "tokens": tokens.tolist(),
        "segments": segments.tolist(),
        "outputs": {
            "states": rounded(states[words]),
            "pooled": rounded(pooled),
            "mean": rounded(mean / mean.norm(dim=-1, keepdim=True)),
            "loss": loss.item(),
            "gradients": {prefix + name: rounded(parameters[name].grad) for name in WATCHED},
        },
    }


def rounded(x):
    """Seven digits of each number."""
    return [float(f"{value:.7g}") for value in x.detach().flatten().tolist()]
