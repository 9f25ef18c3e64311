"""The records: the same everywhere, in any order, within the bounds asked for."""

import collections
import concurrent.futures
import pickle
import zlib

import numpy as np
import pytest

from capjax.data.scenes import Source
from capjax.errors import UserError


def same(a: dict, b: dict) -> bool:
    arrays = ("image", "masks", "boxes")
    return all(np.array_equal(a[k], b[k]) if k in arrays else a[k] == b[k] for k in a)


@pytest.mark.parametrize("image_size", [32, 64, 96])
def test_record_has_the_documented_form(image_size):
    source = Source(image_size=image_size, size=20)
    assert len(source) == 20
    keys = set()
    for record in (source[i] for i in range(20)):
        n = len(record["graph"].objects)
        assert record["image"].shape == (image_size, image_size, 3)
        assert record["image"].dtype == np.uint8
        assert record["masks"].shape == (n, image_size, image_size)
        assert record["masks"].dtype == bool
        assert record["boxes"].shape == (n, 4)
        assert record["boxes"].dtype == np.float32
        assert len(record["captions"]) == len(record["registers"]) == len(record["faithful"]) == 5
        assert 1 <= n <= 4
        keys.add(record["key"])
    assert len(keys) == 20


def test_records_do_not_depend_on_order_copy_or_thread():
    kwargs = {"seed": 7, "size": 60, "captions": {"human": 0.5, "alt_text": 0.5}}
    forward = [Source(**kwargs)[i] for i in range(60)]
    source = Source(**kwargs)
    backward = [source[i] for i in reversed(range(60))][::-1]
    copied = pickle.loads(pickle.dumps(source))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(copied.__getitem__, range(60)))
    for a, b, c in zip(forward, backward, threaded, strict=True):
        assert same(a, b)
        assert same(a, c)
    for i in range(60):
        assert source.captions(i) == forward[i]["captions"]
        assert source.registers(i) == forward[i]["registers"]
        assert source.graph(i) == forward[i]["graph"]


def test_size_of_set_picture_and_captions_leave_the_scene_alone():
    a = Source(size=10, image_size=32, captions="short")
    b = Source(size=1000, image_size=96, captions={"detailed": 2})
    c = Source(size=10, image_size=96, captions="short")
    assert [a.graph(i) for i in range(10)] == [b.graph(i) for i in range(10)]
    assert [a.captions(i) for i in range(10)] == [c.captions(i) for i in range(10)]


def test_index_beyond_the_end():
    source = Source(size=3)
    assert source[-1]["key"] == source[2]["key"]
    assert source[np.int64(1)]["key"] == source[1]["key"]
    assert sum(1 for _ in source) == 3
    for index in (3, -4):
        with pytest.raises(IndexError):
            source[index]


# Frozen: whoever changes these changes the data of every experiment, and must say so.
def test_frozen_pictures():
    single = Source(image_size=32, max_objects=1)
    several = Source(seed=3, split="test", image_size=64, min_objects=4)
    assert [zlib.crc32(single[i]["image"]) for i in range(4)] == [
        3629973790,
        1979043666,
        1668876591,
        2166022869,
    ]
    assert [zlib.crc32(several[i]["image"]) for i in range(4)] == [
        3847598292,
        1216577180,
        1596690482,
        518547416,
    ]
    assert [zlib.crc32(several[i]["masks"]) for i in range(2)] == [4117845365, 2303588672]


def test_splits_and_seeds_share_no_scene():
    seen = collections.Counter(
        (item.x, item.y)
        for split in ("train", "val", "test")
        for seed in (0, 1)
        for i in range(500)
        for item in Source(seed=seed, size=500, split=split).graph(i).objects
    )
    assert max(seen.values()) == 1


def test_held_out_combinations():
    kwargs = {"hold_out": [("red", "circle"), ("striped", "blue", "star")], "size": 600}

    def held(item):
        return (item.colour, item.shape) == ("red", "circle") or (
            item.texture,
            item.colour,
            item.shape,
        ) == ("striped", "blue", "star")

    for split, expected in (("train", False), ("val", False), ("test", True)):
        source = Source(split=split, **kwargs)
        items = [item for i in range(600) for item in source.graph(i).objects]
        assert {held(item) for item in items} == {expected}
        if not expected:
            # The parts of what is held out are still shown.
            assert any(item.colour == "red" for item in items)
            assert any(item.shape == "circle" for item in items)


