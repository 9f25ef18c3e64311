"""Which files travel with the tensors: from a checkpoint into a run, and from there to an export.

They are texts of up to a mebibyte (configs, cards, licences), the files of tokenizers, which may be
larger, and the same in the folders of a sentence encoder's modules (1_Pooling/config.json).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

_TEXTS = (".json", ".md", ".txt")
_MOST, _MOST_OF_TOKENIZERS = 2**20, 2**26  # bytes
_MODULE = re.compile(r"\d+_\w+")  # as sentence-transformers calls the folders
# What holds a vocabulary, by the names that it is published under. llama2c's tok512.bin is left
# out: an export has the SentencePiece model that the run made of it in its place.
_VOCABULARY = re.compile(
    r"vocab\.(json|txt|bpe)|merges\.txt|encoder\.json|bpe_simple_vocab_16e6\.txt\.gz"
    r"|tokenizer\.json|.+\.(model|vocab)"
)


def copy(folder: Path, to: Path, but: Collection[str] = ()) -> None:
    """Copies what travels from one folder into another, but for files of certain names."""
    for path in _all(folder):
        if path.name not in but:
            place = to / path.relative_to(folder)
            place.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, place)


def has_vocabulary(folder: Path) -> bool:
    """Whether one of the files holds a tokenizer's vocabulary."""
    return any(_VOCABULARY.fullmatch(path.name) for path in folder.iterdir())


def _all(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if _MODULE.fullmatch(path.name):
                yield from (file for file in sorted(path.iterdir()) if _travels(file))
        elif _travels(path):
            yield path


def _travels(path: Path) -> bool:
    if not path.is_file() or ".index." in path.name:  # an index of shards belongs to the tensors
        return False
    if _VOCABULARY.fullmatch(path.name) or path.name.startswith("tokenizer"):
        return path.stat().st_size <= _MOST_OF_TOKENIZERS
    text = path.suffix in _TEXTS or path.name.startswith(("LICENSE", "LICENCE"))
    return text and path.stat().st_size <= _MOST
