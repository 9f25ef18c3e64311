"""Video files from bytes to a few frames: uint8 [T,H,W,3], at exact times, upright.

T: frames asked for. H, W: height and width of an upright frame. S: side of a model's square.
Times are seconds from the first frame, which may itself have any time stamp; a frame is shown from
its own time until the next one's, so a variable frame rate needs no care.

All packets of the file are read first, undecoded: they tell every frame's time and where decoding
can begin. Frames are then decoded from the last such place before each wanted time. Nothing relies
on a container's index, and what comes out is what decoding the whole file would give.

Colours are FFmpeg's conversion of what the file says it holds (BT.601 where it says nothing);
transparency is laid on white; pixels count as square, whatever aspect the file gives them. Needs
PyAV (the extra `media`).
"""

from __future__ import annotations

import bisect
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from capjax.data.av_container import codec_of, opened, refuse_cut
from capjax.data.frame_sampling import Sampling, sampling
from capjax.data.resize import leaves_squares, resize
from capjax.errors import UserError

# A few kilobytes can claim anything. 2**25 pixels are 8K (7680 x 4320); a clip may take 1 GiB.
MAX_PIXELS = 2**25
MAX_BYTES = 2**30
MAX_SECONDS = 6 * 3600
_MAX_PACKETS = 2**21  # those six hours at 97 frames a second
SHORT = ("repeat", "error")


def decode(
    data: bytes,
    frames: int,
    rule: str = "uniform",
    *,
    short: str = "repeat",
    start: float | None = None,
    end: float | None = None,
    max_seconds: float = MAX_SECONDS,
) -> np.ndarray:
    """Encoded bytes -> uint8 [T,H,W,3] with T = `frames`, by a rule of `frame_sampling`.

    start, end: only this part of the video counts, in seconds; an `end` behind the video's is its
    end. short: where that part has fewer frames than are asked for (or the rule fps ends before),
    all of them are taken and the last is repeated ("repeat"), or that is an error ("error").

    Raises `ValueError` with the reason where the bytes are no video, are cut short, change their
    size midway, are longer than `max_seconds` or larger than the limits above; `UserError` for
    wrong arguments.
    """
    how = sampling(rule, frames)
    check_short(short)
    check_part(start, end)
    with opened(data) as container:
        stream = _video_stream(container)
        packets, timeline = _read(container, stream, max_seconds)
        wanted = _moments(how, timeline, start, end)
        if len(wanted) < frames and short == "error":
            raise ValueError(f"cannot be used: it has {len(wanted)} of the {frames} frames asked")
        chosen = _decoded(stream, packets, timeline, wanted)
        return _clip(chosen + [chosen[-1]] * (frames - len(chosen)))


def to_size(clip: np.ndarray, size: int, rule: str) -> np.ndarray:
    """uint8 [T,H,W,3] -> uint8 [T,S,S,3]: each frame as `data.resize` does a picture."""
    if clip.shape[1:3] == (size, size) and leaves_squares(rule):
        return clip
    return np.stack([resize(frame, size, rule) for frame in clip])


def check_short(short: str) -> None:
    """`UserError` for what is no way to treat short clips."""
    if short not in SHORT:
        raise UserError(f"short={short!r} must be one of {', '.join(SHORT)}")


def check_part(start: float | None, end: float | None) -> None:
    """`UserError` for a part that is none: before the beginning, or without length."""
    if start is not None and not 0 <= start < float("inf"):
        raise UserError(f"start={start!r} must be a number of seconds from 0")
    if end is not None and not (start or 0) < end < float("inf"):
        raise UserError(f"end={end!r} must be a number of seconds behind the start ({start or 0})")


@dataclass(frozen=True)
class _Timeline:
    """Of one video stream, in ticks: the sorted times of its frames, and where it ends."""

    times: list[int]
    end: Fraction  # of the last frame, in ticks
    tick: Fraction  # in seconds
    keys: list[tuple[int, int]]  # (time, position of the packet) where decoding can begin
    stamped: bool  # False: the file has no time stamps, and frames are numbered as they come


def _video_stream(container: Any) -> Any:
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # not the cover of a recording
            context = codec_of(stream)
            _check_pixels(context.width, context.height)
            context.thread_count = 1  # who reads many files has threads already
            context.options = {"max_pixels": str(MAX_PIXELS)}
            return stream
    raise ValueError("cannot be decoded: it has no video stream")


def _read(container: Any, stream: Any, max_seconds: float) -> tuple[list[Any], _Timeline]:
    """The video's packets and what they tell; `ValueError` where some are missing or too many."""
    packets, last = [], Fraction(-1)
    for packet in container.demux():
        if packet.size == 0:  # marks the end of a stream
            continue
        if packet.pts is not None and not packet.is_discard:
            last = max(last, (packet.pts + packet.duration) * Fraction(packet.time_base))
        if packet.stream_index != stream.index:
            continue
        if packet.is_corrupt:
            raise ValueError("cannot be decoded: it is cut short or damaged")
        packets.append(packet)
        if len(packets) > _MAX_PACKETS:
            raise ValueError(f"cannot be decoded: it has more than {_MAX_PACKETS:,} frames")
    timeline = _timeline(stream, packets)
    # Some containers count their length from zero, others from the first time stamp.
    last -= min(0, Fraction(container.start_time or 0, 1_000_000))
    refuse_cut(container, stream, len(packets), last if last >= 0 else None)
    length = (timeline.end - timeline.times[0]) * timeline.tick
    if length > max_seconds:
        raise ValueError(
            f"cannot be decoded: it is {float(length):,g} s long, more than {max_seconds:,g} s"
        )
    return packets, timeline


