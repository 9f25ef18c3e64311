"""The pixels show what the graph says."""

import itertools

import numpy as np
import pytest

from capjax.data.scenes import Scene, SceneObject, Source
from capjax.data.scenes.render import render
from capjax.data.scenes.shapes import stamp
from capjax.data.scenes.vocabulary import BACKGROUNDS, COLOURS, SHAPES, TEXTURES


def crowded(image_size: int, overlap: float) -> Source:
    return Source(
        size=150, image_size=image_size, min_objects=1, max_objects=9, overlap=overlap,
        shapes=SHAPES, textures=TEXTURES, backgrounds=BACKGROUNDS, max_rotation=20,
    )  # fmt: skip


@pytest.mark.parametrize(("image_size", "overlap"), [(32, 0.0), (64, 0.0), (64, 0.4)])
def test_masks_are_disjoint_and_boxes_tight(image_size, overlap):
    source = crowded(image_size, overlap)
    for i in range(len(source)):
        record = source[i]
        assert record["masks"].sum(0).max() <= 1
        for mask, box in zip(record["masks"], record["boxes"], strict=True):
            ys, xs = np.nonzero(mask)
            assert len(xs) > 0
            tight = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / image_size
            np.testing.assert_allclose(box, tight, atol=1e-6)


def test_an_object_lies_where_the_graph_says():
    source = Source(size=200, image_size=64, shapes=["circle", "square", "cross"])
    for i in range(200):
        record = source[i]
        for item, box in zip(record["graph"].objects, record["boxes"], strict=True):
            centre = (box[:2] + box[2:]) / 2
            # Objects are painted at whole pixels.
            np.testing.assert_allclose(centre, (item.x, item.y), atol=1.01 / 64)
            assert abs((box[2] - box[0]) / 2 - item.radius) < 0.2 * item.radius + 1 / 64


def test_solid_objects_have_their_colour_inside_and_the_background_none_of_it():
    source = Source(size=100, image_size=64, textures=["solid"], backgrounds=["plain"])
    for i in range(100):
        record = source[i]
        for item, mask in zip(record["graph"].objects, record["masks"], strict=True):
            median = np.median(record["image"][mask], axis=0)
            np.testing.assert_allclose(median, COLOURS[item.colour], atol=1)
        outside = ~record["masks"].any(0)
        corner = record["image"][outside]
        assert np.mean((corner == np.median(corner, axis=0)).all(1)) > 0.8


def test_the_smaller_object_is_in_front():
    def item(x, size, radius):
        return SceneObject("square", "red", size, "solid", x, 0.5, radius)

    for objects in itertools.permutations((item(0.4, "large", 0.22), item(0.6, "small", 0.12))):
        _, masks, _ = render(Scene(objects, "plain", "grey"), 64, 0)
        small = [o.size for o in objects].index("small")
        _, whole, _ = render(Scene((objects[small],), "plain", "grey"), 64, 0)
        assert np.array_equal(masks[small], whole[0])
        _, uncovered, _ = render(Scene((objects[1 - small],), "plain", "grey"), 64, 0)
        assert masks[1 - small].sum() < uncovered[0].sum()


@pytest.mark.parametrize("radius", [6.08, 13.12])
def test_stamps_of_any_two_shapes_or_textures_differ(radius):
    """6.08 pixels are a large object at 32 pixels, 13.12 one at 64."""
    shapes = {shape: stamp(shape, "solid", radius, 0)[0].astype(int) for shape in SHAPES}
    for a, b in itertools.combinations(SHAPES, 2):
        total = (shapes[a].sum() + shapes[b].sum()) / 2
        assert np.abs(shapes[a] - shapes[b]).sum() > 0.1 * total, (a, b)
    for shape in SHAPES[:8]:
        tones = {t: stamp(shape, t, radius, 0)[1].astype(int) for t in TEXTURES}
        covered = (shapes[shape] > 128).sum() * 256
        for a, b in itertools.combinations(TEXTURES, 2):
            assert np.abs(tones[a] - tones[b]).sum() > 0.04 * covered, (shape, a, b)


def test_cached_stamps_cannot_be_written_to():
    for array in stamp("circle", "striped", 10.0, 0):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_backgrounds_differ():
    scene = {kind: Scene((), kind, "grey") for kind in BACKGROUNDS}
    plain, shaded, noisy, striped = (
        render(scene[k], 64, 12345)[0].astype(int) for k in BACKGROUNDS
    )
    assert np.ptp(plain[..., 0]) == 0
    assert np.ptp(shaded[:, 0, 0]) > 60
    assert np.ptp(shaded[0, :, 0]) == 0
    assert noisy[..., 0].std() > 10
    assert len(np.unique(striped[..., 0])) == 2
    again = render(scene["noisy"], 64, 12345)[0]
    other = render(scene["noisy"], 64, 54321)[0]
    assert np.array_equal(again, noisy)
    assert not np.array_equal(again, other)
