"""Guidance by a language model: oracles of the spec, line breaks, prompts, corpora, bad input."""

import gzip
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from capjax.data import tokenizer
from capjax.decode.search import search
from capjax.errors import UserError
from experiments.guiding import corpus, documents, few_shot, lines, published, tags
from experiments.guiding.language_guidance import Guide, transfer

TEXTS = ["a red circle .", "a blue square", "two dogs run on grass", "there is a shape here"] * 4


@pytest.fixture(scope="module")
def captioner_rows():
    return tokenizer.train(TEXTS, vocab_size=64, max_length=16)


@pytest.fixture(scope="module")
def rows(captioner_rows):
    return lines.make(lambda n: TEXTS, max_length=64, path="", vocab_size=64)


def test_a_line_break_ends_the_caption():
    """Oracle 4: EOS 0.30 and NEWLINE 0.25 together beat a word of 0.50."""
    eos, newline, word = 0, 1, 2
    scores = jnp.log(jnp.array([0.30, 0.25, 0.50]))
    assert int(jnp.argmax(scores)) == word
    moved = transfer(scores, newline, eos)
    assert int(jnp.argmax(moved)) == eos
    assert float(moved[eos]) == pytest.approx(math.log(0.55), abs=1e-6)
    assert float(moved[newline]) < -1e8


class Table:
    """A model whose next token has one distribution, whatever was read."""

    def __init__(self, probabilities, max_length=8):
        self.logits = tuple(float(np.log(p)) for p in probabilities)
        self.vocab_size, self.max_length = len(probabilities), max_length

    def __hash__(self):
        return hash(self.logits)

    def __eq__(self, other):
        return isinstance(other, Table) and self.logits == other.logits

    def apply(self, params, *args, method):
        return getattr(self, method)(*args)

    def start_decoding(self, context, length=None):
        return jnp.zeros((len(context), 1))

    def decode_step(self, tokens, position, state):
        return jnp.broadcast_to(jnp.array(self.logits), (len(tokens), len(self.logits))), state


def test_both_ways_of_ending_in_the_search():
    """PAD BOS EOS NEWLINE and a word: with the paper's way EOS and NEWLINE are added together."""
    model = Table([1e-9, 1e-9, 1 / 3, 1 / 3, 1 / 3])
    language_model = Table([1e-9, 1e-9, 0.30, 0.25, 0.45], max_length=20)
    context = np.zeros((2, 1, 4), np.float32)
    asked = dict(alpha=1.0, beta=1.0, prompt=np.array([1, 4, 3]), end_token=3)
    combined = search(
        model, {}, context, companion=Guide(language_model, {}, **asked, way="combined")
    )
    assert np.asarray(combined.tokens)[0, 0].tolist()[:2] == [2, 0]
    # The other way puts NEWLINE in the place of EOS, 0.25 against the word's 0.45.
    ended = search(model, {}, context, companion=Guide(language_model, {}, **asked))
    assert bool(ended.truncated.all())


def test_lines_are_the_pieces_of_the_captioner_with_line_breaks(captioner_rows, rows):
    lines.check_vocabularies(captioner_rows, rows)
    ids = rows.ids("a red circle\ntwo dogs\n")
    assert ids.count(rows.newline) == 2
    first = ids[: ids.index(rows.newline)]
    assert first == captioner_rows.ids("a red circle")
    assert rows.text(ids) == "a red circle\ntwo dogs\n"
    again = lines.reopen(rows.model, max_length=64, path="x")
    assert again.ids("a red circle\n") == rows.ids("a red circle\n")
    # What the vocabulary does not know must not read as a line break.
    assert rows.newline not in rows.ids("a 你 circle")


def test_vocabularies_that_do_not_fit_are_refused(captioner_rows, rows):
    smaller = lines.make(lambda n: TEXTS, max_length=64, vocab_size=40)
    with pytest.raises(UserError, match=r"has 40 pieces and the captioner's 64"):
        lines.check_vocabularies(captioner_rows, smaller)
    other = lines.make(lambda n: [t.upper()[::-1] for t in TEXTS], max_length=64, vocab_size=64)
    with pytest.raises(UserError, match=r"pieces .* are not the captioner's"):
        lines.check_vocabularies(captioner_rows, other)
    with pytest.raises(UserError, match="no NEWLINE"):
        lines.newline_of(captioner_rows)

    class Endless(lines.Lines):
        special_tokens = lines.Lines.special_tokens.__class__(eos=None)

    with pytest.raises(UserError, match="no EOS"):
        lines.check_vocabularies(captioner_rows, Endless(captioner_rows.model, 64))


def test_few_shot_captions_are_drawn_anew_for_every_four_pictures(rows):
    pool = [f"caption {i}" for i in range(20)]
    drawn = few_shot.FewShot(pool, shots=5)
    first, second = drawn.lines(0), drawn.lines(1)
    assert first == few_shot.FewShot(pool, 5).lines(0) != second
    assert len(set(first)) == 5
    assert set(first) <= set(pool)
    prompts = few_shot.prompt_rows(few_shot.FewShot(TEXTS[:4], 2), 10, rows)
    assert (prompts[:4] == prompts[0]).all()
    assert (prompts[8:] == prompts[8]).all()
    assert (prompts[:, 0] == rows.special_tokens.bos).all()
    assert (prompts[:, -1] == rows.newline).all()
    texts = [rows.text(row[1:].tolist()).strip("\n").split("\n") for row in prompts]
    assert all(len(own) == 2 and set(own) <= set(TEXTS) for own in texts)


