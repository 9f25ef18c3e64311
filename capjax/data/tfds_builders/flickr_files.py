"""The files in which Flickr8k and Flickr30k come, as {split: records}.

A folder holds one of these, anywhere below it:

    captions_<split>.jsonl      with tars beside them: a pack that `data.manifest` reads
    dataset_flickr*.json        captions and splits of Karpathy and Fei-Fei (arXiv 1412.2306)
    *.token.txt, *.token        "1000268201_693b08cb0e.jpg#0<tab>A child ...": the original captions
    results.csv                 "1000092795.jpg| 0| Two young guys ...": Flickr30k as republished
    captions.txt                "image,caption" in a first line: Flickr8k as republished

and, but for packs, the pictures in any folders. Splits of the original captions are those of
`Flickr_8k.trainImages.txt` and its like (names of pictures, one a line) where these are there, or
else all is "train". A caption whose picture is missing is left out and logged, up to one in a
hundred pictures: the original captions of Flickr8k name one that does not exist.
"""

from __future__ import annotations

import csv
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from capjax.data import manifest
from capjax.data.files import read_text
from capjax.data.skips import SkipBudget
from capjax.data.tfds_builders.captioned import pictures_below, read
from capjax.errors import UserError

MAX_MISSING = 0.01
_TOKEN = re.compile(r"(?P<name>\S+)#(?P<number>\d+)\t(?P<caption>.*)")
# Flickr30k's results.csv lacks the second bar in one of its lines.
_RESULT = re.compile(r"(?P<name>[^|]+?)\s*\|\s*(?P<number>\d+)\s*\|?\s*(?P<caption>.*)")
_LIST = re.compile(r"Flickr_?\w*\.(\w+?)Images\.txt", re.IGNORECASE)


def splits(folder: str) -> dict[str, Iterable[dict[str, Any]]]:
    """The records {key, image, captions} of each split; raises `UserError` where there are none."""
    below = sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())
    packs = [p for p in below if p.name.startswith("captions_") and p.suffix == ".jsonl"]
    if packs:
        return {path.stem.removeprefix("captions_"): _pack(path) for path in packs}
    captions, names_of = _captions_and_splits(below, folder)
    pictures = pictures_below(folder)
    missing = SkipBudget(len(captions), MAX_MISSING)
    for name in captions.keys() - pictures.keys():
        missing.skip(name, f"there is no such picture below {folder}")
    for split, names in names_of.items():
        if lost := [name for name in names if name not in captions]:
            raise UserError(
                f"{folder}: {len(lost):,} pictures of the split {split!r} have no captions (first: "
                f"{lost[0]!r}); give lists and captions of the same set"
            )
    return {
        split: _records([name for name in names if name in pictures], captions, pictures)
        for split, names in names_of.items()
    }


def _captions_and_splits(
    below: list[pathlib.Path], folder: str
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """({picture: captions}, {split: pictures})."""
    for path in below:
        if path.name.startswith("dataset_flickr") and path.suffix == ".json":
            return _karpathy(path)
    for path in below:
        if path.name.endswith((".token.txt", ".token")):
            captions = _numbered(path, _TOKEN)
        elif path.name == "results.csv":
            captions = _numbered(path, _RESULT)
        elif path.name == "captions.txt":
            captions = _table(path)
        else:
            continue
        lists = {m[1]: path for path in below if (m := _LIST.fullmatch(path.name))}
        named = {split: read_text(path).split() for split, path in lists.items()}
        return captions, named or {"train": list(captions)}
    raise UserError(
        f"{folder} holds no captions of Flickr; put one of these there: dataset_flickr8k.json, "
        "Flickr8k.token.txt, results_20130124.token, results.csv, captions.txt, "
        "captions_<split>.jsonl"
    )


def _pack(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    source = manifest.Source(path)
    for i in range(len(source)):
        yield source.encoded(i)


def _records(
    names: list[str], captions: dict[str, list[str]], pictures: dict[str, str]
) -> Iterator[dict[str, Any]]:
    for name in names:
        yield {"key": name, "image": read(pictures[name]), "captions": captions[name]}


def _karpathy(path: pathlib.Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    captions: dict[str, list[str]] = {}
    names_of: dict[str, list[str]] = {}
    try:
        for image in json.loads(read_text(path))["images"]:
            name = image["filename"]
            captions[name] = [sentence["raw"].strip() for sentence in image["sentences"]]
            names_of.setdefault(image["split"], []).append(name)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path} is not a split file of Karpathy's ({type(error).__name__}: {error}); it holds "
            "images with filename, split and sentences"
        ) from None
    return captions, names_of


def _numbered(path: pathlib.Path, form: re.Pattern) -> dict[str, list[str]]:
    found: dict[str, dict[int, str]] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip() or (number == 1 and line.startswith("image_name")):
            continue
        parts = form.fullmatch(line)
        if parts is None:
            raise UserError(f"{path}:{number} is not a caption: {line[:60]!r}; mend the line")
        found.setdefault(parts["name"], {})[int(parts["number"])] = parts["caption"].strip()
    return {name: [text for _, text in sorted(texts.items())] for name, texts in found.items()}


def _table(path: pathlib.Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    rows = csv.reader(read_text(path).splitlines())
    if next(rows, None) != ["image", "caption"]:
        raise UserError(f"{os.fspath(path)} does not begin with the line image,caption")
    for row in rows:
        if len(row) != 2:
            raise UserError(f"{path}:{rows.line_num} is not image,caption; mend the line")
        found.setdefault(row[0], []).append(row[1].strip())
    return found
