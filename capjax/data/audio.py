"""Sound files from bytes to one channel at a wanted rate: float32 [N] in [-1, 1].

WAV, FLAC and Ogg are read by libsndfile (the package soundfile), which reads parts without
decoding what is before them; all else (MP3, AAC, the sound of a video) by FFmpeg through PyAV. Both
are in the extra `media`. Channels are averaged; another rate is reached by a polyphase filter
(`scipy.signal.resample_poly` with its own window), after the wanted part has been cut out.

N: samples. C: channels. Rates are samples a second. Mel features are in `log_mel`.
"""

from __future__ import annotations

import io
import math
from fractions import Fraction
from typing import Any

import numpy as np

from capjax.data.av_container import INSTALL, codec_of, opened, refuse_cut, refuse_cut_bytes
from capjax.data.log_mel import log_mel
from capjax.data.video import check_part
from capjax.errors import UserError

__all__ = ["MAX_SECONDS", "decode", "log_mel", "resample"]

MAX_SECONDS = 3600
MAX_RATE = 768_000  # of files and of what is asked for
_MAX_VALUES = 2**29  # samples x channels: 2 GiB while a file is read
_MAX_CHANNELS = 64


def decode(
    data: bytes,
    rate: int,
    *,
    start: float | None = None,
    end: float | None = None,
    max_seconds: float = MAX_SECONDS,
) -> np.ndarray:
    """Encoded bytes -> float32 [N] at `rate`.

    start, end: only this part counts, in seconds; an `end` behind the recording's is its end.
    N is the part's length in seconds times the rate, rounded up.

    Raises `ValueError` with the reason where the bytes are no sound, are cut short, or are longer
    than `max_seconds` (the part asked for, that is); `UserError` for wrong arguments.
    """
    check_rate(rate)
    check_part(start, end)
    if not data:
        raise ValueError("cannot be decoded: it is empty")
    part = (start or 0, math.inf if end is None else end)
    if _is_for_libsndfile(data):
        sound, own_rate = _by_libsndfile(data, part, max_seconds)
    else:
        sound, own_rate = _by_ffmpeg(data, part, max_seconds)
    if not len(sound):
        raise ValueError(
            f"has no second {part[0]:g}: it is shorter"
            if part[0]
            else "cannot be decoded: it has no sound"
        )
    if not np.isfinite(sound).all():
        raise ValueError("cannot be decoded: it holds values that are no numbers")
    return resample(sound, own_rate, rate)


def check_rate(rate: int) -> None:
    """`UserError` for what is no rate."""
    if not isinstance(rate, int) or not 1 <= rate <= MAX_RATE:
        raise UserError(f"rate={rate!r} must be an integer from 1 to {MAX_RATE:,} samples a second")


