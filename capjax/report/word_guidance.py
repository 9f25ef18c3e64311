"""Captions whose words are coloured by what guidance did to them: fragments of HTML.

`captions` shows one picture's captions at several guidance scales, `numbers` the table behind one
of them, `LEGEND` says what the colours mean, `STYLE` is the CSS of all three. Blue and orange lie
on the page with some transparency, so that the same colours can be read on light and on dark; who
does not tell them apart finds the sign in the numbers of every word. Captions are data, and are
escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from capjax.decode.explain import Explained, Token, Word

FULL = 2.0  # nats at which a colour is at its strongest: 7.4 times as likely, or as unlikely
SAME = 0.05  # nats, about 5%: below, it is not worth telling apart
_STRONGEST = 0.55  # opacity: the text on it must stay readable
_MORE, _LESS = "37 99 235", "234 115 0"

STYLE = """
.wg { line-height: 1.5; overflow-wrap: anywhere; }
.wg .cards { display: grid; gap: .9rem; grid-template-columns:
  repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); }
.wg .card { padding: .9rem 1rem 1rem; border: 1px solid var(--border-color-primary);
  border-radius: .6rem; background: var(--block-background-fill); }
.wg .card.guided { border-color: rgb(37 99 235 / .65); border-width: 2px; }
.wg h3 { margin: 0 0 .5rem; font-size: .95rem; font-weight: 600; }
.wg h4 { margin: 1.3rem 0 .3rem; font-size: .95rem; font-weight: 600; }
.wg .caption { margin: 0; font-size: 1.3rem; line-height: 1.75; }
.wg .faint, .wg .flag, .wg dt { opacity: .72; font-size: .85rem; }
.wg .card .faint { margin-top: .55rem; }
.wg .word { border-radius: .3rem; padding: .1em .25em; margin: 0 -.05em; cursor: help;
  -webkit-box-decoration-break: clone; box-decoration-break: clone; }
.wg .word.end { font-size: .7em; opacity: .8; vertical-align: .15em; padding: .1em .5em; }
.wg .other { text-decoration: underline; text-decoration-thickness: .12em;
  text-underline-offset: .22em; }
.wg .scales { display: grid; grid-template-columns: auto 1fr; gap: .3rem .9rem; margin: 0;
  align-items: baseline; }
.wg .scales dt { font-variant-numeric: tabular-nums; white-space: nowrap; }
.wg .scales dd { margin: 0; line-height: 1.7; }
.wg .flag { font-size: .75rem; white-space: nowrap; padding: .1em .5em; border-radius: 1em;
  border: 1px solid currentColor; }
.wg .wide { overflow-x: auto; contain: inline-size; }
.wg .note { margin: .6rem 0 0; }
.wg .wide :is(table, tr) { border: 0 !important; }
.wg .wide table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
.wg th, .wg td { padding: .25rem .8rem; text-align: right; white-space: nowrap;
  border: 0; border-bottom: 1px solid var(--border-color-primary); }
.wg th:first-child, .wg td:first-child, .wg th:last-child, .wg td:last-child { text-align: left; }
.wg thead th { font-weight: 600; vertical-align: bottom; }
.wg .ramp { display: flex; flex-wrap: wrap; align-items: center; gap: .3rem .8rem;
  font-size: .9rem; }
.wg .bar { width: 9rem; height: 1.1rem; border-radius: .3rem; background: linear-gradient(to right,
  rgb(234 115 0 / .55), transparent, rgb(37 99 235 / .55));
  border: 1px solid var(--border-color-primary); }
.wg .problem { padding: 1rem; border-radius: .6rem; border: 2px solid rgb(234 115 0 / .8);
  background: rgb(234 115 0 / .12); font-size: 1.05rem; margin: 0; }
