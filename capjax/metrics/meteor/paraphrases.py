"""METEOR's paraphrase table as arrays: 5.3 million pairs of phrases of one to seven words.

The published file is text, three lines a pair (a probability that METEOR ignores, a phrase, its
paraphrase), and takes some 20 seconds to read. What is made of it once, and from then on mapped
from the cache folder ($XDG_CACHE_HOME or ~/.cache, 51 MB), is a tree of words: a phrase of n words
is a node of level n. A level is one sorted array of keys, (node of the first n - 1 words) * V + the
n-th word. A look-up is a binary search and serves all positions of a corpus at once.

Legend: V words, S phrases that have paraphrases, E pairs. Nodes are numbered through all levels.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import pathlib
import shutil
import sys
import tempfile
import zlib
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from capjax.metrics import meteor_files

LONGEST = 7  # words of a phrase
_FORMAT = 1  # of the cached arrays
_CHUNK = 1 << 24  # bytes of text read at a time
_HEAD = 1 << 20  # bytes of the file that tell one table from another


class Paraphrases(NamedTuple):
    """The table. Node 0 is the empty phrase; those of level n are level_start[n - 1] and on."""

    words: np.ndarray  # uint8: the V words in UTF-8, one a line
    keys: np.ndarray  # int64 [nodes - 1]: of all levels, sorted within each
    level_start: np.ndarray  # int64 [8]: the first node of levels 1 to 7, and the number of nodes
    sources: np.ndarray  # int32 [S]: nodes that have paraphrases, ascending
    first: np.ndarray  # int64 [S + 1]: where the paraphrases of a source start
    targets: np.ndarray  # int32 [E]: nodes, for each source in the order of the file

    def children(self, nodes: np.ndarray, words: np.ndarray, level: int) -> np.ndarray:
        """The nodes of `level` that extend `nodes` (of the level before) by `words`, or -1.

        `words` are this table's numbers, -1 where it does not know the word.
        """
        start, stop = self.level_start[level - 1 : level + 1]
        size = self.level_start[1] - self.level_start[0]  # each word is a node of level 1
        keys = self.keys[start - 1 : stop - 1]
        if not len(keys):
            return np.full(len(nodes), -1)
        # Captions repeat themselves: look each different extension up once.
        wanted, which = np.unique(nodes * size + words, return_inverse=True)
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = np.where(keys[place] == wanted, place + start, -1)
        return np.where(words >= 0, found[which], -1)


@functools.cache
def load() -> Paraphrases:
    """The table, from the cache if it is there.

    Raises:
      UserError: the published file is not installed or damaged.
    """
    source = meteor_files.folder() / meteor_files.PARAPHRASES
    folder = _cache_folder() / f"meteor-paraphrases-{_fingerprint(source)}"
    table = _read(folder)
    if table is None:
        print(
            "capjax: preparing METEOR's paraphrase table, once, some 20 seconds ...",
            file=sys.stderr,
        )
        table = build(source)
        _write(table, folder)
    return table


@functools.cache
def vocabulary() -> dict[str, int]:
    """The table's number of each of its words."""
    return {word: number for number, word in enumerate(bytes(load().words).decode().split("\n"))}


def build(source: pathlib.Path) -> Paraphrases:
    """Reads the published file."""
    numbers: defaultdict[bytes, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    words, lengths = [], []
    try:
        for phrases in _phrases(source):
            lengths.append(np.array([phrase.count(b" ") + 1 for phrase in phrases], np.int32))
            tokens = b" ".join(phrases).split(b" ")
            words.append(np.fromiter(map(numbers.__getitem__, tokens), np.int32, len(tokens)))
        longest = max(int(length.max()) for length in lengths)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise meteor_files.damaged(source) from error
    if longest > LONGEST:
        raise meteor_files.damaged(source)
    keys, level_start, nodes = _tree(np.concatenate(words), np.concatenate(lengths), len(numbers))
    from_node, to_node = nodes[::2], nodes[1::2]
    order = np.argsort(from_node, kind="stable")
    sources, first = np.unique(from_node[order], return_index=True)
    return Paraphrases(
        words=np.frombuffer(b"\n".join(numbers), np.uint8),
        keys=keys,
        level_start=level_start,
        sources=sources,
        first=np.append(first, len(order)).astype(np.int64),
        targets=to_node[order],
    )


def _phrases(source: pathlib.Path):
    """Yields lists of lines: phrase, paraphrase, phrase, paraphrase, ..."""
    with gzip.open(source, "rb") as file:
        lines: list[bytes] = []
        rest = b""
        while chunk := file.read(_CHUNK):
            *complete, rest = (rest + chunk).split(b"\n")
            lines += complete
            whole = len(lines) - len(lines) % 3
            ready, lines = lines[:whole], lines[whole:]
            del ready[::3]  # the probabilities
            if ready:
                yield ready
        if lines or rest:
            raise ValueError("the last record is not complete")


def _tree(words: np.ndarray, lengths: np.ndarray, vocabulary_size: int):
    """Numbers the phrases: keys and level_start as in `Paraphrases`, and each phrase's node."""
    first_word = np.cumsum(lengths, dtype=np.int64) - lengths
    phrases = np.arange(len(lengths), dtype=np.int32)
    node = np.zeros(len(lengths), np.int32)
    keys, level_start = [], [1]
    for level in range(1, LONGEST + 1):
        phrases = phrases[lengths[phrases] >= level]
        key = (
            node[phrases].astype(np.int64) * vocabulary_size
            + words[first_word[phrases] + level - 1]
        )
        # Each word is a node of level 1, also one that no phrase begins with.
        known = np.arange(vocabulary_size, dtype=np.int64)
        if level > 1:
            known = np.sort(key)  # several times as fast as np.unique on ten million
            known = known[np.diff(known, prepend=-1) > 0]
        node[phrases] = level_start[-1] + np.searchsorted(known, key)
        keys.append(known)
        level_start.append(level_start[-1] + len(known))
    return np.concatenate(keys), np.array(level_start, np.int64), node


def _cache_folder() -> pathlib.Path:
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "capjax"


def _fingerprint(source: pathlib.Path) -> str:
    with source.open("rb") as file:
        head = hashlib.sha256(file.read(_HEAD))
    head.update(f"{source.stat().st_size} {_FORMAT}".encode())
    return head.hexdigest()[:16]


def _read(folder: pathlib.Path) -> Paraphrases | None:
    """The cached arrays, mapped; None where they are absent or cannot be read."""
    try:
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in Paraphrases._fields]
    except (OSError, ValueError, EOFError):
        return None
    return Paraphrases(*arrays)


def _write(table: Paraphrases, folder: pathlib.Path) -> None:
    """Writes the arrays beside their final place and then renames: nobody reads half of them.

    A folder that cannot be written costs only time: the table is made again in each run.
    """
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent)
        for name, array in table._asdict().items():
            np.save(pathlib.Path(temporary) / f"{name}.npy", array)
        shutil.rmtree(folder, ignore_errors=True)  # what was there could not be read
        os.replace(temporary, folder)
    except OSError:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
