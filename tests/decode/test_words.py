"""Words as tokens: their spellings, and what goes on with a word; phrases in captions of text."""

import captions_until_killed
import numpy as np
import pytest
from plain_search import Random

from capjax.caption import options_of
from capjax.data.token_rows import TokenRows
from capjax.decode import words
from capjax.decode.bulk_arguments import parser
from capjax.decode.captioner import Captioner
from capjax.decode.options import Options
from capjax.errors import UserError
from capjax.special_tokens import SpecialTokens

PIECES = [
    *(
        "<pad>",
        "<s>",
        "</s>",
        "<unk>",
        " a",
        "a",
        " red",
        "red",
        " Red",
        "Red",
        "uced",
        ",",
        " car",
    ),
    *(" 红", "红", " 5", "5"),
]


class Spaced(TokenRows):
    """Pieces with the space before them, the longest first, as GPT-2 has them."""

    special_tokens = SpecialTokens()
    vocab_size = len(PIECES)
    max_length = 12

    def ids(self, caption):
        found = []
        while caption:
            fits = [piece for piece in PIECES[4:] if caption.startswith(piece)]
            piece = max(fits, key=len, default="<unk>")
            found.append(PIECES.index(piece))
            caption = caption[len(piece) if fits else 1 :]
        return found

    def text(self, ids):
        return "".join(PIECES[token] for token in ids)


def test_spellings_behind_a_space_and_at_the_beginning():
    ids = PIECES.index
    assert set(words.spellings(Spaced(), "red")) == {
        (ids(p),) for p in (" red", "red", " Red", "Red")
    }
    either = words.spellings(Spaced(), ("red", "a car"))
    assert (ids(" a"), ids(" car")) in either
    assert (ids("a"), ids(" car")) in either
    assert set(words.banned(Spaced(), ["red", "red"])) == set(words.spellings(Spaced(), "red"))
    with pytest.raises(UserError, match="has no tokens"):
        words.spellings(Spaced(), "  ")


def test_what_goes_on_with_a_word():
    joins = words.joining(Spaced())
    assert {PIECES[i] for i in range(len(PIECES)) if joins[i]} == {"a", "red", "uced", "Red", "5"}


@pytest.fixture(scope="module")
def captioner():
    tokenizer = captions_until_killed.captioner().tokenizer
    model = Random(tokenizer.vocab_size, 12)
    return Captioner(model, model.own_params, tokenizer)


BEGINS = [[[3.0]], [[14.0]], [[15.0]]]


def holds(text, phrase):
    """As words of their own."""
    return f" {phrase} " in f" {text} "


def test_captions_contain_phrases_as_words(captioner):
    context, options = np.array(BEGINS, np.float32), Options(num_beams=8)
    plain = captioner.write(context, 2.0, options)
    assert not any(holds(c.text, "red") for c in plain)
    for caption in captioner.write(context, 2.0, options, must_contain=["red", ("star", "circle")]):
        assert holds(caption.text, "red")
        assert holds(caption.text, "star") or holds(caption.text, "circle")
    each = [["blue star"], [], [("green", "yellow"), "photo"]]
    first, second, third = captioner.write(context, 2.0, options, must_contain=each)
    assert holds(first.text, "blue star")
    assert second.text == plain[1].text
    assert holds(third.text, "photo")
    assert holds(third.text, "green") or holds(third.text, "yellow")
    for wanted, message in (
        (["red \N{SNOWMAN}"], "does not know the phrase"),
        ([["red"], "blue"], "must_contain has 2 entries"),
        (["a photo of red blue green yellow circle"], "ask for fewer"),
    ):
        with pytest.raises(UserError, match=message):
            captioner.write(context, 2.0, options, must_contain=wanted)


def test_phrases_from_the_command_line_need_beams():
    given = ["--checkpoint", "run", "--must-contain", "red", "sofa|couch", "--ban", "cat"]
    args = parser("").parse_args(given)
    assert (args.must_contain, args.ban) == (["red", "sofa|couch"], ["cat"])
    with pytest.raises(UserError, match="add --beams 5 or more"):
        options_of(args)
    more = ["--beams", "4", "--cache-dtype", "bfloat16"]
    options = options_of(parser("").parse_args(given + more))
    assert (options.num_beams, options.cache_dtype) == (4, "bfloat16")