def resample(waveform: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """float32 [N] at `rate` -> float32 [ceil(N new_rate / rate)] at `new_rate`."""
    if rate == new_rate:
        return waveform
    # Imported here: a quarter of a second, and most recordings of a prepared set need it not.
    from scipy.signal import resample_poly

    shared = math.gcd(rate, new_rate)
    return resample_poly(waveform, new_rate // shared, rate // shared).astype(np.float32)


def _is_for_libsndfile(data: bytes) -> bool:
    return data[:4] in (b"fLaC", b"OggS") or (data[:4] == b"RIFF" and data[8:12] == b"WAVE")


def _by_libsndfile(data: bytes, part: tuple[float, float], max_seconds: float) -> tuple:
    """(float32 [N], its rate)."""
    try:
        import soundfile
    except (ModuleNotFoundError, OSError):  # OSError: its C library is missing
        raise UserError(f"WAV, FLAC and Ogg files are decoded by soundfile: {INSTALL}") from None
    refuse_cut_bytes(data)
    _refuse_cut_ogg(data)
    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        # An Ogg may hold what only FFmpeg knows; what neither knows fails there.
        if data[:4] == b"OggS":
            return _by_ffmpeg(data, part, max_seconds)
        raise ValueError(f"cannot be decoded: {error.error_string}") from None
    with file:
        rate, channels = file.samplerate, file.channels
        _check(rate, channels)
        first = min(round(Fraction(part[0]) * rate), file.frames)
        last = file.frames if part[1] == math.inf else round(Fraction(part[1]) * rate)
        count = min(last, file.frames) - first
        _check_length(count, rate, channels, max_seconds)
        try:
            file.seek(first)
            sound = file.read(count, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise ValueError(f"cannot be decoded: {error}") from None
    if len(sound) < count:
        raise ValueError(
            f"cannot be decoded: it is cut short ({first + len(sound):,} of {file.frames:,} "
            "samples are there)"
        )
    return _mono(sound.T), rate


def _refuse_cut_ogg(data: bytes) -> None:
    """libsndfile takes a last page that is not whole for the end of the recording."""
    if data[:4] != b"OggS":
        return
    last = data.rfind(b"OggS")
    segments = data[last + 26] if last + 26 < len(data) else 0
    body = sum(data[last + 27 : last + 27 + segments])
    if last + 27 + segments + body > len(data) or last + 27 > len(data):
        raise ValueError("cannot be decoded: it is cut short (its last page is not whole)")


def _by_ffmpeg(data: bytes, part: tuple[float, float], max_seconds: float) -> tuple:
    """(float32 [N], its rate).

    Everything before the part is decoded, too: what a lossy codec gives depends on what it was
    given before, and so a part is exactly that part of the whole.
    """
    with opened(data) as container:
        if not container.streams.audio:
            raise ValueError("cannot be decoded: it has no sound")
        stream = container.streams.audio[0]
        codec_of(stream).thread_count = 1
        rate, channels = stream.rate, stream.channels
        _check(rate, channels)
        first = round(Fraction(part[0]) * rate)
        last = math.inf if part[1] == math.inf else round(Fraction(part[1]) * rate)
        pieces = _pieces(container, stream, rate, first, last, max_seconds)
        return (np.concatenate(pieces) if pieces else np.zeros(0, np.float32)), rate


def _pieces(
    container: Any, stream: Any, rate: int, first: int, last: float, max_seconds: float
) -> list[np.ndarray]:
    """The decoded frames' samples from number `first` to before `last`, each float32 [n]."""
    import av

    as_floats = av.AudioResampler(format="fltp")
    pieces: list[np.ndarray] = []
    at, packets, end = 0, 0, Fraction(-1)
    for packet in container.demux():
        if packet.pts is not None:
            end = max(end, (packet.pts + packet.duration) * Fraction(packet.time_base))
        if packet.stream_index != stream.index:
            continue
        if packet.is_corrupt:
            raise ValueError("cannot be decoded: it is cut short or damaged")
        packets += packet.size > 0
        if at >= last:
            continue  # the rest is only counted
        for frame in packet.decode():
            if frame.rate != rate:
                raise ValueError("cannot be decoded: its rate changes")
            for even in as_floats.resample(frame):
                sound = _mono(even.to_ndarray())
                begin, stop = max(0, first - at), min(len(sound), last - at)
                at += len(sound)
                if begin < stop:
                    pieces.append(sound[begin:stop])
        _check_length(max(0, at - first), rate, 1, max_seconds)
    end -= min(0, Fraction(container.start_time or 0, 1_000_000))
    refuse_cut(container, stream, packets, end if end >= 0 else None)
    if not at:
        raise ValueError("cannot be decoded: no sound comes out of it")
    return pieces


def _mono(sound: np.ndarray) -> np.ndarray:
    """[C,N] -> float32 [N]."""
    return sound[0] if len(sound) == 1 else sound.mean(0, dtype=np.float64).astype(np.float32)


def _check(rate: int, channels: int) -> None:
    if not 1 <= rate <= MAX_RATE or not 1 <= channels <= _MAX_CHANNELS:
        raise ValueError(
            f"cannot be decoded: it claims {rate:,} samples a second and {channels} channels"
        )


def _check_length(count: int, rate: int, channels: int, max_seconds: float) -> None:
    if count > max_seconds * rate:
        raise ValueError(
            f"cannot be decoded: it has more than {max_seconds:,g} s of sound; name a part of it "
            "by start and end"
        )
    if count * channels > _MAX_VALUES:
        raise ValueError(f"cannot be decoded: it has more than {_MAX_VALUES:,} samples")
