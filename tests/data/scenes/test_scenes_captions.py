"""What the grammar writes: true, readable, of its register, and as likely as computed."""

import collections
import itertools
import math

import pytest

from capjax.data.scenes import REGISTERS, Scene, SceneObject, Source, caption_distribution
from capjax.data.scenes.draws import Draws, distribution
from capjax.data.scenes.grammar import DEFAULT_VOCABULARY
from capjax.data.scenes.parse import matches, mentions_attribute, parse
from capjax.data.scenes.vocabulary import BACKGROUNDS, SHAPES, TEXTURES
from capjax.errors import UserError

WORLDS = {
    "single": {"max_objects": 1},
    "default": {},
    "crowded": {
        "max_objects": 9,
        "shapes": SHAPES,
        "textures": TEXTURES,
        "backgrounds": BACKGROUNDS,
        "overlap": 0.4,
    },
}


def item(shape, colour, x, y, size="large", texture="solid"):
    return SceneObject(shape, colour, size, texture, x, y, 0.2)


TWINS = Scene(
    (
        item("circle", "red", 0.2, 0.2),
        item("circle", "red", 0.8, 0.2),
        item("star", "orange", 0.5, 0.8, size="small"),
    ),
    "plain",
    "grey",
)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("register", REGISTERS)
def test_every_caption_parses_and_is_as_faithful_as_it_says(register, world):
    source = Source(size=700, captions={register: 3}, **WORLDS[world])
    unfaithful = 0
    for i in range(len(source)):
        scene = source.graph(i)
        captions, _, faithful = source.captioned(i)
        for caption, true in zip(captions, faithful, strict=True):
            description = parse(caption)
            assert description is not None, caption
            assert matches(description, scene) == true, (caption, scene)
            unfaithful += not true
    if register == "alt_text":
        assert 0.1 < unfaithful / 2100 < 0.4
    else:
        assert unfaithful == 0


def test_frozen_captions():
    source = Source(captions=dict.fromkeys(REGISTERS, 1))
    assert source.captions(1) == [
        "a shape",
        "a cyan moon",
        "there are shapes here",
        "there is an orange square here",
        "there is a checked cyan moon under a checked cyan crescent in this picture",
        "the image shows three shapes on a shaded beige background: two large checked "
        "cyan moons at the bottom and at the top left, a small dotted orange square at "
        "the bottom right.",
        "free cyan_moon vector icon",
    ]
    assert source.captions(2) == [
        "a shape",
        "a white diamond",
        "there is a shape here",
        "there is a yellow moon here",
        "i can see a little yellow crescent under a striped white diamond in the image",
        "the image shows two shapes on a noisy beige background: a large striped white "
        "diamond on the left, a small solid yellow moon at the bottom. the large striped "
        "white diamond is above the small solid yellow moon.",
        "DSC88946 large white diamond download",
    ]


def test_toy_wording():
    assert caption_distribution(TWINS, "toy_generic") == {"a shape": 1.0}
    assert caption_distribution(TWINS, "toy_specific") == pytest.approx(
        {"a red circle": 2 / 3, "an orange star": 1 / 3}
    )


def test_short_and_generic_share_their_frame():
    assert caption_distribution(TWINS, "generic") == pytest.approx(
        {"there are shapes here": 2 / 3, "there is a shape here": 1 / 3}
    )
    assert caption_distribution(TWINS, "short") == pytest.approx(
        {"there are two red circles here": 2 / 3, "there is an orange star here": 1 / 3}
    )


def test_detailed_tells_everything():
    captions = caption_distribution(TWINS, "detailed")
    expected = (
        "this picture shows three shapes on a plain grey background: two large solid red circles "
        "at the top left and at the top right, a small solid orange star at the bottom."
    )
    assert captions[expected] == pytest.approx(1 / 3)
    apart = Scene((TWINS.objects[0], TWINS.objects[2]), "noisy", "beige")
    assert all(
        caption.endswith("the large solid red circle is above the small solid orange star.")
        for caption in caption_distribution(apart, "detailed")
    )


