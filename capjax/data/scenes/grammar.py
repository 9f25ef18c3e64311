"""The captions: one closed grammar, in registers that differ in what they tell and how.

    toy_generic   "a shape"
    toy_specific  "a red circle"
    generic       "there is a shape here"        no attribute at all
    short         "there is a red circle here"   colour and kind, in the frame of `generic`
    human         "a big red disc on the left"   varied wording, some attributes, places, relations
    detailed      every attribute, place, count and some relations, in several sentences
    alt_text      "IMG_0412 red circle wallpaper 12"   tags and junk, some attributes wrong or gone

In the first four, one object is drawn and the caption speaks of it (together with all objects of
its colour and kind, if there are several), so that `generic` and `short` part at a single word.
Every caption is true of its scene except those of `alt_text` (see `Caption.faithful`), and
`parse.py` reads all of them back.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

from capjax.data.scenes.draws import Chooser
from capjax.data.scenes.graph import Scene, SceneObject, main_relation
from capjax.data.scenes.vocabulary import (
    ANY_SHAPE,
    COLOURS,
    DEFAULT_SHAPES,
    DEFAULT_TEXTURES,
    NUMBERS,
    SIZES,
    article,
    plural,
    words_of,
)

ADJECTIVES = ("size", "texture", "colour")  # in the order in which they are said

# How the `human` register begins, by number; an opening without a verb fits both.
OPENINGS = ("", "", "a picture of", "a drawing of", "an image of", "i can see", "here we see")
OPENINGS_ONE = ("there is", "this is", "here is")
OPENINGS_MANY = ("there are", "these are", "here are")
CLOSINGS = ("", "", "", "in this picture", "in the image")
RELATION_WORDS = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
# `alt_text`: words before and after the tags; `#` stands for a digit.
JUNK_BEFORE = ("IMG_####", "DSC#####", "photo", "image", "free", "buy", "new", "best", "")
JUNK_AFTER = (
    *("wallpaper ##", "clipart", "vector icon", "stock photo", "for sale", "hd", "download", "##"),
    *("#.jpg", "#.png", "online shop", ""),
)
KEEP_TAG = {"size": 0.3, "texture": 0.3, "colour": 0.75, "shape": 0.85}
WRONG_TAG = 0.12  # chance that a kept tag names another value

Vocabulary = dict[str, tuple[str, ...]]
DEFAULT_VOCABULARY: Vocabulary = {
    "shape": DEFAULT_SHAPES,
    "colour": tuple(COLOURS),
    "size": SIZES,
    "texture": DEFAULT_TEXTURES,
}


class Caption(NamedTuple):
    """A caption; `faithful` is whether it is true of its scene."""

    text: str
    faithful: bool = True


def alike(scene: Scene, item: SceneObject, attributes: tuple[str, ...]) -> list[SceneObject]:
    """The objects of the scene that share `item`'s values of `attributes`, itself among them."""
    return [
        other
        for other in scene.objects
        if all(getattr(other, name) == getattr(item, name) for name in attributes)
    ]


def noun_phrase(words: list[str], noun: str, count: int = 1, determiner: str = "") -> str:
    """ "a big red disc", "two big red discs"; `determiner` replaces the article or the number."""
    parts = [*words, noun if count == 1 else plural(noun)]
    first = determiner or (article(parts[0]) if count == 1 else NUMBERS[count - 1])
    return " ".join([first, *parts])


def _toy_generic(scene: Scene, chooser: Chooser, vocabulary: Vocabulary) -> Caption:
    return Caption("a shape")


def _toy_specific(scene: Scene, chooser: Chooser, vocabulary: Vocabulary) -> Caption:
    item = chooser.pick(scene.objects)
    return Caption(noun_phrase([item.colour], item.shape))


def _generic(scene: Scene, chooser: Chooser, vocabulary: Vocabulary) -> Caption:
    item = chooser.pick(scene.objects)
    several = len(alike(scene, item, ("colour", "shape"))) > 1
    return Caption("there are shapes here" if several else "there is a shape here")


def _short(scene: Scene, chooser: Chooser, vocabulary: Vocabulary) -> Caption:
    item = chooser.pick(scene.objects)
    count = len(alike(scene, item, ("colour", "shape")))
    phrase = noun_phrase([item.colour], item.shape, count)
    return Caption(f"there {'is' if count == 1 else 'are'} {phrase} here")


def _detailed(scene: Scene, chooser: Chooser, vocabulary: Vocabulary) -> Caption:
    groups: dict[tuple[str, ...], list[SceneObject]] = {}
    for item in scene.objects:
        groups.setdefault((item.size, item.texture, item.colour, item.shape), []).append(item)
    count = len(scene.objects)
    opening = chooser.pick(("this picture shows", "the image shows", "there " + _be(count)))
    total = noun_phrase([], "shape", count, NUMBERS[count - 1])
    background = f"on a {scene.background} {scene.background_colour} background"
    listed = [
        noun_phrase(list(look[:3]), look[3], len(items))
        + " "
        + " and ".join(place(item) for item in items)
        for look, items in groups.items()
    ]
    sentences = [f"{opening} {total} {background}: {', '.join(listed)}."]
    # Relations between objects that their looks alone name without doubt.
    single = [(" ".join(look), items[0]) for look, items in groups.items() if len(items) == 1]
    for (name, item), (other_name, other) in itertools.pairwise(single):
        relation = main_relation(item, other)
        if relation:
            words = RELATION_WORDS[relation][0]
            sentences.append(f"the {name} is {words} the {other_name}.")
    return Caption(" ".join(sentences))


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def place(item: SceneObject) -> str:
    """Where an object is: "at the top left", "on the right", "in the centre"."""
    regions = item.regions
    preposition = {"left": "on", "right": "on", "centre": "in"}.get(regions[0], "at")
    return f"{preposition} the {' '.join(regions)}"


