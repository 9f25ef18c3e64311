"""How published encoders clean a text before their tokenizer sees it.

All of them repair the text first: mojibake, curly quotes, full-width letters and control characters
(ftfy), then HTML entities, twice, for they are often escaped twice. Then:

    lower          spaces collapsed, lower case     OpenAI CLIP, and most models of OpenCLIP
    whitespace     spaces collapsed
    canonicalize   "_" a space, ASCII punctuation removed, lower case, spaces collapsed
                                                    models trained with big_vision's texts

Sources: openai/CLIP, clip/simple_tokenizer.py; OpenCLIP 3.3, tokenizer.py; big_vision,
evaluators/proj/image_text/prompt_engineering.py. The repair needs the package ftfy; without it
these programs fail or clean differently, so that ids would depend on what is installed.
Raises `UserError` if ftfy is missing or a cleaning is unknown.
"""

from __future__ import annotations

import html
import string
from collections.abc import Callable

from capjax.errors import UserError

INSTALL = "pip install ftfy regex tokenizers"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def repair(text: str) -> str:
    """The text with wrong encodings and HTML entities undone, without spaces at its ends."""
    # Nothing to repair here, and most captions are so: ftfy takes longer than all the rest.
    if text.isascii() and text.isprintable() and "&" not in text:
        return text.strip()
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def whitespace(text: str) -> str:
    """Repaired; every run of spaces, tabs and line ends is one space."""
    return " ".join(repair(text).split())


def lower(text: str) -> str:
    """`whitespace` in lower case."""
    return whitespace(text).lower()


def canonicalize(text: str) -> str:
    """Lower case without ASCII punctuation; an underscore separates words."""
    words = repair(text).replace("_", " ").translate(_NO_PUNCTUATION).lower()
    return " ".join(words.split())


_BY_NAME = {"lower": lower, "whitespace": whitespace, "canonicalize": canonicalize}


def by_name(name: str) -> Callable[[str], str]:
    """The cleaning of this name."""
    if name not in _BY_NAME:
        raise UserError(f"tokenizer.clean must be one of {', '.join(_BY_NAME)}, not {name!r}")
    try:
        import ftfy  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(f"this tokenizer repairs texts with ftfy: {INSTALL}") from error
    return _BY_NAME[name]