def test_only_some_registers_name_attributes():
    source = Source(size=300, captions=dict.fromkeys(REGISTERS, 1))
    rate = collections.Counter()
    for i in range(300):
        captions = source.captions(i)
        rate.update(r for r, c in zip(REGISTERS, captions, strict=True) if mentions_attribute(c))
        assert len(captions[list(REGISTERS).index("generic")].split()) >= 4
    assert rate["toy_generic"] == rate["generic"] == 0
    assert rate["toy_specific"] == rate["short"] == rate["detailed"] == 300
    assert 270 < rate["human"] <= 300
    assert 200 < rate["alt_text"] < 300


@pytest.mark.parametrize("register", ["toy_generic", "toy_specific", "generic", "short", "human"])
def test_distribution_is_that_of_the_samples(register):
    single = Scene(TWINS.objects[:1], "plain", "grey")
    scene = single if register == "human" else TWINS
    exact = caption_distribution(scene, register)
    assert sum(exact.values()) == pytest.approx(1.0)
    write, draws, n = REGISTERS[register], Draws(5), 20_000
    found = collections.Counter(write(scene, draws, DEFAULT_VOCABULARY).text for _ in range(n))
    assert set(found) <= set(exact)
    common = {caption: p for caption, p in exact.items() if n * p >= 20}
    # All rare captions together are one more outcome.
    rare = 1 - sum(common.values())
    outcomes = [(found[caption], p) for caption, p in common.items()]
    outcomes.append((n - sum(found[caption] for caption in common), rare))
    for count, p in outcomes:
        assert abs(count - n * p) <= 5 * math.sqrt(n * p * max(0.0, 1 - p)) + 1e-6


def test_distribution_of_the_sources_mix():
    source = Source(max_objects=1, captions={"toy_generic": 0.6, "toy_specific": 0.4})
    look = source.graph(0).objects[0]
    specific = next(c for c in source.caption_distribution(0) if c != "a shape")
    assert source.caption_distribution(0) == pytest.approx({"a shape": 0.6, specific: 0.4})
    assert specific.split()[1:] == [look.colour, look.shape]
    assert source.caption_distribution(0, "toy_generic") == {"a shape": 1.0}


def test_distribution_refuses_what_is_too_large_or_unknown():
    with pytest.raises(UserError, match="sample it"):
        caption_distribution(TWINS, "alt_text", max_paths=2000)
    with pytest.raises(UserError, match="choose from toy_generic"):
        caption_distribution(TWINS, "poem")


def test_registers_are_drawn_as_asked():
    source = Source(size=2000, captions={"generic": 0.6, "short": 0.4}, captions_per_image=5)
    counts = collections.Counter(register for i in range(2000) for register in source.registers(i))
    assert counts["generic"] + counts["short"] == 10_000
    assert abs(counts["generic"] - 6000) < 250  # five standard deviations
    mixed = sum(len(set(source.registers(i))) == 2 for i in range(2000))
    # Each caption is drawn by itself: 1 - .6^5 - .4^5 = .912 of the records have both.
    assert abs(mixed / 2000 - 0.912) < 0.04
    counted = Source(captions={"human": 1, "short": 2})  # the order given plays no part
    assert counted.registers(0) == ["short", "short", "human"]
    for i, register in itertools.product(range(50), [0, 1]):
        assert source.captions(i)[register].startswith("there ")


def test_enumeration_of_a_program_of_draws():
    def program(chooser):
        if chooser.chance(0.25):
            return "a" + chooser.pick("xy")
        return "b" + str(chooser.weighted((0.0, 0.9, 0.1))) + str(chooser.below(2))

    expected = {"ax": 0.125, "ay": 0.125, "b10": 0.3375, "b11": 0.3375}
    rare = {"b20": 0.0375, "b21": 0.0375}
    assert distribution(program, 100) == pytest.approx(expected | rare)
    assert distribution(program, 5) is None


def test_draws_are_those_of_splitmix64():
    # The first outputs of SplitMix64 from state 1234567, as in its published reference.
    draws = Draws(1234567)
    assert [draws.bits() for _ in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]
