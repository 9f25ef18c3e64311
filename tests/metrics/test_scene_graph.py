"""Scene graphs as data, parsers as plug-ins, and the parsers for generated scenes and for tests."""

import pytest

from capjax.data.scenes import Source
from capjax.errors import UserError
from capjax.metrics import References
from capjax.metrics.parsers import scenes, toy
from capjax.metrics.scene_graph import SceneGraph, load_parser, parse
from capjax.metrics.tuple_f import no_synonyms, tuple_f


def test_words_are_lower_cased_and_each_tuple_stands_once():
    graph = SceneGraph.of(
        ["Dog", "dog "], [("Dog", "Red"), ("dog", "red")], [("cat", "in  front of", "DOG")]
    )
    assert graph == SceneGraph(("dog", "cat"), (("dog", "red"),), (("cat", "in front of", "dog"),))
    assert len({graph, graph}) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attributes": [("dog", "red", "big")]}, "has 3 parts: this tuple needs 2"),
        ({"objects": [" "]}, "every part must be a word"),
        ({"relations": [("dog", None, "cat")]}, "holds None"),
    ],
)
def test_broken_tuples_are_named(fields, message):
    with pytest.raises(UserError, match=message):
        SceneGraph.of(**fields)


def test_parsers_are_loaded_by_import_path():
    parser = load_parser("capjax.metrics.parsers.toy", nouns=["ufo"])
    assert parser.name == "toy"
    assert parser(["a UFO lands"])[0].objects == ("ufo",)
    with pytest.raises(UserError, match=r"the module 'capjax\.nowhere', which cannot be found"):
        load_parser("capjax.nowhere")
    with pytest.raises(UserError, match="offers no 'Parser'"):
        load_parser("capjax.metrics.cider")
    with pytest.raises(UserError, match=r"a field 'noun', which .* does not take; did you mean"):
        load_parser("capjax.metrics.parsers.toy", noun=[])


def test_equal_captions_are_parsed_once():
    seen = []

    def graphs(captions):
        seen.extend(captions)
        return [SceneGraph.of([caption]) for caption in captions]

    found = parse(graphs, ["b", "a", "b"])
    assert seen == ["b", "a"]
    assert [graph.objects for graph in found] == [("b",), ("a",), ("b",)]
    assert parse(graphs, []) == []


class Broken:
    name = "broken"

    def __init__(self, graphs):
        self.graphs = graphs

    def __call__(self, captions):
        return self.graphs


def test_a_parser_that_breaks_its_interface_is_named():
    with pytest.raises(UserError, match="'broken' gave 1 graphs for 2 captions"):
        parse(Broken([SceneGraph()]), ["a", "b"])
    with pytest.raises(UserError, match="'broken' gave a tuple for 'a'"):
        parse(Broken([("dog",)]), ["a"])


def test_toy_graphs():
    graphs = toy.Parser()(["the dogs chased a cat", "a dog barking loudly", "no such words here"])
    assert graphs[0] == SceneGraph(("dog", "cat"), (), (("dog", "chase", "cat"),))
    assert graphs[1] == SceneGraph(("dog",), (("dog", "bark"),), ())
    assert graphs[2] == SceneGraph()


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        (
            "a tiny red disc to the left of a square",
            SceneGraph.of(
                ["circle", "square"],
                [("circle", "red"), ("circle", "small")],
                [("circle", "left of", "square")],
            ),
        ),
        ("two stars", SceneGraph.of(["star"], [("star", "two")])),
        ("shapes", SceneGraph.of(["shape"])),
        (
            "a blue star on a plain grey background",
            SceneGraph.of(
                ["star"],
                [("star", "blue"), ("background", "plain"), ("background", "grey")],
            ),
        ),
        ("a star in the top left corner", SceneGraph.of([], [("star", "left"), ("star", "top")])),
        ("a dog on the grass", SceneGraph()),
        ("", SceneGraph()),
    ],
)
def test_captions_of_generated_scenes(caption, expected):
    (got,) = scenes.Parser()([caption])
    assert sorted(got.objects) == sorted(expected.objects)
    assert sorted(got.attributes) == sorted(expected.attributes)
    assert got.relations == expected.relations


def test_a_swapped_object_lowers_the_score_of_generated_captions():
    truth = {"a": ["a red circle above a blue square"], "b": ["a star"]}
    references = References.from_captions(truth)

    def score(caption):
        candidates = references.align({"a": caption, "b": "a star"})
        return tuple_f(candidates, scenes.Parser(), no_synonyms).per_image[0]

    right, one_wrong = (
        score("a red disc over a blue square"),
        score("a red star over a blue square"),
    )
    # Of 5 tuples each, the square and its colour are right.
    assert (right, one_wrong) == (1.0, pytest.approx(2 * 2 / 10))
    assert score("a green star over a pink moon") == 0


def test_every_generated_caption_has_objects():
    source = Source(size=40, image_size=16)
    captions = [caption for record in source for caption in record["captions"]]
    graphs = scenes.Parser()(captions)
    assert captions
    assert [c for c, graph in zip(captions, graphs, strict=True) if not graph.objects] == []
