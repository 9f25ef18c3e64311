"""What captions are read as, and which scenes they are true of."""

import re

import numpy as np
import pytest

from capjax.data.scenes import Scene, SceneObject, Source
from capjax.data.scenes.graph import main_relation
from capjax.data.scenes.parse import (
    Clause,
    Description,
    Mention,
    attribute_errors,
    matches,
    mentions_attribute,
    parse,
    posterior,
)
from capjax.data.scenes.vocabulary import (
    ANY_SHAPE,
    ATTRIBUTE_WORDS,
    BACKGROUND_COLOURS,
    COLOURS,
    NUMBERS,
    OPPOSITE,
    SHAPES,
    SIZES,
    TEXTURES,
    article,
    plural,
)

VALUES = {"shape": SHAPES, "colour": tuple(COLOURS), "size": SIZES, "texture": TEXTURES}


def item(shape, colour, x=0.5, y=0.5, size="large", texture="solid"):
    return SceneObject(shape, colour, size, texture, x, y, 0.1)


def scene(*objects, background="plain", colour="grey"):
    return Scene(objects, background, colour)


RED, BLUE = item("circle", "red", 0.2, 0.2), item("square", "blue", 0.8, 0.8, "small", "striped")
PAIR = scene(RED, BLUE)
TWINS = scene(RED, item("circle", "red", 0.8, 0.2), BLUE)


def only(**mention):
    return Description((Clause((Mention(**mention),)),))


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a shape", only()),
        ("A red circle.", only(colour="red", shape="circle")),
        ("there are shapes here", only(count=2)),
        ("two tiny spotted crosses", only(shape="cross", size="small", texture="dotted", count=2,
                                          exact=True)),
        ("i can see a big disc in the upper left corner",
         only(shape="circle", size="large", places=(frozenset({"top", "left"}),))),
        ("red_circle-12", only(colour="red", shape="circle")),
        ("IMG_0412 red circle wallpaper 12", only(colour="red", shape="circle")),
        ("photo blue 12", only(colour="blue")),
        ("DSC12345", only()),
        ("a star on a noisy beige background",
         Description((Clause((Mention(shape="star"),)),), "noisy", "beige")),
        ("a red figure to the left of an orange star",
         Description((Clause((Mention(colour="red"), Mention(shape="star", colour="orange")),
                             ((0, "left of", 1),)),))),
    ],
)  # fmt: skip
def test_parse(caption, expected):
    assert parse(caption) == expected


@pytest.mark.parametrize(
    "caption",
    [
        "", " . ", "there", "there is", "there is a", "there is a red", "there is a red here",
        "there is a red circle circle here", "there is a circle red here", "a orange star",
        "there are a red circle here", "there is two red circles here", "two red circle",
        "a red circles", "a red blue circle", "a red circle left of", "the the the",
        "a red circle and", "a dog", "red circle blue", "photo photo red circle",
        "a red circle in the", "a red circle on a red background", "two circles left of a star",
        "there is a red circle here there is a red circle here", "a large small circle",
        "three circles on the left and at the top", "red circles wallpaper 12",
    ],
)  # fmt: skip
def test_broken_text_is_outside_the_grammar(caption):
    assert parse(caption) is None
    assert not posterior(caption, [PAIR]).any()


@pytest.mark.parametrize(
    ("caption", "graph", "true"),
    [
        ("a red circle", TWINS, True),
        ("a red square", TWINS, False),
        ("two red circles", TWINS, True),
        ("two red circles", PAIR, False),
        ("one red circle", TWINS, False),
        ("one red circle", PAIR, True),
        ("three red circles", TWINS, False),
        ("circles", TWINS, True),
        ("circles", PAIR, False),
        ("three shapes", TWINS, True),
        ("three shapes, one of them a blue square", TWINS, True),
        ("three shapes, one of them a green square", TWINS, False),
        # Two mentions are two objects.
        ("a red circle and a red circle", PAIR, False),
        ("a red circle and a circle", TWINS, True),
        ("a red circle above a blue square", PAIR, True),
        ("a blue square above a red circle", PAIR, False),
        ("a circle left of a red circle", TWINS, True),
        ("a circle under a red circle", TWINS, False),
        ("a circle on the left", PAIR, True),
        ("a circle on the right", PAIR, False),
        ("a circle at the bottom left", PAIR, False),
        ("two circles at the top left and at the top right", TWINS, True),
        ("two circles at the top and at the top left", TWINS, True),
        ("two circles at the bottom and at the top left", TWINS, False),
        ("a circle in the centre", scene(item("circle", "red")), True),
        ("a circle on a grey background", PAIR, True),
        ("a circle on a beige background", PAIR, False),
        ("a circle on a noisy grey background", PAIR, False),
    ],
)
def test_matches(caption, graph, true):
    description = parse(caption)
    assert description is not None
    assert matches(description, graph) == true
    assert (attribute_errors(description, graph).wrong.total() == 0) == true


