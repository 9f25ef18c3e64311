"""Tuple F1: equal to SPICE's own scoring on hand-made graphs, and what follows for captions."""

import json
import math
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capjax.metrics import References
from capjax.metrics.parsers import toy
from capjax.metrics.scene_graph import SceneGraph
from capjax.metrics.tuple_f import PARTS, no_synonyms, tuple_f, tuple_f_parts

# What SPICE's scoring gives; how it was made is written in the file.
ORIGINAL = json.loads((pathlib.Path(__file__).parent / "tuple_f_original.json").read_text())


def synsets(word):
    return ORIGINAL["synsets"].get(word, ())


def graph(tuples):
    of_length = {n: [tuple(parts) for parts in tuples if len(parts) == n] for n in (1, 2, 3)}
    return SceneGraph.of([name for (name,) in of_length[1]], of_length[2], of_length[3])


class Prepared:
    """A parser that looks graphs up by caption."""

    name = "prepared"

    def __init__(self, graphs):
        self.graphs = graphs
        self.calls = 0

    def __call__(self, captions):
        self.calls += 1
        return [self.graphs[caption] for caption in captions]


def prepared(cases):
    """Candidates and the parser that knows the graphs of the cases."""
    graphs, candidates, references = {}, {}, {}
    for i, case in enumerate(cases):
        candidates[i], references[i] = f"c{i}", []
        graphs[f"c{i}"] = graph(case["candidate"])
        for j, tuples in enumerate(case["references"]):
            graphs[f"r{i}x{j}"] = graph(tuples)
            references[i].append(f"r{i}x{j}")
    return References.from_captions(references).align(candidates), Prepared(graphs)


def test_hand_made_graphs_score_as_in_the_original():
    candidates, parser = prepared(ORIGINAL["cases"])
    all_tuples = tuple_f(candidates, parser, synsets)
    parts = tuple_f_parts(candidates, parser, synsets)
    assert set(parts) == set(PARTS)
    for i, case in enumerate(ORIGINAL["cases"]):
        got = {"all": all_tuples.per_image[i]} | {k: m.per_image[i] for k, m in parts.items()}
        want = {k: math.nan if v is None else v for k, v in case["expected"].items()}
        assert got == pytest.approx(want, abs=1e-12, nan_ok=True), case["name"]


def test_corpus_values_are_those_of_the_original():
    candidates, parser = prepared(ORIGINAL["cases"])
    # As its report prints them for these images together.
    assert round(tuple_f(candidates, parser, synsets).value, 3) == 0.721
    parts = tuple_f_parts(candidates, parser, synsets)
    printed = {"object": 0.869, "attribute": 0.585, "relation": 0.630}
    printed |= {"cardinality": 0.200, "colour": 0.347}
    assert {name: round(measure.value, 3) for name, measure in parts.items()} == printed


def test_images_without_a_kind_of_tuple_do_not_count_for_it():
    candidates, parser = prepared(
        [
            {"candidate": [["dog", "red"]], "references": [[["dog", "red"]]]},
            {"candidate": [["dog", "red"]], "references": [[["dog"]]]},
        ]
    )
    colour = tuple_f_parts(candidates, parser, no_synonyms)["colour"]
    assert colour.value == 1
    assert colour.corpus(np.array([1, 7])) == 1
    assert math.isnan(colour.corpus(np.array([0, 2])))
    assert math.isnan(tuple_f_parts(candidates, parser, no_synonyms)["relation"].value)


def test_synonyms_are_an_argument():
    candidates, parser = prepared([{"candidate": [["car"]], "references": [[["auto"]]]}])
    assert tuple_f(candidates, parser, no_synonyms).value == 0
    assert tuple_f(candidates, parser, synsets).value == 1


def test_words_of_a_phrase_are_looked_up_with_underscores():
    asked = []

    def record(word):
        asked.append(word)
        return ()

    candidates, parser = prepared([{"candidate": [["hot dog"]], "references": [[["cat"]]]}])
    tuple_f(candidates, parser, record)
    assert "hot_dog" in asked


def test_synonyms_are_those_of_wordnet_by_default(monkeypatch):
    class Words:
        def synsets(self, word):
            return frozenset({"car": {1}, "auto": {1}}.get(word, ()))

    from capjax.metrics import tuple_f as module

    monkeypatch.setattr("capjax.metrics.wordnet.load", Words)
    module._wordnet.cache_clear()
    candidates, parser = prepared([{"candidate": [["car"]], "references": [[["auto"]]]}])
    assert tuple_f(candidates, parser).value == 1
    module._wordnet.cache_clear()


def test_references_are_parsed_once_for_many_candidate_sets():
    candidates, parser = prepared(ORIGINAL["cases"])
    tuple_f(candidates, parser, synsets)
    tuple_f(candidates, parser, synsets)
    assert parser.calls == 3  # the references, and the candidates twice


WORDS = ("dog", "cat", "car", "auto", "truck", "lorry", "red", "big", "large", "two", "near")
GRAPH = st.lists(
    st.integers(1, 3).flatmap(lambda n: st.lists(st.sampled_from(WORDS), min_size=n, max_size=n)),
    max_size=6,
)


@settings(deadline=None, max_examples=60)
@given(GRAPH, st.lists(GRAPH, min_size=1, max_size=3))
def test_more_references_never_match_less_and_equality_is_complete(candidate, references):
    case = {"candidate": candidate, "references": references}
    equal = {"candidate": candidate, "references": [candidate]}
    stranger = {"candidate": [["ufo"]], "references": references}
    candidates, parser = prepared([case, equal, stranger])
    score, same, none = tuple_f(candidates, parser, synsets).per_image
    assert score >= 0
    assert same == (1 if candidate else 0)
    assert none == 0


def test_captions_with_the_toy_parser():
    references = References.from_captions({"a": ["a dog chases the cat", "a dog runs"]})
    candidates = references.align({"a": "the dog chases a ball"})
    # References: dog, cat, (dog, run), (dog, chase, cat). Candidate: dog, ball, (dog, chase, ball).
    assert tuple_f(candidates, toy.Parser(), no_synonyms).value == pytest.approx(2 * 1 / 7)