def _timeline(stream: Any, packets: list[Any]) -> _Timeline:
    shown = [(at, packet) for at, packet in enumerate(packets) if not packet.is_discard]
    if not shown:
        raise ValueError("cannot be decoded: it has no frame")
    rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
    if any(packet.pts is None for _, packet in shown):
        count = len(shown)
        return _Timeline(list(range(count)), Fraction(count), 1 / rate, [(0, 0)], False)
    times = sorted(packet.pts for _, packet in shown)
    tick = Fraction(stream.time_base)
    longest = max(shown, key=lambda item: item[1].pts)[1].duration
    if not longest:  # not told: as long as the frames before it on average
        gaps = len(times) - 1
        longest = Fraction(times[-1] - times[0], gaps) if gaps else 1 / rate / tick
    # A keyframe behind an earlier one in the file never has an earlier time in a sound file; in
    # another one, the running maximum still only begins decoding too early.
    keys: list[tuple[int, int]] = []
    for at, packet in shown:
        if packet.is_keyframe and (not keys or packet.pts > keys[-1][0]):
            keys.append((packet.pts, at))
    return _Timeline(times, Fraction(times[-1] + longest), tick, keys, True)


def _moments(
    how: Sampling, timeline: _Timeline, start: float | None, end: float | None
) -> list[Fraction]:
    """Up to T times in ticks, ascending, of which each names the frame that is shown then."""
    first, tick = timeline.times[0], timeline.tick
    begin = first + Fraction(start or 0) / tick
    stop = timeline.end if end is None else min(timeline.end, first + Fraction(end) / tick)
    if begin >= stop:
        length = float((timeline.end - first) * tick)
        raise ValueError(f"has no second {start:g}: it is {length:g} s long")
    at = bisect.bisect_right(timeline.times, begin) - 1  # shown when the part begins
    inside = timeline.times[at : bisect.bisect_left(timeline.times, stop)]
    times = how.times((stop - begin) * tick)
    if times is None or (how.kind == "uniform" and len(inside) < how.frames):
        return [Fraction(time) for time in inside[: how.frames]]
    return [begin + time / tick for time in times]


def _decoded(
    stream: Any, packets: list[Any], timeline: _Timeline, wanted: list[Fraction]
) -> list[Any]:
    """The frame that is shown at each of the ascending times."""
    context = stream.codec_context
    key_times = [time for time, _ in timeline.keys]
    position, numbered, ended = 0, 0, False  # the next packet; frames so far; nothing more comes
    shown, ahead, chosen = None, deque(), []
    for time in wanted:
        key = bisect.bisect_right(key_times, time) - 1
        if key >= 0 and timeline.keys[key][1] > position:
            context.flush_buffers()
            position, shown = timeline.keys[key][1], None
            ahead.clear()
        while True:
            while ahead and ahead[0][0] <= time:
                shown = ahead.popleft()[1]
            if ahead or ended:
                break
            ended = position == len(packets)
            for frame in context.decode(None if ended else packets[position]):
                ahead.append((frame.pts if timeline.stamped else numbered, frame))
                numbered += 1
                if ahead[-1][0] is None:
                    raise ValueError("cannot be decoded: a frame lost its time")
            position += 1
        if shown is None:
            raise ValueError("cannot be decoded: no frame comes out of it")
        if shown.is_corrupt:
            raise ValueError("cannot be decoded: a frame is damaged")
        chosen.append(shown)
    return chosen


def _clip(frames: list[Any]) -> np.ndarray:
    """PyAV frames -> uint8 [T,H,W,3]."""
    _check_pixels(frames[0].width, frames[0].height)
    if len(frames) * frames[0].width * frames[0].height * 3 > MAX_BYTES:
        raise ValueError(
            f"cannot be decoded: {len(frames)} frames of {frames[0].width} x {frames[0].height} "
            f"take more than {MAX_BYTES:,} bytes"
        )
    clip = None
    for i, frame in enumerate(frames):
        if i and frame is frames[i - 1]:
            clip[i] = clip[i - 1]
            continue
        pixels = _upright(_rgb(frame), frame)
        if clip is None:
            clip = np.empty((len(frames), *pixels.shape), np.uint8)
        if pixels.shape != clip.shape[1:]:
            raise ValueError("cannot be decoded: its frames change their size")
        clip[i] = pixels
    return clip


def _rgb(frame: Any) -> np.ndarray:
    if not any(component.is_alpha for component in frame.format.components):
        return frame.to_ndarray(format="rgb24")
    rgba = frame.to_ndarray(format="rgba").astype(np.uint16)
    alpha = rgba[..., 3:]
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _upright(pixels: np.ndarray, frame: Any) -> np.ndarray:
    """The picture as its display matrix (ISO 14496-12, 8.2.2) turns it, to the next quarter.

    The matrix sends column p and row q to column a p + c q and row b p + d q.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"cannot be decoded: {width} x {height} is more than {MAX_PIXELS:,} pixels"
        )