def _mention(scene: Scene, item: SceneObject, chooser: Chooser, may_count: bool) -> tuple[str, int]:
    """A human noun phrase for `item`, and of how many objects it speaks."""
    named = [
        name
        for name, chance in (("size", 0.35), ("texture", 0.35), ("colour", 0.85), ("shape", 0.9))
        # "solid" goes without saying more often than not.
        if chooser.chance(0.06 if getattr(item, name) == "solid" else chance)
    ]
    words = [chooser.pick(words_of(getattr(item, name))) for name in named if name != "shape"]
    noun = chooser.pick(words_of(item.shape) if "shape" in named else ANY_SHAPE)
    count = len(alike(scene, item, tuple(named)))
    if not may_count or (count > 1 and chooser.chance(0.3)):
        count = 1
    return noun_phrase(words, noun, count), count


def _human_place(item: SceneObject, chooser: Chooser) -> str:
    regions = item.regions
    if regions == ("centre",):
        return chooser.pick(("in the centre", "in the middle"))
    if len(regions) == 2:
        corner = f"{regions[0]} {regions[1]}"
        upper = f"{'upper' if regions[0] == 'top' else 'lower'} {regions[1]}"
        wording = ("in the {0} corner", "at the {0}", "in the {1} corner")
        return chooser.pick(wording).format(corner, upper)
    if regions[0] in ("left", "right"):
        return chooser.pick((f"on the {regions[0]}", f"on the {regions[0]} side"))
    return chooser.pick((f"at the {regions[0]}", f"near the {regions[0]}"))


def _human(scene: Scene, chooser: Chooser, vocabulary: Vocabulary) -> Caption:
    several = len(scene.objects) > 1
    frame = ("plain", "place", "background", "relation", "pair", "count")[
        chooser.weighted(
            (0.25, 0.2, 0.1, 0.2, 0.15, 0.1) if several else (0.45, 0.35, 0.2, 0.0, 0.0, 0.0)
        )
    ]
    at = chooser.below(len(scene.objects))
    item = scene.objects[at]
    phrase, count = _mention(scene, item, chooser, frame in ("plain", "background"))
    if frame == "place":
        phrase += " " + _human_place(item, chooser)
    elif frame == "background":
        kind = chooser.pick((f"{scene.background} ", ""))
        phrase += f" on a {kind}{scene.background_colour} background"
    elif frame in ("relation", "pair"):
        rest = scene.objects[:at] + scene.objects[at + 1 :]
        other = chooser.pick(rest)
        other_phrase, _ = _mention(scene, other, chooser, False)
        relation = main_relation(item, other)
        if frame == "relation" and relation:
            phrase += f" {chooser.pick(RELATION_WORDS[relation])} {other_phrase}"
        else:
            phrase += f" and {other_phrase}"
    elif frame == "count":
        count = len(scene.objects)
        total = noun_phrase([], chooser.pick(ANY_SHAPE), count)
        phrase = f"{total}, one of them {phrase}"
    opening = chooser.pick(OPENINGS + (OPENINGS_ONE if count == 1 else OPENINGS_MANY))
    closing = "" if frame == "background" else chooser.pick(CLOSINGS)
    return Caption(" ".join(part for part in (opening, phrase, closing) if part))


def _alt_text(scene: Scene, chooser: Chooser, vocabulary: Vocabulary) -> Caption:
    item = chooser.pick(scene.objects)
    tags: dict[str, str] = {}
    for name, chance in KEEP_TAG.items():
        if chooser.chance(chance):
            value = getattr(item, name)
            others = [other for other in vocabulary[name] if other != value]
            wrong = bool(others) and chooser.chance(WRONG_TAG)
            tags[name] = chooser.pick(others) if wrong else value
    faithful = any(
        all(getattr(other, name) == value for name, value in tags.items())
        for other in scene.objects
    )
    before, after = chooser.pick(JUNK_BEFORE), chooser.pick(JUNK_AFTER)
    if not (before or after or tags):
        before = "photo"
    separator = chooser.pick((" ", " ", " ", "_", "-"))
    words = separator.join(tags.values())
    text = " ".join(part for part in (before, words, after) if part)
    text = "".join(str(chooser.below(10)) if letter == "#" else letter for letter in text)
    return Caption(text, faithful)


REGISTERS: dict[str, Callable[[Scene, Chooser, Vocabulary], Caption]] = {
    "toy_generic": _toy_generic,
    "toy_specific": _toy_specific,
    "generic": _generic,
    "short": _short,
    "human": _human,
    "detailed": _detailed,
    "alt_text": _alt_text,
}
