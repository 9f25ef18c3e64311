"""Opening video and audio files through FFmpeg (PyAV) without trusting them.

The bytes may come from anywhere, so only the containers in `FORMATS` are tried: FFmpeg's other
demuxers include playlists, which would open files and addresses that the bytes name. A file that
says how long it is and ends before is cut short, and refused.

Times are `Fraction`s of a second. Raises `ValueError` with the reason where the bytes are none of
these, and `UserError` where PyAV is not installed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from capjax.errors import UserError

INSTALL = 'pip install "capjax[media]"'
# By FFmpeg's names; a name with commas is one demuxer.
FORMATS = (
    *("mov", "mp4", "m4a", "3gp", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf"),
    *("gif", "ogg", "wav", "w64", "flac", "mp3", "aac", "aiff", "caf", "amr", "ac3", "eac3"),
    *("h264", "hevc", "m4v", "mpegvideo", "ivf", "apng", "webp_anim"),
)
# These say in their head how long they are; of the others FFmpeg estimates it from the data itself.
_TELL_LENGTH = ("mov,mp4", "matroska,webm", "flv", "asf")
# What a head may overstate: containers round, and many do not tell how long the last packet lasts.
_SHARE_MISSING, _SECONDS_MISSING = Fraction(1, 50), Fraction(1, 10)


@contextmanager
def opened(data: bytes) -> Iterator[Any]:
    """A PyAV container over the bytes; whatever FFmpeg raises inside is a `ValueError`."""
    try:
        import av
    except ModuleNotFoundError:
        raise UserError(f"videos and most audio files are decoded by PyAV: {INSTALL}") from None
    if not data:
        raise ValueError("cannot be decoded: it is empty")
    refuse_cut_bytes(data)
    # Nested openings (a playlist, a reference to another file) have no protocol to use.
    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "none"}
    try:
        with av.open(
            io.BytesIO(data), container_options=options, metadata_errors="replace"
        ) as container:
            yield container
    except UserError:
        raise
    except av.error.FFmpegError as error:  # also when a head claims more memory than there is
        raise ValueError(f"cannot be decoded: {_reason(error)}") from None
    except (MemoryError, ValueError):  # the machine's own, and reasons of ours
        raise
    except Exception as error:  # demuxers and codecs raise what broken bytes make them meet
        raise ValueError(f"cannot be decoded: {_reason(error)}") from None


def codec_of(stream: Any) -> Any:
    """The stream's decoder; `ValueError` where FFmpeg has none for it."""
    if stream.codec_context is None:
        raise ValueError("cannot be decoded: its codec is unknown")
    return stream.codec_context


def refuse_cut_bytes(data: bytes) -> None:
    """`ValueError` where the bytes alone tell of a missing end: AVI, WAV, GIF."""
    size = int.from_bytes(data[4:8], "little")
    # Programs that cannot go back to the head write 0 or the largest number.
    if data[:4] == b"RIFF" and size not in (0, 0xFFFFFFFF) and size > len(data) - 8:
        raise ValueError(
            f"cannot be decoded: it is cut short ({len(data):,} of {size + 8:,} bytes are there)"
        )
    if data[:4] == b"GIF8" and not data.rstrip(b"\0").endswith(b";"):
        raise ValueError("cannot be decoded: it is cut short (the GIF has no end)")


def refuse_cut(container: Any, stream: Any, packets: int, end: Fraction | None) -> None:
    """`ValueError` where the file announced more than it holds.

    packets: how many `stream` had. end: where the last packet of any stream ends.
    """
    is_mov = container.format.name.startswith("mov,mp4")  # others count dropped frames, too
    if is_mov and packets < stream.frames:
        raise ValueError(
            f"cannot be decoded: it is cut short ({packets} of {stream.frames} frames are there)"
        )
    if end is None or not container.duration or not container.format.name.startswith(_TELL_LENGTH):
        return
    told = Fraction(container.duration, 1_000_000)  # PyAV gives microseconds
    if told - end > told * _SHARE_MISSING + _SECONDS_MISSING:
        raise ValueError(
            f"cannot be decoded: it is cut short ({float(end):.1f} of {float(told):.1f} s are "
            "there)"
        )


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    unknown = text in ("Invalid data found when processing input", "Invalid argument")
    return "it is no video or audio file that FFmpeg can read" if unknown else text
