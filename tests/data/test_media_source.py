"""Manifests of videos and recordings: files, members of tars, parts, and every bad line."""

import io
import json
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from capjax.config import instantiate
from capjax.data import video
from capjax.data.media import Source
from capjax.errors import BadRecord, UserError

REASON = "{} is not installed: pip install 'capjax[media]'"
av = pytest.importorskip("av", reason=REASON.format("PyAV"))
soundfile = pytest.importorskip("soundfile", reason=REASON.format("soundfile"))

RATE = 8000


def clip(frames):
    """One frame each 0.1 s, of grey level 10 i."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as file:
        stream = file.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 24, 16, "bgr0"
        for i in range(frames):
            pixels = np.full((16, 24, 3), 10 * i, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return buffer.getvalue()


def recording(seconds=2.0):
    """A ramp from 0 to 1."""
    buffer = io.BytesIO()
    ramp = np.linspace(0, 1, round(RATE * seconds), endpoint=False)
    soundfile.write(buffer, ramp, RATE, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


LONG, SHORT = clip(20), clip(10)  # written once: a Matroska file has a random name inside


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.mkv").write_bytes(LONG)
    (tmp_path / "a.wav").write_bytes(recording())
    with tarfile.open(tmp_path / "more.tar", "w") as tar:
        for name, data in (("b.mkv", SHORT), ("b.wav", recording(1.0))):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return tmp_path


def write(folder, *lines):
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def levels(frames):
    return (frames[:, 0, 0, 0] // 10).tolist()


VIDEOS = [
    {"video": "a.mkv", "captions": ["it brightens", "a ramp"], "width": 24},
    {"video": "a.mkv", "caption": "the middle", "start": 0.5, "end": 1.5},
    {"video": "b.mkv", "shard": "more.tar", "caption": "a short one", "id": 7},
]
AUDIOS = [
    {"audio": "a.wav", "captions": ["it rises", "a ramp"]},
    {"audio": "a.wav", "caption": "the end", "start": 1.5},
    {"audio": "b.wav", "shard": "more.tar", "caption": "a short one", "end": 0.25},
]


def test_videos(folder):
    source = Source(write(folder, *VIDEOS), "video", frames=4)
    records = list(source)
    assert [record["key"] for record in records] == ["a.mkv", "a.mkv#t=0.5,1.5", "7"]
    assert [record["captions"] for record in records] == [source.captions(i) for i in range(3)]
    assert [levels(record["video"]) for record in records] == [
        [2, 7, 12, 17],
        [6, 8, 11, 13],
        [1, 3, 6, 8],
    ]
    assert records[0]["video"].shape == (4, 16, 24, 3)
    assert set(records[0]) == {"key", "video", "captions", "width"}
    assert records[1]["start"] == 0.5


def test_recordings(folder):
    source = Source(write(folder, *AUDIOS), "audio", rate=RATE)
    assert [record["key"] for record in source] == ["a.wav", "a.wav#t=1.5", "b.wav#t=,0.25"]
    assert [len(record["audio"]) for record in source] == [16_000, 4_000, 2_000]
    assert source[1]["audio"][0] == pytest.approx(0.75)
    assert source[0]["rate"] == RATE
    assert len(Source(source.path, "audio")[0]["audio"]) == 32_000


def test_the_stored_bytes_are_offered(folder):
    source = Source(write(folder, *VIDEOS), "video")
    assert source.encoded(2) == {
        "key": "7",
        "id": 7,
        "video": SHORT,
        "captions": ["a short one"],
    }
    part = source.encoded(1)
    assert (part["video"], part["start"], part["end"]) == (LONG, 0.5, 1.5)
    sound = Source(write(folder, *AUDIOS), "audio").encoded(0)
    assert sound == {"key": "a.wav", "audio": recording(), "captions": ["it rises", "a ramp"]}


def test_what_is_asked_for_reaches_the_decoder(folder):
    path = write(folder, *VIDEOS)
    source = Source(path, "video", frames=3, rule="fps:5", image_size=8, resize="squash")
    np.testing.assert_array_equal(
        source[0]["video"], video.to_size(video.decode(LONG, 3, "fps:5"), 8, "squash")
    )
    with pytest.raises(BadRecord, match="record '7': cannot be used: it has 10 of the 16 frames"):
        Source(path, "video", frames=16, short="error")[2]
    with pytest.raises(BadRecord, match=r"record 'a\.mkv': .* 2 s long, more than 1\.5 s"):
        Source(path, "video", max_seconds=1.5)[0]
    with pytest.raises(BadRecord, match=r"record 'a\.wav': .*more than 1 s of sound"):
        Source(write(folder, *AUDIOS), "audio", max_seconds=1)[0]


def test_a_config_names_it(folder):
    section = {"name": "capjax.data.media", "path": str(write(folder, *AUDIOS)), "kind": "audio"}
    assert len(instantiate(section, "Source")) == 3


def test_copies_for_workers_and_threads_read_alike(folder):
    for kind, lines in (("video", VIDEOS), ("audio", AUDIOS)):
        source = Source(write(folder, *lines), kind)
        copy = pickle.loads(pickle.dumps(source))
        with ThreadPoolExecutor(4) as pool:
            threaded = list(pool.map(copy.__getitem__, [0, 1, 2] * 4))
        for i, record in enumerate(threaded):
            np.testing.assert_array_equal(record[kind], source[i % 3][kind])


BAD_LINES = {
    "other kind": (AUDIOS[0], "lacks the field 'video'"),
    "no video": ({"video": "none.mkv", "caption": "a"}, "the video 'none.mkv', which is not in"),
    "not in shard": ({**VIDEOS[2], "video": "a.mkv"}, "which is not in the shard 'more.tar'"),
    "outside": ({"video": "../a.mkv", "caption": "a"}, "which leaves the folder"),
    "start type": ({**VIDEOS[1], "start": "0:05"}, "has 'start' of type str, not a number of sec"),
    "end type": ({**VIDEOS[1], "end": True}, "has 'end' of type bool, not a number of seconds"),
    "negative": ({**VIDEOS[1], "start": -0.5}, "names no part: start=-0.5 must be"),
    "backwards": ({**VIDEOS[1], "key": "k", "end": 0.5}, "names no part: end=0.5 must be"),
    "repeated": ({**VIDEOS[1], "caption": "again"}, "repeats the key of line 2"),
    "no captions": ({"video": "a.mkv", "key": "k"}, "lacks the field 'captions'"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_stops_or_is_left_out(folder, name):
    line, reason = BAD_LINES[name]
    path = write(folder, *VIDEOS, line)
    with pytest.raises(UserError, match=rf"1 of 4 records .*data\.jsonl:4.*{reason}"):
        Source(path, "video")
    source = Source(path, "video", max_bad_fraction=0.25)
    assert (len(source), len(source.bad_lines)) == (3, 1)


def test_a_file_that_cannot_be_used_is_one_bad_record(folder):
    source = Source(write(folder, *VIDEOS, AUDIOS[0] | {"video": "a.wav", "key": "s"}), "video")
    (folder / "a.mkv").write_bytes(LONG[:800])
    with pytest.raises(BadRecord, match=r"record 'a\.mkv': cannot be decoded") as error:
        source[0]
    assert error.value.key == "a.mkv"
    with pytest.raises(BadRecord, match="record 's': cannot be decoded: it has no video stream"):
        source[3]
    (folder / "a.mkv").unlink()
    with pytest.raises(BadRecord, match=r"record 'a\.mkv': cannot be read: No such file"):
        source[0]
    late = Source(write(folder, {**AUDIOS[1], "start": 7}), "audio")
    with pytest.raises(BadRecord, match=r"record 'a\.wav#t=7': has no second 7"):
        late[0]


def test_wrong_arguments(folder):
    path = write(folder, *VIDEOS)
    for arguments, reason in {
        ("kind", "image"): "kind='image' must be one of video, audio",
        ("rate", 8000): "rate=8000 has no meaning for kind='video'; leave it out",
        ("frames", 0): "frames=0 must be an integer from 1",
        ("rule", "last"): "unknown rule 'last'",
        ("short", "pad"): "short='pad' must be one of repeat, error",
        ("image_size", 0): "image_size=0 must be a number of pixels",
        ("resize", "stretch"): "resize='stretch' must be one of squash",
        ("max_seconds", 0): "max_seconds=0 must be a positive number",
        ("limit", 0): "limit=0 keeps no record",
        ("media_root", "/nowhere/at/all"): "media_root '/nowhere/at/all' is not a folder",
    }.items():
        with pytest.raises(UserError, match=reason):
            Source(path, **{"kind": "video", arguments[0]: arguments[1]})
    with pytest.raises(UserError, match="frames=4 has no meaning for kind='audio'"):
        Source(path, "audio", frames=4)
    with pytest.raises(UserError, match="rate=-1 must be an integer from 1"):
        Source(path, "audio", rate=-1)