"""

LEGEND = (
    '<div class="wg legend"><div class="ramp">'
    "<span>likelier without the picture</span>"
    '<span class="bar" aria-hidden="true"></span>'
    "<span>likelier with the picture</span>"
    '<span><span class="word other">underlined</span>: in place of another word</span>'
    '</div><p class="faint">Colour: how much likelier the model finds a word when it sees the '
    "picture than when it does not. Guidance multiplies this difference by γ: the bluer a word, "
    "the more guidance is for it. Underlined: at this place, after the same beginning, plain "
    "decoding writes another word. Point at a word for its numbers, or open the table.</p></div>"
)


def captions(
    explained: Sequence[Explained],
    chosen: float,
    shown: Iterable[float],
    notes: Iterable[str] = (),
) -> str:
    """The caption at scale 1 beside that at `chosen`, and below them those of the scales `shown`.

    explained: of one picture, among others at the scales 1, `chosen` and `shown`; notes: sentences
    about them.
    """
    at = {one.scale: one for one in explained}
    cards = [_card(at[1.0], "γ = 1 · without guidance", "plain")]
    guided = "γ = 1 · move the slider to guide" if chosen == 1 else f"γ = {chosen:g} · guided"
    cards.append(_card(at[chosen], guided, "guided"))
    said = "".join(f'<p class="faint note">{escape(note)}</p>' for note in notes)
    rows = "".join(
        f"<dt>γ = {scale:g}</dt><dd>{_words(at[scale])}{_flag(at[scale])}</dd>" for scale in shown
    )
    return (
        f'<div class="wg"><div class="cards">{"".join(cards)}</div>{said}'
        f'<h4>The same picture at other scales</h4><dl class="scales">{rows}</dl></div>'
    )


def numbers(one: Explained) -> str:
    """A table: a row for each token of a caption."""
    head = (
        "token",
        "with the picture",
        "without it",
        "ratio",
        "in nats",
        "plain decoding would write",
    )
    body = "".join(
        "<tr>"
        f'<td><span class="word" style="{_colour(token.information)}">{_text(token)}</span></td>'
        f"<td>{_percent(token.log_prob)}</td><td>{_percent(token.unconditional)}</td>"
        f"<td>{_ratio(token.information)}</td><td>{_signed(token.information)}</td>"
        f"<td>{escape(_plain(token)) if token.differs else 'the same'}</td></tr>"
        for token in one.tokens
    )
    return (
        '<div class="wg"><p class="faint">Probabilities of the tokens of the caption at '
        f"γ = {one.scale:g}, each after the tokens before it, by the same model with and without "
        "the picture; in the last column, with the picture.</p>"
        f'<div class="wide"><table><thead><tr>{"".join(f"<th>{h}</th>" for h in head)}</tr>'
        f"</thead><tbody>{body}</tbody></table></div></div>"
    )


def problem(sentence: str) -> str:
    """A mistake, said in place of the captions."""
    return f'<div class="wg"><p class="problem" role="alert">{escape(sentence)}</p></div>'


def _card(one: Explained, title: str, kind: str) -> str:
    count = len(one.text.split())
    length = f"{count} word{'' if count == 1 else 's'}"
    return (
        f'<section class="card {kind}"><h3>{title}</h3>'
        f'<p class="caption">{_words(one)}</p>'
        f'<div class="faint">{length} · log p(caption | picture) = {_number(one.log_prob)}'
        f"{_flag(one)}</div></section>"
    )


def _words(one: Explained) -> str:
    return " ".join(map(_word, one.words))


def _word(word: Word) -> str:
    kind = "word" + (" end" if word.tokens[-1].ends else "") + (" other" if word.instead else "")
    shown = "end" if word.tokens[-1].ends else escape(word.text)
    return (
        f'<span class="{kind}" style="{_colour(word.information)}" '
        f'title="{escape(_told(word))}">{shown}</span>'
    )


def _told(word: Word) -> str:
    """The numbers of a word as sentences."""
    name = "the end" if word.tokens[-1].ends else f"“{word.text}”"
    told = (
        f"{name}: {_percent(word.log_prob)} with the picture, "
        f"{_percent(word.log_prob - word.information)} without it: {_likelier(word.information)} "
        f"({_signed(word.information)} nats)."
    )
    other = word.instead
    if other:
        told += f" Plain decoding would have written {_plain(other)} here."
    return told


def _plain(token: Token) -> str:
    name = f"“{token.plain.strip()}”" if token.plain.strip() else "the end"
    return f"{name} ({_percent(token.plain_log_prob)})"


def _text(token: Token) -> str:
    return "end" if token.ends else escape(token.text.strip()) or "␣"


def _flag(one: Explained) -> str:
    return ' <span class="flag">cut off at the longest length</span>' if one.truncated else ""


def _colour(nats: float) -> str:
    strength = _STRONGEST * min(1.0, abs(nats) / FULL)
    return f"background: rgb({_MORE if nats > 0 else _LESS} / {strength:.2f})"


def _percent(log_prob: float) -> str:
    """A probability as a reader wants it: 55%, 0.4%, below 0.01%."""
    percent = 100 * math.exp(log_prob)
    if percent < 0.01:
        return "below 0.01%"
    return f"{percent:.0f}%" if percent >= 10 else f"{percent:.2g}%"


def _ratio(nats: float) -> str:
    """exp(nats): × 4.1, or ÷ 4.1 where that is below 1."""
    return f"{'÷' if nats <= -SAME else '×'} {_figures(math.exp(abs(nats)))}"


def _likelier(nats: float) -> str:
    if abs(nats) < SAME:
        return "as likely either way"
    return f"{_figures(math.exp(abs(nats)))} times likelier {'with' if nats > 0 else 'without'} it"


def _figures(ratio: float) -> str:
    """Two figures: 1.3, 25, 3,000."""
    return f"{ratio:.1f}" if ratio < 9.95 else f"{float(f'{ratio:.1e}'):,.0f}"


def _signed(nats: float) -> str:
    return f"+{nats:.2f}" if nats >= 0.005 else _number(nats)


def _number(value: float) -> str:
    """With a true minus sign, and without one before zero."""
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")
