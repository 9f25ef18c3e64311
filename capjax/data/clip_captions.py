"""Captions of generated clips: what happens to what, in which order. All are true of their clip.

    generic    "a shape moves, then another shape appears"     neither attributes nor directions
    short      "a red circle moves right, then a blue square appears"
    detailed   "a small solid red circle moves right, then a large striped blue square appears"

An object is called what it is before anything happens. Two events are told in one of `ORDERS`,
with the same meaning; the last one names the later event first.
"""

from __future__ import annotations

from capjax.data.clip_graph import MOVES, Clip, Event
from capjax.data.scenes.draws import Chooser
from capjax.data.scenes.grammar import noun_phrase

# {a}, {b}: clauses; {then}: the second event, without its subject if that is the first's; {it}:
# the second event with "it" for a repeated subject; {a_it}: so the first, where it comes second.
ORDERS = (
    "{a}, then {then}",
    "first {a}, then {then}",
    "{a} before {it}",
    "after {a}, {it}",
    "{b} after {a_it}",
)
REGISTERS = ("generic", "short", "detailed")


def write(clip: Clip, register: str, chooser: Chooser) -> str:
    """One caption in a register."""
    subjects = [_subject(clip, i, register) for i in range(len(clip.objects))]
    if not clip.events:
        if len(subjects) == 1:
            return f"{subjects[0]} stays still"
        if register == "generic":
            return "two shapes stay still"
        return f"{subjects[0]} and {subjects[1]} stay still"
    verbs = [_verb(event, register) for event in clip.events]
    clauses = [
        f"{subjects[event.object]} {verb}" for event, verb in zip(clip.events, verbs, strict=True)
    ]
    if len(clauses) == 1:
        told = clauses[0]
    else:
        same = clip.events[0].object == clip.events[1].object
        told = chooser.pick(ORDERS).format(
            a=clauses[0],
            b=clauses[1],
            then=verbs[1] if same else clauses[1],
            it=f"it {verbs[1]}" if same else clauses[1],
            a_it=f"it {verbs[0]}" if same else clauses[0],
        )
    for i in clip.still:
        told += f"{',' if len(clauses) > 1 else ''} while {subjects[i]} stays still"
    return told


def _subject(clip: Clip, i: int, register: str) -> str:
    item = clip.objects[i]
    if register == "generic":
        return "another shape" if i else "a shape"
    words = [item.size, item.texture] if register == "detailed" else []
    return noun_phrase([*words, item.colour], item.shape)


def _verb(event: Event, register: str) -> str:
    if event.kind in MOVES:
        return "moves" if register == "generic" else f"moves {event.kind}"
    if event.kind == "recolour":
        return "changes its colour" if register == "generic" else f"turns {event.colour}"
    return f"{event.kind}s"
