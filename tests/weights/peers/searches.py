"""Beam search and the handling of scores in the transformers library, on a drawn GPT-2."""

import numpy as np
import torch
import transformers
from peer_cases import draw
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.generation import logits_process as lp

MADE_WITH = f"torch {torch.__version__}, transformers {transformers.__version__}"
COUNT = 40  # of searches; 200 of them were compared once, with 417 prompts
VOCABULARY = 23
CONFIG = dict(
    n_embd=32,
    n_layer=2,
    n_head=4,
    n_positions=24,
    vocab_size=VOCABULARY,
    bos_token_id=1,
    eos_token_id=10,
)


def cases():
    """One model, many searches; and what each processor makes of drawn scores."""
    model = GPT2LMHeadModel(GPT2Config(**CONFIG)).eval()
    shapes = {n: list(t.shape) for n, t in model.state_dict().items() if n != "lm_head.weight"}
    drawn = {name: torch.tensor(draw(name, tuple(shape))) for name, shape in shapes.items()}
    # So sure of itself that ends come at different lengths, and two beams are seldom alike.
    drawn["transformer.ln_f.weight"] = drawn["transformer.ln_f.weight"] * 3
    model.load_state_dict(drawn, strict=False)
    model.tie_weights()
    return [
        {
            "config": {"model_type": "gpt2", **CONFIG},
            "tensors": shapes,
            "searches": [search(model, seed) for seed in range(COUNT)],
            "processors": processors(),
        }
    ]


def search(model, seed):
    """Options drawn by the seed, and what they find."""
    rng = np.random.RandomState(seed)
    batch, length = rng.randint(1, 4), rng.randint(1, 4)
    prompt = rng.randint(11, VOCABULARY, (batch, length))
    options = {
        "num_beams": int(rng.randint(2, 6)),
        "length_penalty": float(rng.choice([0.0, 0.6, 1.0, 2.0, -1.0])),
        "early_stopping": [True, False, "never"][rng.randint(3)],
        "repetition_penalty": float(rng.choice([1.0, 1.0, 1.3])),
        "no_repeat_ngram_size": int(rng.choice([0, 0, 2, 3])),
        "min_new_tokens": int(rng.choice([0, 0, 3])),
        "max_new_tokens": int(rng.randint(4, 14)),
    }
    given = {k: v for k, v in options.items() if k != "min_new_tokens" or v}
    with torch.no_grad():
        out = model.generate(
            torch.tensor(prompt),
            attention_mask=torch.ones(batch, length, dtype=torch.int64),
            do_sample=False,
            num_return_sequences=options["num_beams"],
            output_scores=True,
            return_dict_in_generate=True,
            pad_token_id=0,
            **given,
        )
    sequences = out.sequences[:, length:].reshape(batch, options["num_beams"], -1)
    return {
        "prompt": prompt.tolist(),
        "options": options,
        "tokens": sequences.tolist(),
        "scores": [float(f"{x:.6g}") for x in out.sequences_scores.tolist()],
    }


def processors():
    """Scores before and after; -inf is None."""
    rng = np.random.RandomState(0)
    scores = torch.tensor(3 * rng.standard_normal((3, VOCABULARY)), dtype=torch.float32)
    history = torch.tensor(rng.randint(0, 5, (3, 9)))
    made = {
        "temperature": (lp.TemperatureLogitsWarper(0.7), [0.7]),
        "top_k": (lp.TopKLogitsWarper(4), [4]),
        "top_p": (lp.TopPLogitsWarper(0.8), [0.8]),
        "min_p": (lp.MinPLogitsWarper(0.1), [0.1]),
        "typical": (lp.TypicalLogitsWarper(0.6), [0.6]),
        "repetition_penalty": (lp.RepetitionPenaltyLogitsProcessor(1.4), [1.4]),
        "no_repeated_ngrams": (lp.NoRepeatNGramLogitsProcessor(2), [2]),
        "banned_words": (
            lp.NoBadWordsLogitsProcessor([[7], [int(history[0, -1]), 3]], eos_token_id=None),
            [[[7], [int(history[0, -1]), 3]]],
        ),
    }
    return {
        "scores": scores.tolist(),
        "history": history.tolist(),
        "results": {
            name: {"arguments": arguments, "scores": plain(process(history, scores.clone()))}
            for name, (process, arguments) in made.items()
        },
    }


def plain(x):
    """Lists with None for what is ruled out."""
    return [[None if np.isinf(v) else float(f"{v:.7g}") for v in row] for row in x.tolist()]