def changed(caption: str, graph: Scene) -> list[str]:
    """The caption with one attribute word replaced by a value that no object of the scene has."""
    words = re.findall(r"[a-z]+|[^a-z]+", caption)
    # "shaded" and "striped" before a background's colour are not an object's.
    end = {k for k in range(len(words)) if "background" in words[k : k + 5]}
    result = []
    for at, word in enumerate(words):
        attribute, _, many = ATTRIBUTE_WORDS.get(word, (None, None, None))
        if attribute is None or at in end:
            continue
        present = {getattr(o, attribute) for o in graph.objects}
        other = next((v for v in VALUES[attribute] if v not in present), None)
        if other is None:
            continue
        copy = list(words)
        copy[at] = plural(other) if many else other
        if at >= 2 and copy[at - 2] in ("a", "an"):
            copy[at - 2] = article(copy[at])
        result.append("".join(copy))
    return result


def test_no_word_for_an_attribute_means_anything_else():
    frame = "at in on near top upper bottom lower left right centre middle corner side one of them"
    assert not set(ATTRIBUTE_WORDS) & {*frame.split(), *BACKGROUND_COLOURS, *NUMBERS, *ANY_SHAPE}


@pytest.mark.parametrize("register", ["toy_specific", "short", "human", "detailed"])
def test_one_wrong_attribute_is_noticed(register):
    source = Source(size=200, captions={register: 2})
    seen = 0
    for i in range(len(source)):
        graph = source.graph(i)
        for caption in source.captions(i):
            for wrong in changed(caption, graph):
                description = parse(wrong)
                assert description is not None, wrong
                assert not matches(description, graph), wrong
                assert attribute_errors(description, graph).wrong.total() > 0
                seen += 1
    assert seen > 400


def test_a_turned_relation_is_noticed():
    source = Source(size=300, min_objects=2, alike=0.0)
    for i in range(300):
        a, b = source.graph(i).objects[:2]
        relation = main_relation(a, b)
        first, second = (Mention(o.shape, o.colour, o.size, o.texture) for o in (a, b))
        graph = scene(a, b)
        said = Description((Clause((first, second), ((0, relation, 1),)),))
        turned = Description((Clause((first, second), ((0, OPPOSITE[relation], 1),)),))
        assert matches(said, graph)
        if first != second:
            assert not matches(turned, graph)
            errors = attribute_errors(turned, graph)
            assert errors.wrong == {"relation": 1}


def test_errors_are_zero_exactly_where_a_caption_is_true():
    source = Source(
        size=150, captions={"human": 2, "short": 1, "detailed": 1, "alt_text": 1},
        shapes=SHAPES[:2], colours=["red", "blue"], textures=["solid"],
    )  # fmt: skip
    graphs = [source.graph(i) for i in range(150)]
    true = 0
    for i in range(150):
        for caption in source.captions(i):
            description = parse(caption)
            for graph in graphs[:40]:
                holds = matches(description, graph)
                true += holds
                assert (attribute_errors(description, graph).wrong.total() == 0) == holds
    assert 1000 < true < 29_000  # of 30,000: both outcomes are common


def test_attribute_errors_by_kind():
    errors = attribute_errors(parse("a green circle left of a small star"), PAIR)
    # The mentions mean the circle and the square: colour of one, shape of the other are wrong.
    assert errors.claimed == {"shape": 2, "colour": 1, "size": 1, "relation": 1}
    assert errors.wrong == {"colour": 1, "shape": 1}
    assert errors.rate == pytest.approx(2 / 5)
    errors = attribute_errors(parse("three red circles"), TWINS)
    assert errors.wrong == {"count": 1}
    errors = attribute_errors(parse("a circle on the right"), PAIR)
    assert errors.wrong == {"place": 1}
    errors = attribute_errors(parse("a circle on a beige background"), PAIR)
    assert errors.wrong == {"background": 1}
    assert attribute_errors(parse("a shape"), PAIR).rate == 0
    # There is no second object to be the shape.
    errors = attribute_errors(parse("a red circle and a shape"), scene(RED))
    assert errors.wrong == {"count": 1}


def test_posterior_is_uniform_over_the_matching_scenes():
    graphs = [scene(RED), scene(BLUE), PAIR, TWINS]
    np.testing.assert_allclose(posterior("a red circle", graphs), [1 / 3, 0, 1 / 3, 1 / 3])
    np.testing.assert_allclose(posterior("a shape", graphs), [0.25] * 4)
    np.testing.assert_allclose(posterior(parse("two red circles"), graphs), [0, 0, 0, 1])
    assert not posterior("a green star", graphs).any()
    assert not posterior("a red red red", graphs).any()


def test_detailed_captions_find_their_scene_and_generic_ones_do_not():
    source = Source(size=200, captions={"generic": 1, "short": 1, "detailed": 1})
    graphs = [source.graph(i) for i in range(200)]
    recall = np.mean(
        [[posterior(c, graphs)[i] for c in source.captions(i)] for i in range(200)], axis=0
    )
    generic, short, detailed = recall
    assert generic < 0.02 < short < detailed
    assert detailed > 0.9


def test_mentions_attribute_also_of_broken_text():
    assert mentions_attribute("there is a red circle circle")
    assert not mentions_attribute("there is a shape shape here")
    assert not mentions_attribute("a shape on a striped grey background")
    assert all(not mentions_attribute(f"{article(noun)} {noun}") for noun in ANY_SHAPE)
