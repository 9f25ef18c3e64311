"""The fragments of the page: colours by sign and size, numbers in words, nothing unescaped."""

import html.parser
import math
import re

import pytest

from capjax.decode.explain import Explained, Token
from capjax.report import word_guidance


def token(text, log_prob, unconditional, plain=None, ends=False):
    same = plain is None
    return Token(text, log_prob, unconditional, text if same else plain, -0.7, not same, ends)


def explained(scale, *tokens, truncated=False):
    text = "".join(t.text for t in tokens)
    return Explained(scale, text, sum(t.log_prob for t in tokens), truncated, tokens)


END = token("", -0.1, -0.1, ends=True)
PLAIN = explained(1.0, token("a", math.log(0.5), math.log(0.5)), token(" shape", -1.0, -0.5), END)
GUIDED = explained(
    2.5,
    token("a", math.log(0.5), math.log(0.5)),
    token(" <red", math.log(0.2), math.log(0.05), plain=" shape"),
    token("dish>", math.log(0.5), math.log(0.005)),
    truncated=True,
)


class Spans(html.parser.HTMLParser):
    """(class, style, title, text) of every word, and whether all tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        fields = dict(attrs)
        if fields.get("class", "").split()[:1] == ["word"]:
            self.words.append([fields["class"], fields.get("style"), fields.get("title"), ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["span"] and self.words and not self.words[-1][3]:
            self.words[-1][3] = data


@pytest.fixture(scope="module")
def shown():
    return Spans(word_guidance.captions([PLAIN, GUIDED], 2.5, (1.0, 2.5), ["<note>"])).words


def test_words_are_coloured_by_sign_and_size(shown):
    assert [word[3] for word in shown[:5]] == ["a", "shape", "end", "a", "<reddish>"]
    same, less, end, _, more = (word[1] for word in shown[:5])
    assert same.endswith("/ 0.00)")
    assert end.endswith("/ 0.00)")
    assert less == "background: rgb(234 115 0 / 0.14)"  # 0.5 nats of 2, of 0.55
    assert more == "background: rgb(37 99 235 / 0.55)"  # log(4 x 100) = 6 nats
    assert shown[:5] == shown[5:], "the cards, and the same two scales below them"


def test_only_what_plain_decoding_would_not_write_is_underlined(shown):
    assert [word[0] for word in shown[:5]] == ["word", "word", "word end", "word", "word other"]


def test_titles_are_sentences(shown):
    assert (
        shown[0][2]
        == "“a”: 50% with the picture, 50% without it: as likely either way (0.00 nats)."
    )
    assert shown[1][2].endswith("61% without it: 1.6 times likelier without it (−0.50 nats).")
    assert shown[4][2] == (
        "“<reddish>”: 10% with the picture, 0.025% without it: 400 times likelier with it "
        "(+5.99 nats). Plain decoding would have written “shape” (50%) here."
    )


def test_the_table_has_a_row_for_each_token():
    table = word_guidance.numbers(GUIDED)
    Spans(table)
    rows = re.findall(r"<tr>(.*?)</tr>", table)[1:]
    cells = [[re.sub("<.*?>", "", cell) for cell in re.findall("<td>(.*?)</td>", r)] for r in rows]
    assert cells == [
        ["a", "50%", "50%", "× 1.0", "0.00", "the same"],
        ["&lt;red", "20%", "5%", "× 4.0", "+1.39", "“shape” (50%)"],
        ["dish&gt;", "50%", "0.5%", "× 100", "+4.61", "the same"],
    ]


def test_cards_and_notes():
    text = word_guidance.captions([PLAIN, GUIDED], 2.5, (2.5,), ["<note>"])
    assert "γ = 1 · without guidance" in text
    assert "γ = 2.5 · guided" in text
    assert "&lt;note&gt;" in text
    assert "<red" not in text
    assert text.count("cut off at the longest length") == 2
    assert "2 words · log p(caption | picture) = −1.79<" in text  # log 0.5 - 1 - 0.1
    assert "move the slider" in word_guidance.captions([PLAIN], 1.0, (1.0,))
    assert "&lt;b&gt;.jpg is empty" in word_guidance.problem("<b>.jpg is empty")


def test_tiny_probabilities_and_an_empty_caption():
    empty = explained(1.0, token("", -20.0, -0.01, plain=" a", ends=True))
    words = Spans(word_guidance.captions([empty], 1.0, (1.0,))).words
    assert words[0][2].startswith(
        "the end: below 0.01% with the picture, 99% without it: 480,000,000"
    )
    assert "÷ 480,000,000" in word_guidance.numbers(empty)