def test_every_value_is_drawn_as_often():
    source = Source(size=3000, max_objects=1)
    items = [source.graph(i).objects[0] for i in range(3000)]
    for name in ("shape", "colour", "size", "texture"):
        counts = collections.Counter(getattr(item, name) for item in items)
        assert len(counts) == len(source.vocabulary[name])
        expected = 3000 / len(counts)
        # Five standard deviations of a binomial count.
        assert all(abs(n - expected) < 5 * expected**0.5 for n in counts.values()), counts


def test_numbers_of_objects_and_alike_ones():
    source = Source(size=2000, min_objects=2, max_objects=5, alike=0.0)
    counts = collections.Counter(len(source.graph(i).objects) for i in range(2000))
    assert set(counts) == {2, 3, 4, 5}
    assert min(counts.values()) > 400
    twins = Source(size=50, min_objects=3, alike=1.0)
    for i in range(50):
        looks = {(o.shape, o.colour, o.size, o.texture) for o in twins.graph(i).objects}
        assert len(looks) == 1


def test_narrowed_vocabulary():
    source = Source(
        size=100, shapes=["ring"], colours=["red", "blue"], sizes=["large"], textures=["solid"],
        backgrounds=["plain"], background_colours=["grey"], max_rotation=20,
    )  # fmt: skip
    graphs = [source.graph(i) for i in range(100)]
    items = [item for graph in graphs for item in graph.objects]
    assert {item.shape for item in items} == {"ring"}
    assert {item.colour for item in items} == {"red", "blue"}
    assert {(g.background, g.background_colour) for g in graphs} == {("plain", "grey")}
    assert {item.angle for item in items} == set(range(-20, 21, 5))


def test_zoom_makes_a_single_object_larger_and_keeps_it_within_the_picture():
    plain, zoomed = (Source(size=60, max_objects=1, zoom=zoom) for zoom in (1.0, 1.8))
    for i in range(60):
        (small,), (large,) = plain.graph(i).objects, zoomed.graph(i).objects
        assert large.radius == pytest.approx(1.8 * small.radius)
        assert (large.shape, large.colour) == (small.shape, small.colour)
        assert large.radius <= min(large.x, large.y, 1 - large.x, 1 - large.y)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"shapes": ["circel"]}, "no 'circel'; choose from circle, square"),
        ({"colours": ["red", "crimson"]}, "no 'crimson'; choose from red"),
        ({"colours": "red"}, r"must be a list; write \('red',\)"),
        ({"colours": 3}, "must be a list"),
        ({"sizes": []}, "at least one"),
        ({"textures": ["solid", "solid"]}, "once"),
        ({"backgrounds": ["wavy"]}, "choose from plain"),
        ({"background_colours": ["red"]}, "choose from grey"),
        ({"split": "dev"}, "choose from train, val, test"),
        ({"seed": -1}, "seed=-1"),
        ({"size": 0}, "size=0"),
        ({"size": 10.5}, "size=10.5"),
        ({"image_size": 8}, "from 16 to 1024"),
        ({"min_objects": 3, "max_objects": 2}, "larger than max_objects=2"),
        ({"max_objects": 10}, "from 1 to 9"),
        ({"overlap": 0.9}, "from 0 to 0.4"),
        ({"overlap": "a"}, "overlap='a'"),
        ({"max_rotation": 45}, "from 0 to 20"),
        ({"max_objects": 1, "zoom": 2.0}, "zoom=2.0 must be a number from 1 to 1.8"),
        ({"max_objects": 2, "zoom": 1.5}, "zoom=1.5 has no room for more objects"),
        ({"captions": "poetry"}, "choose from toy_generic"),
        ({"captions": {"short": 0.4, "generic": 0.4}}, "sum to 1"),
        ({"captions": {"short": 1.5, "generic": -0.5}}, "sum to 1"),
        ({"captions": {"short": True}}, "sum to 1"),
        ({"captions": None}, "must be a register"),
        ({"captions": {"short": 2}, "captions_per_image": 5}, "leave it out"),
        ({"captions_per_image": 0}, "captions_per_image=0"),
        ({"hold_out": [("red", "cirle")]}, "'cirle'"),
        ({"hold_out": ["red"]}, "must be a tuple"),
        ({"hold_out": [("red", "blue")]}, "two values of colour"),
        ({"hold_out": [()]}, "empty"),
        ({"hold_out": [("red",)], "colours": ["red"]}, "nothing to draw"),
    ],
)
def test_bad_arguments_are_told_apart(kwargs, message):
    with pytest.raises(UserError, match=message):
        Source(**kwargs)
