"""Videos or recordings with captions, from a JSONL manifest.

One record a line, as in `manifest`, with "video" or "audio" in place of "image":

    {"video": "clips/dog.mp4", "captions": ["a dog runs ."], "start": 3.2, "end": 8}
    {"audio": "rain.flac", "shard": "sounds-000.tar", "caption": "rain falls on a roof"}

`start` and `end`, in seconds, name a part of the file; either may be missing. They stay with the
record. A line without `key` or `id` is known by its file, and by the part it takes of it, written
as in W3C Media Fragments: "clips/dog.mp4#t=3.2,8". The audio of a video file may be asked for.

N: records. T, H, W: frames, height and width of a clip. S: image_size. L: samples of a waveform.
"""

from __future__ import annotations

import os
from typing import Any

from capjax.data import audio, video
from capjax.data.frame_sampling import sampling
from capjax.data.manifest_lines import Lines, check_folder
from capjax.data.resize import RESIZE_RULES
from capjax.errors import BadRecord, UserError

KINDS = {"video": "video", "audio": "recording"}  # kind -> what messages call such a file
# Arguments that belong to one kind, with the values they have unless told.
_VIDEO = {
    "frames": 8,
    "rule": "uniform",
    "short": "repeat",
    "image_size": None,
    "resize": "crop",
    "max_seconds": video.MAX_SECONDS,
}
_AUDIO = {"rate": 16_000, "max_seconds": audio.MAX_SECONDS}


class Source:
    """N records in the order of the lines: {key, video uint8 [T,H,W,3], captions, ...} or
    {key, audio float32 [L], rate, captions, ...}.

    Args:
      path: the manifest.
      kind: "video" or "audio", which is also the field of the lines that names the file.
      media_root: the folder of files and shards, where that is not the manifest's.
      split, limit, max_bad_fraction: as in `manifest.Source`.
      frames, rule, short: of videos, as in `video.decode`: T (8), which frames ("uniform"), and
        what becomes of clips with fewer ("repeat").
      image_size, resize: of videos: frames become squares of this side by a rule of `data.resize`
        ("crop"); without image_size they stay as they are.
      rate: of audio, samples a second (16,000).
      max_seconds: how long a video, or the part taken of a recording, may be.

    Raises `UserError` for wrong arguments, and for manifests as `manifest.Source` does.
    `source[i]` raises `BadRecord` where that file cannot be read or decoded.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        kind: str,
        media_root: str | os.PathLike | None = None,
        split: str | None = None,
        limit: int | None = None,
        max_bad_fraction: float = 0.0,
        frames: int | None = None,
        rule: str | None = None,
        short: str | None = None,
        image_size: int | None = None,
        resize: str | None = None,
        rate: int | None = None,
        max_seconds: float | None = None,
    ):
        if kind not in KINDS:
            raise UserError(f"kind={kind!r} must be one of {', '.join(KINDS)}")
        self.kind = kind
        given = {
            **{"frames": frames, "rule": rule, "short": short, "image_size": image_size},
            **{"resize": resize, "rate": rate, "max_seconds": max_seconds},
        }
        self._how = _arguments(kind, given)
        check_folder("media_root", media_root)
        self._lines = Lines(
            path,
            field=kind,
            noun=KINDS[kind],
            root=media_root,
            split=split,
            limit=limit,
            max_bad_fraction=max_bad_fraction,
            mark=_part_mark,
        )
        self.path, self.bad_lines = self._lines.path, self._lines.bad

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = self.encoded(i)
        try:
            return {**record, **self._decoded(record)}
        except ValueError as error:
            raise BadRecord(record["key"], str(error)) from None

    def encoded(self, i: int) -> dict[str, Any]:
        """Record `i` with its whole file as it is stored: `video` or `audio` is bytes."""
        return self._lines.encoded(i)

    def captions(self, i: int) -> list[str]:
        """The captions of record `i`, without reading its file."""
        return self._lines.captions(i)

    def _decoded(self, record: dict[str, Any]) -> dict[str, Any]:
        how = self._how
        part = {name: record.get(name) for name in ("start", "end")}
        part["max_seconds"] = how["max_seconds"]
        if self.kind == "audio":
            return {
                "audio": audio.decode(record["audio"], how["rate"], **part),
                "rate": how["rate"],
            }
        clip = video.decode(record["video"], how["frames"], how["rule"], short=how["short"], **part)
        if how["image_size"] is not None:
            clip = video.to_size(clip, how["image_size"], how["resize"])
        return {"video": clip}


def _arguments(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """The kind's arguments, filled up; the other kind's would be silently without effect."""
    how = dict(_VIDEO if kind == "video" else _AUDIO)
    for name, value in given.items():
        if value is not None and name not in how:
            raise UserError(f"{name}={value!r} has no meaning for kind={kind!r}; leave it out")
        if value is not None:
            how[name] = value
    if not how["max_seconds"] > 0:
        raise UserError(f"max_seconds={how['max_seconds']!r} must be a positive number")
    if kind == "audio":
        audio.check_rate(how["rate"])
        return how
    sampling(how["rule"], how["frames"])
    video.check_short(how["short"])
    size = how["image_size"]
    if size is not None and (not isinstance(size, int) or size < 1):
        raise UserError(f"image_size={size!r} must be a number of pixels from 1")
    if how["resize"] not in RESIZE_RULES:
        raise UserError(f"resize={how['resize']!r} must be one of {', '.join(RESIZE_RULES)}")
    return how


def _part_mark(fields: dict[str, Any]) -> str:
    """What a key says of the part: "#t=3.2,8", "" for the whole; `ValueError` for a wrong part."""
    times = []
    for name in ("start", "end"):
        value = fields.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(
                f"has {name!r} of type {type(value).__name__}, not a number of seconds"
            )
        times.append(value)
    start, end = times
    try:
        video.check_part(start, end)
    except UserError as error:
        raise ValueError(f"names no part: {error}") from None
    if start is None and end is None:
        return ""
    return f"#t={'' if start is None else start}" + ("" if end is None else f",{end}")
