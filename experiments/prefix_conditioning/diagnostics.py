"""What a prefix does to a text: how its feature moves and what END-OF-TEXT attends to.

The analyses of prefix conditioning (arXiv 2206.01125) as far as they are known here: under the
prefix of class names the text tower attends to the class name almost alone, and sentences about one
class have almost one feature; under the prefix of captions it reads the whole sentence.

Sentences are a template (with "{}") for each context, filled with each class name. Class names are
words without punctuation attached, so that their pieces can be told from the others'.

Letters: C classes, N contexts, B sentences, L tokens, P positions (L, and 1 with prefixes), H
heads, K head width, E embedding width.
Raises `UserError` for a prefix that the model lacks, and for a sentence whose pieces are not those
of its words.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from capjax.data import prompts
from capjax.errors import UserError
from capjax.evals.encoder import Encoder
from capjax.models.attention import causal_mask


def under(model: nn.Module, prefix: str) -> nn.Module:
    """The model whose texts begin with this prefix; without prefixes ("") as it is."""
    return model.clone(test_prefix=prefix)


def text_features(model, params, tokenizer, sentences: Sequence[str], prefix: str) -> np.ndarray:
    """Unit vectors [B,E] of sentences under a prefix."""
    return Encoder(under(model, prefix), params, tokenizer).texts(sentences)


def about(classes: Sequence[str], contexts: Sequence[str]) -> list[str]:
    """C * N sentences: those of the first class, then of the second, ..."""
    return [prompts.fill(context, name) for name in classes for context in contexts]


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[B] of unit vectors [B,E], row by row, in float64."""
    first, second = (np.asarray(x, np.float64) for x in (first, second))
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return np.sum(first * second, axis=-1) / lengths


def within_class_variance(features: np.ndarray, classes: int) -> float:
    """Mean squared distance of a feature from the mean of its class; features [C*N,E]."""
    grouped = np.asarray(features, np.float64).reshape(classes, -1, features.shape[-1])
    centred = grouped - grouped.mean(axis=1, keepdims=True)
    return float(np.mean(np.sum(centred**2, axis=-1)))


def attention_to_context(
    model, params, tokenizer, classes: Sequence[str], contexts: Sequence[str], prefix: str
) -> dict[str, float]:
    """Where END-OF-TEXT looks in the last layer: shares of its attention, mean over sentences.

    `context`: on the words besides the class name; `name`: on the class name. The rest is on the
    prefix, BEGIN-OF-TEXT and END-OF-TEXT.
    """
    sentences = about(classes, contexts)
    names = [name for name in classes for _ in contexts]
    tokens = tokenizer.encode_batch(sentences)
    shares = end_attention(under(model, prefix), params, tokens)  # [B,L]
    masks = [word_masks(tokenizer, *pair) for pair in zip(sentences, names, strict=True)]
    named, others = (np.stack(mask) for mask in zip(*masks, strict=True))
    return {
        "context": float(np.mean(np.sum(shares, 1, where=others))),
        "name": float(np.mean(np.sum(shares, 1, where=named))),
    }


def word_masks(tokenizer, sentence: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """bool [L] twice: which tokens of the sentence's row are of the name, and of other words."""
    words, wanted = sentence.split(), name.split()
    pieces = [tokenizer.ids(word) for word in words]
    if list(itertools.chain(*pieces)) != tokenizer.ids(sentence):
        raise UserError(
            f"the pieces of {sentence!r} are not those of its words: use a tokenizer that splits "
            "texts at spaces"
        )
    starts = [i for i in range(len(words)) if words[i : i + len(wanted)] == wanted]
    if not starts:
        raise UserError(f"{sentence!r} does not hold the words {name!r}: leave punctuation out")
    of_name = np.zeros(len(words), bool)
    for start in starts:
        of_name[start : start + len(wanted)] = True
    # BEGIN-OF-TEXT comes first.
    places = np.cumsum([1, *map(len, pieces)])
    masks = np.zeros((2, tokenizer.max_length), bool)
    for belongs, first, last in zip(of_name, places[:-1], places[1:], strict=True):
        masks[int(not belongs), first:last] = True
    return masks[0], masks[1]


def end_attention(model: nn.Module, params, tokens: np.ndarray) -> np.ndarray:
    """[B,L]: the attention of each text's END-OF-TEXT to its tokens, mean over heads.

    A row sums to 1 less what the prefix gets.
    """
    tokens = np.asarray(tokens, np.int32)
    weights = np.asarray(last_attention(model, params, tokens))
    before = weights.shape[-1] - tokens.shape[1]
    end = np.asarray(model.special_tokens.until_end(tokens)).sum(-1) - 1
    rows = weights[np.arange(len(tokens)), :, before + end]  # [B,H,P]
    return rows.mean(1)[:, before:]


@functools.partial(jax.jit, static_argnums=0)
def last_attention(model: nn.Module, params, tokens: jax.Array) -> jax.Array:
    """[B,H,P,P]: the weights of the text tower's last layer, of a query position on all others.

    Attention is computed by a fused function that hands out no weights; they are made again from
    the queries and keys that it was given.
    """
    _, state = model.clone(remat="none").apply(
        {"params": params},
        tokens,
        method="embed_text",
        capture_intermediates=lambda module, method: module.name in ("query", "key"),
        mutable=["intermediates"],
    )
    blocks = state["intermediates"]["text_tower"]["stack"]
    last = max(blocks, key=lambda name: int(name.removeprefix("blocks_")))
    captured = blocks[last]["self_attention"]
    query, key = (captured[name]["__call__"][0] for name in ("query", "key"))  # [B,P,H,K]
    scores = jnp.einsum("bthk,bshk->bhts", query, key, preferred_element_type=jnp.float32)
    scores = jnp.where(causal_mask(query.shape[1]), scores * query.shape[-1] ** -0.5, -jnp.inf)
    return jax.nn.softmax(scores, axis=-1)
