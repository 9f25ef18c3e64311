"""nocaps: pictures of Open Images with ten captions and a domain each (Agrawal et al., 1812.08658).

The folder holds the published JSON with captions (nocaps_val_4500_captions.json: the split "val")
and, in it or in folders below it, the pictures that it names. The test set's captions are not
published, so that its JSON is left alone. `domain` is in-domain, near-domain or out-domain.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from capjax.data.files import read_text
from capjax.data.tfds_builders.captioned import Captioned, pictures_below, read
from capjax.errors import UserError

_SPLIT = re.compile(r"nocaps_([a-z]+)")


class Nocaps(Captioned):
    """image, captions, key: the picture's file name, image_id: as in the JSON, domain."""

    DESCRIPTION = "nocaps from the user's files."
    MANUAL_DOWNLOAD_INSTRUCTIONS = __doc__
    EXTRA = {"image_id": np.int64, "domain": tfds.features.Text()}  # noqa: RUF012

    def splits(self, folder: str) -> dict:
        pictures = pictures_below(folder)
        found = {}
        for path in sorted(pathlib.Path(folder).rglob("nocaps_*.json")):
            content = _parsed(path)
            if content.get("annotations"):
                found[_SPLIT.match(path.name)[1]] = _records(path, content, pictures)
        if not found:
            raise UserError(
                f"{folder} holds no nocaps_<split>_*.json with captions; put "
                "nocaps_val_4500_captions.json there"
            )
        return found


Builder = Nocaps


def _parsed(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); download it again") from None
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise UserError(f"{path} has no list of images; download it again")
    return content


def _records(
    path: pathlib.Path, content: dict[str, Any], pictures: dict[str, str]
) -> Iterator[dict[str, Any]]:
    try:
        captions: dict[int, list[str]] = {}
        for annotation in content["annotations"]:
            captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
        images = [
            (image["id"], image["file_name"], image.get("domain") or "")
            for image in content["images"]
        ]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} has a record without {error}; download it again") from None
    for number, name, domain in images:
        if name not in pictures:
            raise UserError(f"{path} names the picture {name!r}, which is not below {path.parent}")
        yield {
            "key": name,
            "image": read(pictures[name]),
            "captions": captions.get(number, []),
            "image_id": number,
            "domain": domain,
        }
