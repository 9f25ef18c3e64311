"""Contrastive losses between the pictures and the texts of a global batch, as pure functions.

    softmax   InfoNCE in both directions: the mean of the two (CLIP, arXiv 2103.00020, sec. 2.3) or
              their sum (ALIGN, arXiv 2102.05918, sec. 4.2), with ALIGN's label smoothing
    unicl     the same with several matches: all pairs of one label (UniCL, arXiv 2204.03610)
    sigmoid   each picture with each text on its own (SigLIP, arXiv 2303.15343, sec. 3.2)

`contrastive_loss` computes any of them, from the whole matrix of logits or in blocks.

Letters: B pairs; K extra texts and M extra pictures, negatives for the other side; E embedding;
R rows (pictures) and C columns (texts), extras included.
Raises `UserError`, while tracing, for arrays that do not fit or options that the loss lacks.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from capjax.errors import UserError
from capjax.parallel.contrastive import EXTRA, PAIRED, Side, blockwise
from capjax.tasks.contrastive_objectives import Sigmoid, Softmax

LOSSES = ("softmax", "sigmoid", "unicl")
REDUCTIONS = ("mean", "sum")  # of the two directions

# CLIP clips its learned logit scale so that logits never exceed 100 (arXiv 2103.00020, sec. 2.5).
MAX_LOGIT_SCALE = 100.0


@jax.custom_vjp
def _at_most(scale: jax.Array, maximum: jax.Array) -> jax.Array:
    return jnp.minimum(scale, maximum)


def _at_most_backward(blocked: jax.Array, slope: jax.Array):
    # Descent goes against the slope: a negative one would raise the scale further.
    return jnp.where(blocked & (slope < 0), 0.0, slope), None


_at_most.defvjp(
    lambda scale, maximum: (_at_most(scale, maximum), scale >= maximum), _at_most_backward
)


def clip_scale(log_scale: jax.Array, maximum: float = MAX_LOGIT_SCALE) -> jax.Array:
    """exp(log_scale), at most `maximum` (0: no bound).

    CLIP clips the parameter after each update, so that it stays at the bound only as long as the
    loss pushes it up. A plain minimum has no gradient beyond the bound: a parameter that one step
    took across would stay there for good. So the gradient passes here whenever descent along it
    lowers the scale, and is zero only where it would raise it beyond the bound.
    """
    scale = jnp.exp(log_scale)
    return _at_most(scale, maximum) if maximum else scale


def contrastive_loss(
    kind: str,
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    bias: jax.Array | float = 0.0,
    *,
    labels: jax.Array | None = None,
    extra_text: jax.Array | None = None,
    extra_image: jax.Array | None = None,
    groups: jax.Array | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    block: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """(loss, share of pictures whose first choice among the texts is a match; a tie is a miss).

    image, text    float [B,E] of unit length; row i of one belongs to row i of the other
    scale, bias    float []: logit = scale * cosine + bias; the bias is for `sigmoid`
    labels         int [B], for `unicl`: pairs of one label match each other; below 0: no other
    extra_text     float [K,E]: hard negatives, which every picture must tell from its text
    extra_image    float [M,E]: the same for every text
    groups         int [B]: pairs of one group are neither matches nor negatives of each other
                   (duplicates, false negatives); a pair without such gets a number of its own
    reduction      "mean" or "sum" of the two directions, of softmax and unicl
    label_smoothing  the share of the target that is spread over all that are compared
    block          0: the whole matrix of logits; else rows that are compared at a time, with as
                   little memory as that needs (capjax.parallel.contrastive)
    """
    check_options(kind, reduction, label_smoothing, block)
    _check_arrays(kind, image, text, labels, extra_text, extra_image, groups)
    pairs = len(image)
    numbers = jnp.arange(pairs, dtype=jnp.int32)
    # A key of its own, which is no label, for a pair without a class.
    keys = numbers if labels is None else jnp.where(labels < 0, -1 - numbers, labels)
    weight = 1 / (2 * pairs if kind != "sigmoid" and reduction == "mean" else pairs)
    if block:
        rows = _side(image, extra_image, keys, groups)
        columns = _side(text, extra_text, keys, groups)
        objective = Sigmoid(weight) if kind == "sigmoid" else Softmax(weight, label_smoothing)
        loss, right = blockwise(objective, rows, columns, scale, bias, block)
        return loss, right / pairs
    match = keys[:, None] == keys
    compared = None if groups is None else match | (groups[:, None] != groups)
    logits = scale * image @ text.T + bias
    rows, columns = logits, logits  # rows with extra texts behind them, columns with pictures
    if extra_text is not None:
        rows = jnp.concatenate([logits, scale * image @ extra_text.T + bias], 1)
    if extra_image is not None:
        columns = jnp.concatenate([logits, scale * extra_image @ text.T + bias], 0)
    if kind == "sigmoid":
        total = sigmoid_losses(rows, match, compared) + jnp.sum(jax.nn.softplus(columns[pairs:]))
    else:
        total = cross_entropies(rows, match, compared, label_smoothing, axis=1)
        total += cross_entropies(columns, match, compared, label_smoothing, axis=0)
    return weight * total, accuracy(rows, match, compared, single=labels is None)


def accuracy(
    logits: jax.Array, match: jax.Array, compared: jax.Array | None, single: bool
) -> jax.Array:
    """Share of rows in which a match is above all others; arguments as in `cross_entropies`.

    single: each row has one match.
    """
    others = _widened(~match if compared is None else compared & ~match, logits, True)
    match = _widened(match, logits, False)
    # Of one, the sum is the highest, and is there already: XLA would keep another matrix for it.
    best_match = (
        jnp.sum(logits, 1, where=match)
        if single
        else jnp.max(logits, 1, where=match, initial=-jnp.inf)
    )
    return jnp.mean(best_match > jnp.max(logits, 1, where=others, initial=-jnp.inf))


def cross_entropies(
    logits: jax.Array, match: jax.Array, compared: jax.Array | None, smoothing: float, axis: int
) -> jax.Array:
    """Sum over the pairs of -sum_j t_j log p_j, p the softmax over those compared, along `axis`.

    logits [B,B+K], match and compared bool [B,B] (None: all); the K columns beyond are compared.
    t is (1 - smoothing) / matches on each match plus smoothing / N on each of the N compared.
    With axis 0, all arguments are the other way round. (A transposed argument would do, but
    makes XLA keep a transposed copy of the matrix.)
    """
    if compared is not None:
        compared = _widened(compared, logits, True)
    matched = jnp.mean(logits, axis, where=_widened(match, logits, False))
    losses = jax.nn.logsumexp(logits, axis, where=compared) - (1 - smoothing) * matched
    if smoothing:
        losses -= smoothing * jnp.mean(logits, axis, where=compared)
    return jnp.sum(losses)


def sigmoid_losses(logits: jax.Array, match: jax.Array, compared: jax.Array | None) -> jax.Array:
    """Sum of -log sigmoid(+-logit), + for matches; arguments as in `cross_entropies`."""
    losses = jax.nn.softplus(jnp.where(_widened(match, logits, False), -logits, logits))
    if compared is not None:
        losses = jnp.where(_widened(compared, logits, True), losses, 0)
    return jnp.sum(losses)


def _widened(mask: jax.Array, logits: jax.Array, value: bool) -> jax.Array:
    """bool [B,B] -> that of `logits`, whose further rows or columns get `value`."""
    axis = 1 if logits.shape[1] > mask.shape[1] else 0
    missing = list(mask.shape)
    missing[axis] = logits.shape[axis] - mask.shape[axis]
    return jnp.concatenate([mask, jnp.full(missing, value)], axis) if missing[axis] else mask


def check_options(kind: str, reduction: str, label_smoothing: float, block: int) -> None:
    """Raises UserError for a loss that does not exist or options that it does not have."""
    if kind not in LOSSES:
        raise UserError(f"unknown contrastive loss {kind!r}; choose one of {', '.join(LOSSES)}")
    if reduction not in REDUCTIONS:
        raise UserError(f"unknown reduction {reduction!r}; choose one of {', '.join(REDUCTIONS)}")
    if not 0 <= label_smoothing < 1:
        raise UserError(
            f"label_smoothing={label_smoothing} must be 0 or more and less than 1: it is a share"
        )
    if kind == "sigmoid" and (reduction != "mean" or label_smoothing):
        raise UserError(
            "the sigmoid loss has neither two directions nor smoothed labels: "
            "leave reduction at 'mean' and label_smoothing at 0"
        )
    if block < 0:
        raise UserError(
            f"block={block}: give the number of rows, 1 or more, or 0 for the whole matrix"
        )


def _check_arrays(kind, image, text, labels, extra_text, extra_image, groups) -> None:
    if image.ndim != 2 or text.ndim != 2 or image.shape[1] != text.shape[1]:
        raise UserError(
            f"embeddings of pictures {image.shape} and of texts {text.shape} must be [B,E] of one "
            "width E: give both towers the same embedding width"
        )
    if len(image) != len(text):
        raise UserError(
            f"{len(image)} pictures and {len(text)} texts are no pairs: give each picture one text"
        )
    if len(image) < 2:
        raise UserError("a contrastive loss needs 2 pairs or more, not a batch of 1")
    for name, extra in (("extra_text", extra_text), ("extra_image", extra_image)):
        if extra is not None and (extra.ndim != 2 or extra.shape[1] != image.shape[1]):
            raise UserError(f"{name} {extra.shape} must be [K,{image.shape[1]}] like the pairs")
    if (kind == "unicl") != (labels is not None):
        raise UserError(
            "the unicl loss needs a label for each pair: train on data with classes, such as "
            "capjax.data.prompted"
            if labels is None
            else f"the {kind} loss takes no labels: use unicl"
        )
    for name, numbers in (("labels", labels), ("groups", groups)):
        if numbers is None:
            continue
        if numbers.shape != image.shape[:1] or not jnp.issubdtype(numbers.dtype, jnp.integer):
            raise UserError(
                f"{name} are {numbers.dtype} {numbers.shape}, but must be integers, one for each "
                f"of the {len(image)} pairs"
            )


def _side(vectors, extra, keys, groups) -> Side:
    """The pairs of one side with its extra negatives behind them."""
    more = 0 if extra is None else len(extra)
    vectors = vectors if extra is None else jnp.concatenate([vectors, extra])
    # Not by padding: XLA's partitioner takes two paddings of an array by different values for one.
    role = jnp.where(jnp.arange(len(vectors)) < len(keys), PAIRED, EXTRA)
    keys, groups = (
        None if x is None else jnp.pad(x.astype(jnp.int32), (0, more)) for x in (keys, groups)
    )
    return Side(vectors, role, keys, groups)
