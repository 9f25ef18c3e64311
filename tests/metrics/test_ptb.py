"""The tokenizer against the original on awkward text and on every real caption; invariants."""

import gzip
import hashlib
import json
import pathlib
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from capjax.metrics import ptb
from capjax.metrics.ptb import PUNCTUATION, tokenize

# How the file was made is written in it: the original tokenizer, on text chosen to be awkward.
CASES = json.loads((pathlib.Path(__file__).parent / "ptb_original.json").read_text())["cases"]

# SHA-256 of the original's output, tokens joined by blanks, a caption a line; made in the same way.
REAL = [
    (
        "flickr8k/captions_train.jsonl",
        30000,
        "932014daf72edaa6216dd13eb616743e483510a26a51ce5fc90a5fe31623c23d",
    ),
    (
        "flickr8k/captions_dev.jsonl",
        5000,
        "83a6c4faa1805ff4b8d2733995b8dc463059c45b7067535b16a9da8731185f5f",
    ),
    (
        "flickr8k/captions_extra.jsonl",
        455,
        "259c6ad98a7f2dd38f1a4819642aecb6fda5aefe750a0577e434fec743afd25a",
    ),
    (
        "text_corpora/flickr30k_multi30k_train_en.jsonl.gz",
        140645,
        "fa9a78d94a73209dc10b368251600a96f21d709417cc6a61edd861ce33761ca2",
    ),
    (
        "text_corpora/flickr30k_multi30k_val_en.jsonl.gz",
        4930,
        "59b0efcbef4363ed3dbded38dfc4cfbdda5fa7bec82fd6e4ccad6d83c16227e1",
    ),
    (
        "text_corpora/coco_val2017_captions.jsonl.gz",
        23919,
        "9addf76d5fd5d7e3ca378685e054041aa60134afe2d13bae1834476e8ebc3268",
    ),
]


@pytest.mark.parametrize(("caption", "expected"), CASES)
def test_equals_the_original_on_awkward_text(caption, expected):
    assert " ".join(tokenize(caption)) == expected


@pytest.mark.parametrize(("name", "captions", "digest"), REAL)
def test_equals_the_original_on_every_real_caption(shared, name, captions, digest):
    data = (shared / "data" / name).read_bytes()
    lines = (gzip.decompress(data) if name.endswith(".gz") else data).splitlines()
    tokens = [" ".join(tokenize(text)) for line in lines for text in json.loads(line)["captions"]]
    assert len(tokens) == captions
    assert hashlib.sha256("\n".join(tokens).encode()).hexdigest() == digest


def test_the_next_caption_decides_on_a_letter_at_the_end_as_in_the_original():
    caption = "A sign that reads K."
    assert tokenize(caption)[-1] == "k."
    assert tokenize(caption, following="The sign is red.")[-1] == "k"
    assert tokenize(caption, following="the sign is red.")[-1] == "k."


@given(st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1, max_size=9))
@example("cannot")
@example("CanNot")
@example("cannots")
@example("gonna")
@example("wanna")
@example("gotta")
@example("lemme")
@example("gimme")
@example("dont")
@example("Dunkin")
@example("pro")
def test_words_of_letters_need_no_rules(word):
    by_rules, _ = ptb._scan(word + " ", 0, len(word))
    assert tokenize(f"{word} {word}") == by_rules * 2


def test_words_do_not_depend_on_what_was_tokenized_before():
    first = tokenize("Take 1 1/2 cups (of milk) . . . now")
    tokenize("Take 1 cup (of")
    tokenize("now 1/2 milk) .")
    assert tokenize("Take 1 1/2 cups (of milk) . . . now") == first
    assert "1\u00a01/2" in first


def test_the_caller_may_change_what_it_got():
    tokenize("a dog").append("cat")
    assert tokenize("a dog") == ["a", "dog"]


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\u2028", "\x0b"])
def test_line_breaks_are_blanks(line_break):
    assert tokenize(f"a dog{line_break}runs") == ["a", "dog", "runs"]


@pytest.mark.parametrize(
    "piece", ["a dog ", "a.", "<a b ", "'", "a@", "x-", "(5", "&amp", "A.B. ", ":", "a%.", "1/"]
)
def test_long_text_stays_fast(piece):
    begin = time.perf_counter()
    tokenize(piece * (4000 // len(piece)))
    assert time.perf_counter() - begin < 5


@given(st.text(max_size=60))
def test_any_text_gives_lower_case_tokens_without_blanks_or_punctuation(caption):
    for token in tokenize(caption):
        assert token
        assert " " not in token
        assert "\n" not in token
        assert token not in PUNCTUATION
        assert token.lower() == token


@given(
    st.lists(
        st.sampled_from(["a", "dog's", "t-shirt", "isn't", "3", "etc.", "U.S.", ".", "(", "&"])
    )
)
def test_blanks_around_and_between_change_nothing(words):
    caption = " ".join(words)
    assert tokenize(f"  {caption}  ") == tokenize(caption)
