"""The closed vocabulary of the generated scenes: what may be drawn, and the words for it.

The first name of every attribute value is the one in a scene's graph and in the arguments of
`Source`; synonyms occur only in the `human` register and are understood by `parse`.
"""

from __future__ import annotations

# The first eight are the default of `Source`; the others are there for experiments that need more
# classes (for instance classes that only one of two sources shows).
SHAPES = (
    "circle",
    "square",
    "triangle",
    "star",
    "cross",
    "diamond",
    "heart",
    "moon",
    "ring",
    "arrow",
    "hexagon",
    "semicircle",
    "oval",
    "bar",
    "trapezoid",
    "chevron",
    "hourglass",
    "bolt",
    "drop",
    "flower",
    "house",
    "tee",
    "elbow",
    "gear",
)
DEFAULT_SHAPES = SHAPES[:8]

# Object colours (RGB, 0-255) are far apart from one another and from the backgrounds.
COLOURS = {
    "red": (214, 32, 36),
    "green": (34, 150, 58),
    "blue": (36, 74, 214),
    "yellow": (252, 222, 26),
    "purple": (124, 36, 160),
    "orange": (248, 128, 16),
    "cyan": (22, 200, 222),
    "pink": (255, 130, 186),
    "brown": (112, 64, 24),
    "black": (16, 16, 20),
    "white": (252, 252, 252),
}

SIZES = ("small", "large")
TEXTURES = ("solid", "striped", "dotted", "checked", "outlined")
DEFAULT_TEXTURES = TEXTURES[:4]

BACKGROUNDS = ("plain", "shaded", "noisy", "striped")
DEFAULT_BACKGROUNDS = BACKGROUNDS[:3]
BACKGROUND_COLOURS = {
    "grey": (150, 152, 154),
    "beige": (208, 192, 158),
    "lavender": (182, 174, 214),
}

RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
REGIONS = ("left", "right", "top", "bottom", "centre")

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MAX_OBJECTS = len(NUMBERS)

# Plain nouns that say nothing about the shape.
ANY_SHAPE = ("shape", "object", "figure")

PLURALS = {"box": "boxes", "cross": "crosses"}

# value -> other words for it, in the `human` register.
SYNONYMS = {
    "small": ("little", "tiny"),
    "large": ("big", "huge"),
    "striped": ("stripy",),
    "dotted": ("spotted",),
    "checked": ("checkered",),
    "circle": ("disc",),
    "star": (),
    "moon": ("crescent",),
}


def plural(noun: str) -> str:
    """The plural of a noun of this vocabulary."""
    return PLURALS.get(noun, noun + "s")


def article(word: str) -> str:
    """The indefinite article that goes before `word`."""
    return "an" if word[0] in "aeiou" else "a"


def words_of(value: str) -> tuple[str, ...]:
    """The value's own name, then its synonyms."""
    return (value, *SYNONYMS.get(value, ()))


# word -> (attribute, value, plural), for reading captions.
ATTRIBUTE_WORDS: dict[str, tuple[str, str, bool]] = {}
for _attribute, _values in (("size", SIZES), ("texture", TEXTURES), ("colour", tuple(COLOURS))):
    for _value in _values:
        for _word in words_of(_value):
            ATTRIBUTE_WORDS[_word] = (_attribute, _value, False)
for _value in SHAPES:
    for _word in words_of(_value):
        ATTRIBUTE_WORDS[_word] = ("shape", _value, False)
        ATTRIBUTE_WORDS[plural(_word)] = ("shape", _value, True)
