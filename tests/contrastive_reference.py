"""Contrastive losses in float64 NumPy, one pair after the other as the formulas are written."""

import numpy as np


def unit(rng, *shape):
    """Random float32 vectors of unit length."""
    x = rng.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def loss(kind, image, text, scale, bias=0.0, *, labels=None, groups=None, extra_text=None,
         extra_image=None, reduction="mean", label_smoothing=0.0):  # fmt: skip
    """(loss, accuracy); arguments as those of capjax.tasks.contrastive_losses.contrastive_loss."""
    pairs, width = image.shape
    extra_text = np.zeros((0, width)) if extra_text is None else extra_text
    extra_image = np.zeros((0, width)) if extra_image is None else extra_image

    def matches(i, j):
        return i == j or (labels is not None and labels[i] == labels[j] and labels[i] >= 0)

    def one_row(i, anchor, others, extras):
        """What anchor i is compared with: (logits, whether each is a match)."""
        met = [j for j in range(pairs)
               if matches(i, j) or groups is None or groups[i] != groups[j]]  # fmt: skip
        vectors = np.concatenate([others[met], extras]).astype(np.float64)
        match = np.array([matches(i, j) for j in met] + [False] * len(extras))
        return scale * vectors @ anchor.astype(np.float64) + bias, match

    def cross_entropy(logits, match):
        target = (1 - label_smoothing) * match / match.sum() + label_smoothing / len(match)
        shifted = logits - logits.max()
        return -target @ (shifted - np.log(np.exp(shifted).sum()))

    to_text = [one_row(i, image[i], text, extra_text) for i in range(pairs)]
    to_image = [one_row(i, text[i], image, extra_image) for i in range(pairs)]
    accuracy = np.mean([x[m].max() > x[~m].max(initial=-np.inf) for x, m in to_text])
    if kind == "sigmoid":
        total = sum(np.log1p(np.exp(np.where(m, -x, x))).sum() for x, m in to_text)
        total += sum(np.log1p(np.exp(x[len(x) - len(extra_image) :])).sum() for x, _ in to_image)
        return total / pairs, accuracy
    both = np.mean([[cross_entropy(*row) for row in side] for side in (to_text, to_image)], 1)
    return both.sum() / (2 if reduction == "mean" else 1), accuracy


def slope(kind, arrays, direction, **options):
    """Central difference of the loss along `direction`, a dict of float64 arrays like `arrays`."""

    def along(step):
        moved = {name: arrays[name].astype(np.float64) + step * d for name, d in direction.items()}
        return loss(kind, **moved, **options)[0]

    return (along(1e-5) - along(-1e-5)) / 2e-5


def directions(rng, arrays):
    """One random direction for each array alone, so that no gradient hides behind another."""
    return [
        {other: rng.normal(size=np.shape(x)) * (other == name) for other, x in arrays.items()}
        for name in arrays
    ]


PAIRS, WIDTH = 19, 8  # which 2 and 8 devices do not divide, nor blocks of 2 and 4


def variants():
    """name -> (kind, differentiable arrays, options)."""
    rng = np.random.default_rng(0)
    pair = {"image": unit(rng, PAIRS, WIDTH), "text": unit(rng, PAIRS, WIDTH)}
    pair["text"] = unit(rng, PAIRS, WIDTH) * 0.5 + pair["image"] * 0.5  # some right, some wrong
    pair["scale"] = np.float32(7.0)
    extra_text, extra_image = unit(rng, 5, WIDTH), unit(rng, 11, WIDTH)
    labels = rng.integers(-1, 6, PAIRS).astype(np.int32)
    groups = rng.integers(0, 9, PAIRS).astype(np.int32)
    sixteen = {name: x if x.ndim == 0 else x[:16] for name, x in pair.items()}
    both = {"extra_text": extra_text, "extra_image": extra_image}
    smoothed = {"reduction": "sum", "label_smoothing": 0.1}
    biased = pair | {"bias": np.float32(-2.0)}
    return {
        "clip": ("softmax", pair, {}),
        "clip of 16": ("softmax", sixteen, {}),
        "align, hard texts": ("softmax", pair | {"extra_text": extra_text}, smoothed),
        "hard negatives": ("softmax", pair | both, {"groups": groups}),
        "unicl": ("unicl", pair, {"labels": labels, "reduction": "sum"}),
        "unicl, all options": (
            "unicl",
            pair | both,
            {"labels": labels, "groups": groups, **smoothed},
        ),
        "siglip": ("sigmoid", biased, {}),
        "siglip, all options": ("sigmoid", biased | both, {"groups": groups}),
    }
