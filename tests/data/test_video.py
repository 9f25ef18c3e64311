"""Videos made here with PyAV: which frames are chosen, how they are turned, what is refused."""

import functools
import io
import struct
import sys
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capjax.data import resize, video
from capjax.data.frame_sampling import sampling
from capjax.errors import UserError

av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'capjax[media]'")

# (codec, container): with B-frames, without time stamps, lossless, with alternate references
KINDS = [
    ("libx264", "mp4"),
    ("libx264", "matroska"),
    ("libx264", "mpegts"),
    ("libx264", "flv"),
    ("libx264", "h264"),
    ("mpeg4", "avi"),
    ("libvpx-vp9", "webm"),
    ("libvpx", "webm"),
    ("ffv1", "matroska"),
    ("gif", "gif"),
]


def picture(number, height=48, width=64):
    """Frame `number`: its grey level says which it is, its corners which way is up."""
    frame = np.full((height, width, 3), (5 * number + 10) % 256, np.uint8)
    frame[: height // 4, : width // 4] = 255, 0, 0
    frame[: height // 4, -width // 4 :] = 0, 255, 0
    return frame


def write(codec="libx264", container="mp4", times=None, rotation=None, key_every=12, size=(48, 64)):
    """A video whose frame i begins at times[i] milliseconds (40 frames of 40 ms unless told)."""
    times = [40 * i for i in range(40)] if times is None else times
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = {"ffv1": "bgr0", "gif": "rgb8"}.get(codec, "yuv420p")
        stream.gop_size = key_every
        # The AVI and the raw stream count frames: they have a fixed rate.
        ticks = Fraction(1, 25 if container in ("avi", "h264") else 1000)
        stream.time_base = stream.codec_context.time_base = ticks
        stream.bit_rate = 4_000_000
        if codec == "libvpx":
            stream.options = {"auto-alt-ref": "1", "lag-in-frames": "16"}
        if rotation:
            stream.set_display_rotation(rotation)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts, frame.time_base = round(Fraction(time, 1000) / ticks), ticks
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return buffer.getvalue()


sample = functools.cache(write)  # the usual video of a kind, for tests that only read it


def every_frame(data):
    """(times in seconds from the first frame, pictures): the whole file decoded in order."""
    with av.open(io.BytesIO(data)) as file:
        frames = list(file.decode(video=0))
    rate = Fraction(1, 25)
    times = [i * rate if f.pts is None else f.pts * f.time_base for i, f in enumerate(frames)]
    return [t - times[0] for t in times], [f.to_ndarray(format="rgb24") for f in frames]


def numbers(clip):
    """Which frames of `write` a clip shows."""
    return [round((float(frame[-8:].mean()) - 10) / 5) for frame in clip]


@pytest.mark.parametrize(("codec", "container"), KINDS)
@pytest.mark.parametrize("rule", ["uniform", "first", "fps:3"])
def test_every_kind_gives_the_frames_of_decoding_it_whole(codec, container, rule):
    data = sample(codec, container)
    times, pictures = every_frame(data)
    length = times[-1] + Fraction(1, 25)
    frames = 5
    wanted = {
        "uniform": [length * Fraction(2 * i + 1, 10) for i in range(5)],
        "first": times[:5],
        "fps:3": [Fraction(i, 3) for i in range(5)],
    }[rule]
    expected = [max(i for i, time in enumerate(times) if time <= t) for t in wanted]
    clip = video.decode(data, frames, rule)
    assert (clip.shape, clip.dtype) == ((5, 48, 64, 3), np.uint8)
    for frame, number in zip(clip, expected, strict=True):
        np.testing.assert_array_equal(frame, pictures[number])
    assert numbers(clip) == expected


def test_uniform_is_the_middle_of_equal_parts():
    data = write()  # 40 frames: parts of ten, whose middles begin frames 5, 15, ...
    assert numbers(video.decode(data, 4)) == [5, 15, 25, 35]
    assert numbers(video.decode(data, 1)) == [20]
    assert numbers(video.decode(data, 40)) == list(range(40))


def test_frames_begin_the_clip_wherever_its_time_stamps_begin():
    data = write(times=[5000 + 40 * i for i in range(40)], container="matroska")
    assert numbers(video.decode(data, 4)) == [5, 15, 25, 35]


def test_a_variable_rate_is_sampled_by_time_not_by_number():
    # Ten frames in the first 0.1 s, then one every 0.5 s.
    times = [10 * i for i in range(10)] + [500 * i for i in range(1, 10)]
    for container in ("mp4", "matroska"):
        clip = video.decode(write(times=times, container=container), 4, "fps:1")
        assert numbers(clip) == [0, 11, 13, 15]
        assert numbers(video.decode(write(times=times, container=container), 3, "first")) == [
            *range(3)
        ]


def test_parts_of_a_video():
    data = write()
    assert numbers(video.decode(data, 2, start=0.4, end=0.8)) == [12, 17]
    assert numbers(video.decode(data, 3, "first", start=0.41)) == [10, 11, 12]
    assert numbers(video.decode(data, 2, "fps:5", start=0.4)) == [10, 15]
    assert numbers(video.decode(data, 2, start=1.2, end=99)) == [32, 37]
    with pytest.raises(ValueError, match=r"has no second 1\.6: it is 1\.6 s long"):
        video.decode(data, 2, start=1.6)
    for part in ({"start": -1}, {"start": 2, "end": 2}, {"end": float("nan")}, {"end": 0}):
        with pytest.raises(UserError, match="must be a number of seconds"):
            video.decode(data, 2, **part)


@pytest.mark.parametrize("rule", ["uniform", "first", "fps:25"])
def test_short_clips_repeat_their_last_frame_or_are_refused(rule):
    data = write(times=[0, 40, 80])
    assert numbers(video.decode(data, 5, rule)) == [0, 1, 2, 2, 2]
    assert numbers(video.decode(data, 3, rule, short="error")) == [0, 1, 2]
    with pytest.raises(ValueError, match="has 3 of the 5 frames"):
        video.decode(data, 5, rule, short="error")
    assert numbers(video.decode(write(times=[0]), 2, rule)) == [0, 0]


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_rotation_is_undone_as_ffmpeg_means_it(turn):
    stored = video.decode(write(), 2)
    turned = video.decode(write(rotation=turn), 2)
    np.testing.assert_array_equal(turned, np.rot90(stored, turn // 90, axes=(1, 2)))


def test_a_phone_held_upright():
    """The matrix that phones write (0 1 / -1 0): the stored top left is shown at the top right."""
    data = bytearray(write())
    matrix = data.index(b"tkhd") + 44
    assert struct.unpack(">9i", data[matrix : matrix + 36])[0] == 0x10000
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    frame = video.decode(bytes(data), 1)[0]
    assert frame.shape == (64, 48, 3)
    assert frame[4, -4, 0] > 200 > 100 > frame[4, -4, 1]  # red: top left as stored
    assert frame[-4, -4, 1] > 200 > 100 > frame[-4, -4, 0]  # green: top right as stored


@pytest.mark.parametrize(("codec", "container"), [kind for kind in KINDS if kind[1] != "h264"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.85])
def test_truncated_videos_are_refused_or_show_only_whole_frames(codec, container, kept):
    """A transport stream tells its length nowhere: cut, it is shorter, but sound."""
    data = sample(codec, container)
    cut = data[: int(len(data) * kept)]
    if container != "mpegts":
        with pytest.raises(ValueError, match="cannot be decoded"):
            video.decode(cut, 4)
        return
    try:
        clip = video.decode(cut, 4, "first")
    except ValueError:
        return
    assert numbers(clip) == [0, 1, 2, 3]


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"\0" * 5000, b"RIFF\4\0\0\0AVI "])
def test_what_is_no_video_is_refused(data):
    with pytest.raises(ValueError, match="cannot be decoded: it"):
        video.decode(data, 2)


def test_playlists_open_no_other_file(tmp_path, monkeypatch):
    """FFmpeg by itself reads what they name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.ts").write_bytes(write(container="mpegts"))
    names = b"ffconcat version 1.0\nfile secret.ts\n"
    with av.open(io.BytesIO(names)) as file:
        assert len(list(file.decode(video=0))) == 40
    with pytest.raises(ValueError, match="cannot be decoded: it is no video"):
        video.decode(names, 2)


class Counted:
    """A codec that counts the packets it is given."""

    def __init__(self, codec):
        self.codec, self.packets = codec, 0

    def decode(self, packet):
        self.packets += 1
        return self.codec.decode(packet)

    def flush_buffers(self):
        self.codec.flush_buffers()


@pytest.mark.parametrize(("codec", "container"), [("libx264", "mp4"), ("libvpx-vp9", "webm")])
def test_only_what_the_wanted_frames_need_is_decoded(codec, container, monkeypatch):
    whole, codecs = video._decoded, []

    def counted(stream, *rest):
        codecs.append(Counted(stream.codec_context))
        return whole(SimpleNamespace(codec_context=codecs[-1]), *rest)

    monkeypatch.setattr(video, "_decoded", counted)
    data = write(codec, container, times=[40 * i for i in range(100)], key_every=10)
    assert len(video.decode(data, 2)) == 2
    assert codecs[0].packets < 40  # of 100: twice, from a keyframe on and a few ahead


def test_limits_on_pixels_bytes_and_duration(monkeypatch):
    data = write()
    with pytest.raises(ValueError, match=r"it is 1\.6 s long, more than 1 s"):
        video.decode(data, 2, max_seconds=1)
    monkeypatch.setattr(video, "MAX_BYTES", 8 * 48 * 64 * 3)
    assert len(video.decode(data, 8)) == 8
    with pytest.raises(ValueError, match="9 frames of 64 x 48 take more than"):
        video.decode(data, 9)
    monkeypatch.setattr(video, "MAX_PIXELS", 48 * 64 - 1)
    with pytest.raises(ValueError, match="64 x 48 is more than 3,071 pixels"):
        video.decode(data, 2)


SAMPLES = {kind: write(*kind, times=[40 * i for i in range(12)]) for kind in KINDS[::3]}


@settings(max_examples=120, deadline=None)
@given(
    kind=st.sampled_from(sorted(SAMPLES)), position=st.integers(0, 10**6), value=st.integers(0, 255)
)
def test_any_damaged_byte_gives_a_clip_or_a_value_error(kind, position, value):
    data = bytearray(SAMPLES[kind])
    data[position % len(data)] = value
    try:
        clip = video.decode(bytes(data), 3)
    except ValueError:
        return  # any other exception fails the test
    assert (clip.ndim, clip.dtype, len(clip)) == (4, np.uint8, 3)


def test_sound_without_pictures_is_no_video():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate = 16000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with pytest.raises(ValueError, match="it has no video stream"):
        video.decode(buffer.getvalue(), 2)


@pytest.mark.parametrize("rule", ["squash", "crop", "crop_0.875"])
def test_each_frame_is_resized_as_a_picture_is(rule):
    clip = video.decode(write(), 3)
    small = video.to_size(clip, 24, rule)
    assert small.shape == (3, 24, 24, 3)
    for frame, expected in zip(small, clip, strict=True):
        np.testing.assert_array_equal(frame, resize.resize(expected, 24, rule))
    assert (video.to_size(small, 24, "crop") == small).all()


def test_moments_by_hand():
    assert sampling("uniform", 2).times(Fraction(8)) == [2, 6]
    assert sampling("fps:1/2", 4).times(Fraction(4)) == [0, 2]
    assert sampling("fps:30000/1001", 2).times(Fraction(1)) == [0, Fraction(1001, 30000)]
    assert sampling("first", 2).times(Fraction(4)) is None


def test_wrong_arguments():
    for rule in ("middle", "fps", "fps:", "fps:0", "fps:-1", "fps:x", "first:2", "fps:1/0"):
        with pytest.raises(UserError, match=r"unknown rule .* choose uniform, first, or fps:2"):
            video.decode(b"", 2, rule)
    for frames in (0, 5000, 2.0):
        with pytest.raises(UserError, match="must be an integer from 1 to 4,096"):
            video.decode(b"", frames)
    with pytest.raises(UserError, match="short='pad' must be one of repeat, error"):
        video.decode(b"", 2, short="pad")


def test_the_file_tells_how_its_colours_are_stored():
    def red(matrix, tag):
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="mp4") as file:
            stream = file.add_stream("libx264", rate=10, options={"crf": "1"})
            stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
            stream.codec_context.colorspace = tag
            pixels = np.full((32, 32, 3), (200, 60, 30), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=matrix)
            frame.colorspace = tag
            file.mux([*stream.encode(frame), *stream.encode()])
        return video.decode(buffer.getvalue(), 1)[0, 16, 16].astype(int)

    bt709, unspecified = 1, 2
    for matrix, tag in (("ITU709", bt709), ("ITU601", unspecified)):
        assert np.abs(red(matrix, tag) - (200, 60, 30)).max() <= 4


def test_without_pyav_the_package_is_named(monkeypatch):
    data = write(times=[0])
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r'decoded by PyAV: pip install "capjax\[media\]"'):
        video.decode(data, 1)
