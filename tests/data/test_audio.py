"""Sound files made here with soundfile and PyAV: samples, parts, rates, and what is refused."""

import io
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capjax.data import audio
from capjax.errors import UserError

REASON = "{} is not installed: pip install 'capjax[media]'"
soundfile = pytest.importorskip("soundfile", reason=REASON.format("soundfile"))
av = pytest.importorskip("av", reason=REASON.format("PyAV"))

RATE = 16_000


def tone(seconds=1.0, rate=RATE, hz=440.0):
    """Silence for a quarter of the time, then a tone."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hz * time) * (time >= seconds / 4)).astype(np.float32)


def write(waveform, rate=RATE, format="WAV", subtype=None):
    """By libsndfile: float32 [N] or [N,C]."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def write_av(waveform, codec, container, rate=RATE):
    """By FFmpeg: float32 [N]."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 96_000
        frame = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
        frame.rate, frame.pts = rate, 0
        fitted = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.frame_size or 0)
        for part in [*fitted.resample(frame), *fitted.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode())
    return buffer.getvalue()


LOSSY = [
    ("libmp3lame", "mp3"),
    ("aac", "mp4"),
    ("aac", "adts"),
    ("aac", "mpegts"),
    ("libopus", "webm"),
]
LOSSY_IDS = [f"{codec}-{container}" for codec, container in LOSSY]


@pytest.mark.parametrize(
    ("format", "subtype", "error"),
    [
        *(("WAV", "PCM_16", 2**-15), ("WAV", "PCM_24", 2**-23), ("WAV", "FLOAT", 0)),
        *(("WAV", "ULAW", 0.02), ("FLAC", "PCM_16", 2**-15), ("FLAC", "PCM_24", 2**-23)),
    ],
)
def test_lossless_formats_come_back_to_their_precision(format, subtype, error):
    waveform = tone()
    got = audio.decode(write(waveform, RATE, format, subtype), RATE)
    assert (got.dtype, got.shape) == (np.float32, waveform.shape)
    assert np.abs(got - waveform).max() <= error


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_comes_back_nearly(subtype):
    got = audio.decode(write(tone(), RATE, "OGG", subtype), RATE)
    assert len(got) == RATE
    assert np.abs(got - tone()).mean() < 0.02


@pytest.mark.parametrize(("codec", "container"), LOSSY, ids=LOSSY_IDS)
def test_what_ffmpeg_reads_comes_back_nearly_and_in_time(codec, container):
    rate = 48_000 if codec == "libopus" else RATE
    got = audio.decode(write_av(tone(rate=rate), codec, container, rate), rate)
    assert got.dtype == np.float32
    assert abs(len(got) - rate) <= 0.15 * rate  # some containers cannot tell of the padding
    begins = np.argmax(np.abs(got) > 0.2) / rate
    # Raw AAC and transport streams keep the encoder's delay; the others tell it.
    assert begins == pytest.approx(0.25, abs=0.08 if container in ("adts", "mpegts") else 0.01)
    spectrum = np.abs(np.fft.rfft(got[rate // 2 :][: rate // 4]))
    assert np.argmax(spectrum) * 4 == pytest.approx(440, abs=4)


def test_channels_are_averaged():
    left, right = tone(), tone(hz=1000)
    got = audio.decode(write(np.stack([left, right], 1), subtype="FLOAT"), RATE)
    np.testing.assert_allclose(got, (left + right) / 2, atol=1e-7)
    flac = audio.decode(write(np.stack([left, -left], 1), format="FLAC"), RATE)
    assert np.abs(flac).max() <= 2**-15


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 11_025])
def test_other_rates_are_the_same_sound(rate):
    """The middle of a band-limited tone, whatever its rate, is the tone at the wanted rate."""
    data = write(tone(rate=rate), rate, subtype="FLOAT")
    got = audio.decode(data, RATE)
    assert len(got) == RATE
    middle = slice(RATE // 2, RATE * 9 // 10)
    assert np.abs(got - tone())[middle].max() < 2e-3


def test_resampling_lets_nothing_alias():
    high = tone(rate=48_000, hz=11_000)  # above what 16 kHz can hold
    assert np.abs(audio.resample(high, 48_000, RATE)[RATE // 2 : -200]).max() < 2e-3
    assert audio.resample(high, 48_000, 48_000) is high


@pytest.mark.parametrize("kind", ["WAV", "FLAC", *LOSSY_IDS[:2]])
def test_a_part_is_that_part_of_the_whole(kind):
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * RATE).astype(np.float32)
    if kind in ("WAV", "FLAC"):
        data = write(waveform, format=kind)
    else:
        data = write_av(waveform, *LOSSY[LOSSY_IDS.index(kind)])
    whole = audio.decode(data, RATE)
    for start, end in ((0.5, 1.25), (None, 0.1), (1.5, None), (1.9, 60.0), (0.1234, 0.5678)):
        part = audio.decode(data, RATE, start=start, end=end)
        first = round((start or 0) * RATE)
        last = min(len(whole), round((end or 9) * RATE))
        np.testing.assert_array_equal(part, whole[first:last])
    with pytest.raises(ValueError, match="has no second 3: it is shorter"):
        audio.decode(data, RATE, start=3.0)


def test_the_sound_of_a_video_is_read():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        pictures = file.add_stream("mpeg4", rate=10)
        sound = file.add_stream("aac", rate=RATE, layout="mono")
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            frame.pts = i
            file.mux(pictures.encode(frame))
        frame = av.AudioFrame.from_ndarray(tone()[None, :15_360], format="fltp", layout="mono")
        frame.rate, frame.pts = RATE, 0
        for part in av.AudioResampler("fltp", "mono", RATE, 1024).resample(frame):
            file.mux(sound.encode(part))
        file.mux([*pictures.encode(), *sound.encode()])
    got = audio.decode(buffer.getvalue(), RATE)
    assert np.abs(got[:15_000] - tone()[:15_000]).mean() < 0.02


TRUNCATED = {
    **{name: write(tone(), format=name) for name in ("WAV", "FLAC", "OGG")},
    **{
        name: write_av(tone(), *kind)
        for name, kind in zip(LOSSY_IDS, LOSSY, strict=True)
        if kind[0] == "aac" and kind[1] == "mp4"
    },
    "libopus-webm": write_av(tone(rate=48_000), "libopus", "webm", 48_000),
}


@pytest.mark.parametrize("name", TRUNCATED)
@pytest.mark.parametrize("kept", [0.01, 0.3, 0.8])
def test_truncated_recordings_are_refused(name, kept):
    data = TRUNCATED[name]
    with pytest.raises(ValueError, match="cannot be decoded"):
        audio.decode(data[: int(len(data) * kept)], RATE)


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"fLaC", b"OggS", b"RIFF\4\0\0\0WAVE"])
def test_what_is_no_sound_is_refused(data):
    with pytest.raises(ValueError, match="cannot be decoded"):
        audio.decode(data, RATE)


def test_limits_are_on_the_part_that_is_asked_for():
    for data in (write(tone(4.0)), write_av(tone(4.0), "libmp3lame", "mp3")):
        with pytest.raises(ValueError, match="more than 2 s of sound; name a part of it"):
            audio.decode(data, RATE, max_seconds=2)
        assert len(audio.decode(data, RATE, start=1.0, end=2.5, max_seconds=2)) == 1.5 * RATE


def test_a_claim_of_hours_is_refused_before_it_is_read():
    data = bytearray(write(np.zeros(RATE, np.float32), format="FLAC"))
    data[21:26] = bytes([data[21] | 0x0F, 255, 255, 255, 255])  # STREAMINFO: 2**36 - 1 samples
    with pytest.raises(ValueError, match="more than 3,600 s"):
        audio.decode(bytes(data), RATE)


def test_numbers_that_are_none_are_refused():
    broken = tone()
    broken[7] = np.nan
    with pytest.raises(ValueError, match="values that are no numbers"):
        audio.decode(write(broken, subtype="FLOAT"), RATE)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(TRUNCATED)),
    position=st.integers(0, 10**6),
    value=st.integers(0, 255),
)
def test_any_damaged_byte_gives_sound_or_a_value_error(name, position, value):
    data = bytearray(TRUNCATED[name])
    data[position % min(len(data), 400)] = value  # the heads, where the claims are
    try:
        got = audio.decode(bytes(data), RATE, max_seconds=60)
    except ValueError:
        return  # any other exception fails the test
    assert (got.ndim, got.dtype) == (1, np.float32)
    assert np.isfinite(got).all()


def test_wrong_arguments():
    for rate in (0, -1, 16_000.0, 10**9):
        with pytest.raises(UserError, match="must be an integer from 1 to 768,000"):
            audio.decode(b"", rate)
    with pytest.raises(UserError, match="start=-1 must be a number of seconds"):
        audio.decode(b"", RATE, start=-1)


@pytest.mark.parametrize(
    ("missing", "data"),
    [("soundfile", TRUNCATED["FLAC"]), ("av", TRUNCATED["libopus-webm"])],
)
def test_without_a_package_it_is_named(missing, data, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=r'pip install "capjax\[media\]"'):
        audio.decode(data, RATE)