def test_prompts_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(UserError, match="shots=5 is more than the 3 captions"):
        few_shot.FewShot(["a", "b", "c"], 5)
    with pytest.raises(UserError, match=r"shots=1 .* 0 captions"):
        few_shot.FewShot([], 1)
    with pytest.raises(UserError, match="0 captions"):
        few_shot.Fixed([])
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(UserError, match="holds 0 captions"):
        few_shot.read_prompt(str(tmp_path / "empty.txt"))
    with pytest.raises(UserError, match="counting, descriptive"):
        few_shot.read_prompt(str(tmp_path / "none.txt"))


def test_the_prompt_files_have_the_shape_of_the_papers():
    long = few_shot.read_prompt("descriptive")
    assert len(long) == 10
    assert all(15 <= len(line.split()) <= 30 and line == line.lower() for line in long)
    assert not any(set(line) & set(".,;:!?") for line in long)
    counted = few_shot.read_prompt("counting")
    assert len(counted) == 26
    assert all(line.startswith("a photo of ") for line in counted)
    assert len({line.split()[3] for line in counted}) == 16  # one to sixteen


def test_a_corpus_goes_without_the_pictures_that_are_measured_on(tmp_path, monkeypatch, capsys):
    text, dev = tmp_path / "text.jsonl.gz", tmp_path / "dev.jsonl"
    with gzip.open(text, "wt") as file:
        for name in ("10.jsonl", "11.jpg"):
            file.write(json.dumps({"image": name, "captions": ["A dog runs, fast."]}) + "\n")
    dev.write_text(json.dumps({"image": "11_ab.jpg", "captions": ["x"]}) + "\n")
    out = tmp_path / "out.jsonl"
    monkeypatch.setattr(
        "sys.argv",
        ["corpus", str(text), "--without", str(dev), "--spaced", "--out", str(out)],
    )
    assert corpus.main() == 0
    assert "1 records kept, 1 left out" in capsys.readouterr().out
    assert json.loads(out.read_text()) == {"key": "10.jsonl", "captions": ["A dog runs , fast ."]}


def test_documents_are_lines_of_one_corpus(tmp_path):
    for name, word in (("a", "cat"), ("b", "dog")):
        (tmp_path / name).write_text(
            "".join(
                json.dumps({"captions": [f"{word} {i}", f"{word} {i}"]}) + "\n" for i in range(40)
            )
        )
    paths = (tmp_path / "a", tmp_path / "b")
    source = documents.Source(paths, words=30, size=50, blank_lines=6)
    found = [source.captions(i)[0] for i in range(50)]
    assert found == [source[i]["captions"][0] for i in range(50)]
    for text in found:
        said = [line for line in text.split("\n") if line]
        assert len(said) == len(set(said)) >= 7
        assert text.endswith("\n")
        assert len({line.split()[0] for line in said}) == 1
    assert 10 < sum(text.startswith("\n") for text in found) < 40
    with pytest.raises(UserError, match="cannot read the corpus"):
        documents.Source((tmp_path / "none",))
    (tmp_path / "bad").write_text("{}\n")
    with pytest.raises(UserError, match="bad:1"):
        documents.Source((tmp_path / "bad",))


def test_tags_and_sentences_are_true_of_their_picture():
    source = tags.Source("mixed", "val", 60)
    share = []
    for record in (source[i] for i in range(60)):
        assert record["captions"] == source.captions(int(record["key"].rsplit("-", 1)[-1]))
        assert all(tags.is_named(text, record["graph"]) for text in record["captions"])
        share += [text.startswith("photo ") for text in record["captions"]]
    assert 0.84 < np.mean(share) < 0.96
    other = next(kind for kind in tags.KINDS if kind != record["graph"].objects[0].shape)
    colour = record["graph"].objects[0].colour
    assert not tags.is_named(f"photo {colour} {other} 12", record["graph"])
    assert "image" not in tags.Source("sentences", pictures=False)[0]


def test_published_rows_have_the_metrics_of_the_spec():
    """A few numbers by hand, and the means that the paper's own columns imply."""
    first = published.TABLE_1[0]
    assert (first["cider"], first["recall_at_1"], first["clipscore"]) == (1.261, 0.265, 0.775)
    assert published.TABLE_3[-1] | {"cider": 0} != published.TABLE_3[-1]
    assert (published.TABLE_3[-1]["shots"], published.TABLE_3[-1]["cider"]) == (50, 0.597)
    for row in [*published.TABLE_1, *published.TABLE_B1, *published.TABLE_3]:
        clip, only = row["clipscore"], row["ref_only_clipscore"]
        # RefCLIP-S is a mean of harmonic means: at most the harmonic mean of the means, by little.
        assert 0 <= 2 * clip * only / (clip + only) - row["ref_clipscore"] < 0.011
        assert row["recall_at_1"] < row["recall_at_5"] < row["recall_at_10"]
