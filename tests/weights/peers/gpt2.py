"""GPT-2 of the transformers library."""

import numpy as np
import torch
import transformers
from peer_cases import draw
from transformers import GPT2Config, GPT2LMHeadModel

MADE_WITH = f"torch {torch.__version__}, transformers {transformers.__version__}"


def cases():
    """Two sizes; one of them wide in its MLP, with another activation and epsilon."""
    return [
        case([2, 9], n_embd=32, n_layer=2, n_head=4, n_positions=24, vocab_size=61),
        case(
            [3, 5],
            n_embd=48,
            n_layer=3,
            n_head=3,
            n_inner=80,
            n_positions=17,
            vocab_size=37,
            activation_function="gelu",
            layer_norm_epsilon=1e-3,
        ),
    ]


def case(shape, **fields):
    """Logits of drawn tokens, their gradient, and what is written after the first of them."""
    fields |= {"bos_token_id": 1, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(**fields)).eval()
    return causal(model, shape, {"model_type": "gpt2", **fields}, "transformer.ln_f.weight")


def causal(model, shape, config, watched):
    """The answers of any causal language model; `watched` names a tensor small enough to keep."""
    shapes = {
        name: list(tensor.shape)
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight" or not config.get("tie_word_embeddings", True)
    }
    drawn = {name: torch.tensor(draw(name, tuple(shape))) for name, shape in shapes.items()}
    model.load_state_dict(drawn, strict=False)
    model.tie_weights()
    tokens = np.random.RandomState(sum(shape)).randint(2, config["vocab_size"], shape)
    logits = model(torch.tensor(tokens)).logits
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), torch.tensor(tokens[:, 1:]).flatten()
    )
    loss.backward()
    gradient = dict(model.named_parameters())[watched].grad
    written = model.generate(
        torch.tensor(tokens[:, :2]), do_sample=False, max_new_tokens=10, pad_token_id=0
    )
    return {
        "config": config,
        "tensors": shapes,
        "tokens": tokens.tolist(),
        "watched": watched,
        "outputs": {
            "logits": rounded(logits),
            "loss": loss.item(),
            "gradient": rounded(gradient),
            "written": written.tolist(),
        },
    }


def rounded(x):
    """Seven digits of each number."""
    return [float(f"{value:.7g}") for value in x.detach().flatten().tolist()]
