"""Data sets prepared by TensorFlow Datasets, read without TensorFlow.

    config.data.train = {"name": "capjax.data.tfds_source", "builder": "coco_captions"}

TFDS reads files in the array_record format by random access. The set must have been prepared so,
once: by `tfds build coco_captions --file_format=array_record`, or from tfrecord files by `tfds
convert_format`, both of which need TensorFlow; or by one of `capjax.data.tfds_builders`, which
never do.

Which features hold what, unless they are named:

    captions   captions/text (coco_captions), captions, caption: a string, or a list of them
    label      label, where there are no captions (imagenet2012): such records have `class_id`, the
               name of the class as `label`, and no captions; class_id is -1 where the set hides it
    key        key, image/filename, file_name, filename, image/id, image_id, id; or else the place
               of the record in the split, "coco_captions/train:17"

Only the features that are used are parsed, and pictures are decoded here, never by TFDS, whose
decoders differ. N: records. H, W: height and width of a picture.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from capjax.data import images
from capjax.data.tfds_folder import FORMAT, check_shard, newest_version
from capjax.errors import BadRecord, UserError

INSTALL = 'pip install "capjax[tfds]"'
CAPTIONS = ("captions/text", "captions", "caption")
KEYS = ("key", "image/filename", "file_name", "filename", "image/id", "image_id", "id")
_OPENERS = 16


class Source:
    """N records {key, image uint8 [H,W,3], captions, ...} in the order of the prepared files.

    Args:
      builder: name of the set, with config and version where it has several:
        "coco_captions/2014:1.1.0". By default the newest version of the only config.
      split: as TFDS writes it, such as "train", "train[:10%]", "train+restval".
      data_dir: where sets were prepared; by default $TFDS_DATA_DIR or ~/tensorflow_datasets.
      image, captions, label, key: features, a/b for feature b inside a; see the top of this file.
      features: what else stays with a record, under its own name: numbers, arrays, texts, and
        pictures as stored bytes.

    Raises `UserError` where the set, split or a feature is missing, the format has no random
    access, or a file is missing or cut short. `source[i]` raises `BadRecord` for a record without
    captions, that is damaged, or whose picture cannot be decoded.
    """

    def __init__(
        self,
        builder: str,
        split: str = "train",
        data_dir: str | os.PathLike | None = None,
        image: str = "image",
        captions: str | None = None,
        label: str | None = None,
        key: str | None = None,
        features: Sequence[str] = (),
    ):
        tfds = import_tfds()
        root = data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
        self.folder = newest_version(os.path.expanduser(root), builder)
        self._name, self._split = builder, split
        self._image, self._extras = image, tuple(features)
        there = tfds.builder_from_directory(self.folder).info.features
        if image not in there or not isinstance(there[image], tfds.features.Image):
            raise UserError(
                f"{self.folder}: {image!r} is not one of its image features; it has "
                f"{', '.join(sorted(there))}"
            )
        self._captions = captions or next((n for n in CAPTIONS if _has(there, n)), None)
        self._label = label
        if self._captions is None and label is None:
            if "label" not in there:
                raise UserError(
                    f"{self.folder} has no feature {', '.join(CAPTIONS)} or label; name the one of "
                    f"the captions among {', '.join(sorted(there))}"
                )
            self._label = "label"
        self._key = key or next((n for n in KEYS if _has(there, n)), None)
        named = (image, self._captions, self._label, self._key, *self._extras)
        self._used = tuple(dict.fromkeys(_top(there, n, self.folder) for n in named if n))
        # What holds text, of what is used.
        self._texts = {
            name
            for name in filter(None, named)
            if isinstance(_inner(_find(there, name, self.folder)), tfds.features.Text)
        }
        if self._captions and self._captions not in self._texts:
            raise UserError(
                f"{self.folder}: the feature {self._captions!r} is not text; name captions by "
                "captions='feature', or 'feature/part' where it has parts"
            )
        self.class_names: list[str] | None = None
        if self._label:
            kind = _find(there, self._label, self.folder)
            if not isinstance(kind, tfds.features.ClassLabel):
                raise UserError(f"{self.folder}: the feature {self._label!r} is not a class label")
            self.class_names = list(kind.names)
        self._open()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = self.encoded(i)
        try:
            return {**record, "image": images.decode(record["image"])}
        except ValueError as error:
            raise BadRecord(record["key"], str(error)) from None

    def encoded(self, i: int) -> dict[str, Any]:
        """The record with its picture as the bytes that are stored."""
        values, key = self._parsed(i)
        record = {name: self._plain(values, name, key) for name in self._extras}
        if self._label:
            number = int(_value(values, self._label))
            record["class_id"] = number
            if number >= 0:
                record["label"] = self.class_names[number]
        return {
            **record,
            "key": key,
            "image": values[self._image],
            "captions": self._captions_of(values, key),
        }

    def captions(self, i: int) -> list[str]:
        """The captions of record `i`, without decoding its picture."""
        return self._captions_of(*self._parsed(i))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_records": None, "_features": None, "_decoders": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        tfds = import_tfds()
        builder = tfds.builder_from_directory(self.folder)
        try:
            instructions = builder.info.splits[self._split].file_instructions
        except (ValueError, KeyError, AssertionError) as error:
            raise UserError(
                f"{self.folder} has no split {self._split!r} ({error}); it has "
                f"{', '.join(sorted(builder.info.splits)) or 'none'}"
            ) from None
        try:
            self._records = builder.as_data_source(
                split=self._split,
                deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
                file_format=FORMAT,
            )
        except (NotImplementedError, ValueError):
            raise UserError(
                f"{self.folder} was prepared as {builder.info.file_format.value}, which has no "
                f"random access; convert it, with tensorflow installed, by `tfds convert_format "
                f"--dataset_dir={self.folder} --out_file_format={FORMAT}`"
            ) from None
        with ThreadPoolExecutor(_OPENERS) as pool:
            list(pool.map(check_shard, instructions))
        # Features of its own: TFDS's way to parse a part of them imports TensorFlow.
        there = builder.info.features
        self._features = tfds.features.FeaturesDict({name: there[name] for name in self._used})
        self._decoders = {
            name: tfds.decode.SkipDecoding()
            for name in self._used
            if isinstance(there[name], tfds.features.Image)
        }

    def _parsed(self, i: int) -> tuple[dict[str, Any], str]:
        i = operator.index(i)
        place = i + len(self) if i < 0 else i
        if not 0 <= place < len(self):
            raise IndexError(f"record {i} of {len(self):,}")
        key = f"{self._name}/{self._split}:{place}"
        try:
            raw = self._records[place]
        except RuntimeError as error:  # array_record's one type of error: checksums, lost files
            raise BadRecord(key, f"cannot be read from {self.folder}: {error}") from None
        if not raw:  # what array_record gives for a file that has become shorter
            raise BadRecord(key, f"is empty in {self.folder}; prepare the set again")
        values = self._features.deserialize_example_np(raw, decoders=dict(self._decoders))
        named = self._plain(values, self._key, key) if self._key else ""
        return values, key if named == "" else str(named)

    def _plain(self, values: dict[str, Any], name: str, key: str) -> Any:
        """The value of a feature, texts decoded."""
        value = _value(values, name)
        if name not in self._texts:
            return value
        try:
            return value.decode() if isinstance(value, bytes) else [text.decode() for text in value]
        except UnicodeDecodeError:
            raise BadRecord(key, f"has {name!r} that is not UTF-8") from None

    def _captions_of(self, values: dict[str, Any], key: str) -> list[str]:
        if self._captions is None:
            return []
        found = self._plain(values, self._captions, key)
        captions = [found] if isinstance(found, str) else list(found)
        if not captions:
            raise BadRecord(key, f"has no caption in {self._captions!r}")
        if not all(map(str.strip, captions)):
            raise BadRecord(key, f"has an empty caption in {self._captions!r}")
        return captions


def import_tfds() -> Any:
    try:
        import tensorflow_datasets
    except ModuleNotFoundError as error:
        raise UserError(
            f"sets prepared by TFDS are read with tensorflow-datasets ({error}): {INSTALL}"
        ) from None
    return tensorflow_datasets


def _parts(features: Any, name: str) -> list[str]:
    return [name] if name in features else name.split("/", 1)  # such as "image/filename"


def _inner(feature: Any) -> Any:
    """What a Sequence holds."""
    return getattr(feature, "feature", feature)


def _has(features: Any, name: str) -> bool:
    first, *rest = _parts(features, name)
    if first not in features:
        return False
    return not rest or (
        hasattr(_inner(features[first]), "keys") and rest[0] in _inner(features[first])
    )


def _find(features: Any, name: str, folder: str) -> Any:
    """The feature of this name; "a/b" is the feature of that very name, or else b inside a."""
    if not _has(features, name):
        raise UserError(f"{folder} has no feature {name!r}; it has {', '.join(sorted(features))}")
    first, *rest = _parts(features, name)
    return _inner(features[first])[rest[0]] if rest else features[first]


def _top(features: Any, name: str, folder: str) -> str:
    _find(features, name, folder)
    return _parts(features, name)[0]


def _value(values: dict[str, Any], name: str) -> Any:
    first, *rest = _parts(values, name)
    return values[first][rest[0]] if rest else values[first]
