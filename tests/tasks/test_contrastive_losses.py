"""Contrastive losses: values printed in the papers' specs, float64 NumPy, and what is refused."""

import contrastive_reference as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capjax.errors import UserError
from capjax.tasks.contrastive_losses import clip_scale, contrastive_loss

EYE2 = np.eye(2, dtype=np.float32)
VARIANTS = reference.variants()


def value(kind, image, text, scale, *args, **options):
    """The loss of the whole matrix, which that of blocks of 2 must equal."""
    arrays = [jnp.asarray(x, jnp.float32) for x in (image, text, scale, *args)]
    whole, blocks = jax.jit(
        lambda *a: [contrastive_loss(kind, *a, **options, block=block)[0] for block in (0, 2)]
    )(*arrays)
    np.testing.assert_allclose(blocks, whole, rtol=2e-6, atol=1e-9)
    return float(whole)


def test_clip_oracles():
    assert value("softmax", EYE2, EYE2, 1) == pytest.approx(0.313262, abs=5e-7)
    with jax.enable_x64(True):  # float32 has no digit of ln(1 + e^-14.3) left beside 14.3
        loss = contrastive_loss("softmax", np.eye(2), np.eye(2), np.float64(1 / 0.07))[0]
    assert loss == pytest.approx(6.2487e-7, abs=5e-12)
    same = np.tile(EYE2[:1], (7, 1))
    assert value("softmax", same, same, 3) == pytest.approx(np.log(7), rel=1e-6)
    image, text = [[1, 0], [0.6, 0.8]], [[0.8, 0.6], [0, 1]]
    assert value("softmax", image, text, 10) == pytest.approx(0.892118, abs=5e-7)


def test_align_oracles():
    text = [[1, 0], [0.6, 0.8]]
    options = dict(reduction="sum", label_smoothing=0.1)
    assert value("softmax", EYE2, text, 2, reduction="sum") == pytest.approx(0.597472, abs=1e-6)
    assert value("softmax", EYE2, text, 2, **options) == pytest.approx(0.717472, abs=1e-6)
    assert value("softmax", EYE2, text, 2, label_smoothing=0.1) == pytest.approx(0.358736, abs=1e-6)


def test_unicl_oracles():
    logits, eye = [[2, 1, 0], [1, 2, 0], [0, 0, 2]], np.eye(3)
    for labels, expected in (([0, 0, 1], 0.684919), ([0, 1, 2], 0.351586), ([4, -1, -1], 0.351586)):
        options = dict(labels=jnp.array(labels), reduction="sum")
        loss = value("unicl", logits, eye, 1, **options)  # both directions alike
        assert loss / 2 == pytest.approx(expected, abs=6e-7)


def test_siglip_by_hand():
    # Two matches of logit 10 - 10 and two others of logit 0 - 10, over 2 pairs.
    expected = (2 * np.log(2) + 2 * np.log1p(np.exp(-10))) / 2
    assert value("sigmoid", EYE2, EYE2, 10, -10) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_loss_and_gradient_equal_float64_numpy(name):
    kind, arrays, options = VARIANTS[name]
    compute = jax.jit(
        jax.value_and_grad(lambda a: contrastive_loss(kind, **a, **options), has_aux=True)
    )
    (loss, accuracy), gradient = compute(arrays)
    expected_loss, expected_accuracy = reference.loss(kind, **arrays, **options)
    np.testing.assert_allclose(loss, expected_loss, rtol=2e-6)
    np.testing.assert_allclose(accuracy, expected_accuracy, rtol=1e-6)
    assert 0 < accuracy < 1
    for direction in reference.directions(np.random.default_rng(1), arrays):
        got = sum(np.sum(np.asarray(gradient[n], np.float64) * d) for n, d in direction.items())
        expected = reference.slope(kind, arrays, direction, **options)
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


def test_a_tie_is_no_right_choice():
    same = np.tile(EYE2[:1], (4, 1))
    for block in (0, 2):
        assert contrastive_loss("softmax", same, same, 5.0, block=block)[1] == 0


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("block", [0, 2])
def test_one_embedding_that_is_no_number_makes_the_loss_none(kind, block):
    """The training loop stops on it and names the records: it must not be masked away."""
    image = np.eye(5, dtype=np.float32)
    image[3, 1] = np.nan
    loss = jax.jit(lambda i: contrastive_loss(kind, i, jnp.eye(5), 2.0, block=block)[0])(image)
    assert np.isnan(loss)


def test_scale_beyond_its_bound_can_come_back_but_not_rise():
    at = float(np.log(100.0))

    def gradient(log_scale, sign):
        return jax.grad(lambda t: sign * clip_scale(t, 100.0))(jnp.float32(log_scale))

    assert clip_scale(jnp.float32(at + 2), 100.0) == 100
    for beyond in (at + 1e-3, at + 2):
        assert gradient(beyond, -1) == 0  # descent would raise it
        np.testing.assert_allclose(gradient(beyond, 1), np.exp(beyond), rtol=1e-5)
    for sign in (-1, 1):
        np.testing.assert_allclose(gradient(at - 0.1, sign), sign * np.exp(at - 0.1), rtol=1e-5)
    free = jax.grad(lambda t: -clip_scale(t, 0))(jnp.float32(at + 2))
    np.testing.assert_allclose(free, -np.exp(at + 2), rtol=1e-5)


def test_scale_that_one_step_took_across_its_bound_returns():
    """Two opposite pairs want a scale as low as can be; a plain minimum would freeze it at 100."""
    log_scale = jnp.log(100.0) + 0.5
    slope = jax.jit(
        jax.grad(lambda t: contrastive_loss("softmax", EYE2, EYE2[::-1], clip_scale(t))[0])
    )
    for _ in range(20):
        log_scale -= 0.01 * slope(log_scale)
    assert log_scale < jnp.log(100.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(text=np.zeros((4, 5))), r"pictures \(4, 3\) and of texts \(4, 5\)"),
        (dict(text=np.zeros((6, 3))), "4 pictures and 6 texts are no pairs"),
        (dict(image=np.zeros((1, 3)), text=np.zeros((1, 3))), "not a batch of 1"),
        (dict(kind="unicl"), "needs a label for each pair"),
        (dict(labels=np.arange(4)), "the softmax loss takes no labels"),
        (dict(kind="unicl", labels=np.arange(3)), "one for each of the 4 pairs"),
        (dict(groups=np.zeros(4)), "groups are float64"),
        (dict(extra_text=np.zeros((2, 5))), r"extra_text \(2, 5\)"),
        (dict(block=-1), "block=-1"),
        (dict(kind="hinge"), "unknown contrastive loss 'hinge'"),
        (dict(reduction="max"), "unknown reduction 'max'"),
        (dict(label_smoothing=1.0), "label_smoothing=1.0"),
        (dict(kind="sigmoid", reduction="sum"), "leave reduction at 'mean'"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    given = dict(kind="softmax", image=np.zeros((4, 3)), text=np.zeros((4, 3)), scale=1.0)
    with pytest.raises(UserError, match=message):
        contrastive_loss(**(given | arguments))
