"""CIDEr with the document frequencies of another corpus: by hand, by brute force, from a file."""

import math
from collections import Counter

import pytest

from capjax.errors import UserError
from capjax.metrics import DocumentFrequencies, References, evaluate

TRAINING = {
    "1": ["a dog runs", "the dog"],
    "2": ["a cat"],
    "3": ["a red bus on a street"],
    "4": ["a bird sings", "the dog sings"],
}
REFERENCES = {"x": ["a dog sings", "dog"], "y": ["a fox on a street", "the fox"]}
CANDIDATES = {"x": "a dog and a dog runs", "y": "a fox on the street"}
BOTH = ("cider", "cider_plain")


def brute_force(candidate, references, training, clip):
    """CIDEr of one image, from the published formula, with dictionaries of tuples."""

    def ngrams(caption, n):
        words = caption.split()
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    total = 0.0
    for reference in references:
        for n in range(1, 5):
            seen = Counter(
                gram
                for captions in training
                for gram in {g for c in captions for g in ngrams(c, n)}
            )

            def weights(caption, n=n, seen=seen):
                return {
                    gram: count * math.log(len(training) / max(1, seen[gram]))
                    for gram, count in ngrams(caption, n).items()
                }

            mine, theirs = weights(candidate), weights(reference)
            product = sum(
                (min(value, theirs.get(gram, 0)) if clip else value) * theirs.get(gram, 0)
                for gram, value in mine.items()
            )
            norm = math.hypot(*mine.values()) * math.hypot(*theirs.values())
            similarity = product / norm if norm else 0.0
            if clip:
                bigrams = [max(len(text.split()) - 1, 0) for text in (candidate, reference)]
                similarity *= math.exp(-((bigrams[0] - bigrams[1]) ** 2) / 72)
            total += similarity / 4
    return 10 * total / len(references)


def test_the_corpus_decides_the_weights():
    corpus = DocumentFrequencies.of(References.from_captions(TRAINING))
    references = References.from_captions(REFERENCES, corpus=corpus)
    scores = evaluate(CANDIDATES, references, BOTH)
    for image_id, candidate in CANDIDATES.items():
        for name, clip in (("cider", True), ("cider_plain", False)):
            expected = brute_force(
                candidate, REFERENCES[image_id], list(TRAINING.values()), clip=clip
            )
            assert scores.per_image[image_id][name] == pytest.approx(expected), (image_id, name)
            assert expected > 0
    assert scores.metrics != evaluate(CANDIDATES, REFERENCES, BOTH).metrics


def test_the_references_themselves_are_the_default_corpus():
    own = DocumentFrequencies.of(References.from_captions(REFERENCES))
    given = evaluate(CANDIDATES, References.from_captions(REFERENCES, corpus=own), BOTH)
    assert given.per_image == evaluate(CANDIDATES, REFERENCES, BOTH).per_image


def test_one_image_can_be_scored_with_the_frequencies_of_many():
    corpus = DocumentFrequencies.of(References.from_captions(TRAINING))
    references = References.from_captions({"x": ["a dog runs home"]}, corpus=corpus)
    assert evaluate({"x": "a dog runs home"}, references).metrics["cider"] == pytest.approx(10)


def test_other_metrics_do_not_depend_on_the_corpus():
    corpus = DocumentFrequencies.of(References.from_captions(TRAINING))
    references = References.from_captions(REFERENCES, corpus=corpus)
    names = ("bleu", "rouge_l")
    assert (
        evaluate(CANDIDATES, references, names).per_image
        == evaluate(CANDIDATES, REFERENCES, names).per_image
    )


@pytest.mark.parametrize("training", [TRAINING, {"1": ["é 1 1/2 😀 \ud83d"], "2": [""]}])
def test_a_file_holds_all_of_it(tmp_path, training):
    corpus = DocumentFrequencies.of(References.from_captions(training))
    path = tmp_path / "train.npz"
    corpus.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["train.npz"]
    again = DocumentFrequencies.load(path)
    assert (again.images, again.vocabulary) == (corpus.images, corpus.vocabulary)
    for mine, theirs in zip(again.keys + again.counts, corpus.keys + corpus.counts, strict=True):
        assert mine.tolist() == theirs.tolist()
    before, after = (
        evaluate(CANDIDATES, References.from_captions(REFERENCES, corpus=one), BOTH)
        for one in (corpus, again)
    )
    assert after.per_image == before.per_image


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no file of document frequencies .*absent\.npz"):
        DocumentFrequencies.load(tmp_path / "absent.npz")
    path = tmp_path / "train.npz"
    DocumentFrequencies.of(References.from_captions(TRAINING)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="holds no document frequencies"):
        DocumentFrequencies.load(path)
    path.write_text("{}")
    with pytest.raises(UserError, match="holds no document frequencies"):
        DocumentFrequencies.load(path)
