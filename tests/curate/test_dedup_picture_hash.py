"""Perceptual hashes: frozen bits, and what they survive on real pictures and on drawn ones."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from capjax.curate.dedup import picture_hash, picture_hashes
from capjax.curate.dedup.picture_hash import KINDS, dhash, distance, phash, to_hex
from capjax.data import images
from capjax.data.manifest import Source
from capjax.data.skips import SkipBudget
from capjax.errors import BadRecord, UserError


def ramp(height=40, width=60):
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 6, columns * 4, 255 - rows - columns], -1).astype(np.uint8)


def blobs(seed, side=64):
    """A picture with large shapes: eight discs of random grey."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side]
    image = np.full((side, side), 128.0)
    for _ in range(8):
        y, x, radius = rng.uniform(0, side, 3)
        image[(rows - y) ** 2 + (columns - x) ** 2 < (radius / 2) ** 2] = rng.uniform(0, 255)
    return np.repeat(image.astype(np.uint8)[..., None], 3, -1)


def jpeg(image, quality):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return images.decode(buffer.getvalue())


def resized(image, width, height):
    return np.array(Image.fromarray(image).resize((width, height)))


def trimmed(image, pixels):
    """Without a margin of so many pixels, in all, on each axis."""
    first = pixels // 2
    return image[first : image.shape[0] - (pixels - first), first : -(pixels - first)]


FROZEN = {  # of the imagehash package, 4.3.2
    "ramp": {"phash": "807ae87a2f7f0b05", "dhash": "ffffffffffffffff"},
    "blobs": {"phash": "c669188c6b7295e7", "dhash": "3323dac94366b4b4"},
}
# change -> how many bits it may move at most, on 20 photographs (160 px) and on drawings
SURVIVED = {
    "half": (lambda a: resized(a, a.shape[1] // 2, a.shape[0] // 2), 4),
    "twice": (lambda a: resized(a, a.shape[1] * 2, a.shape[0] * 2), 4),
    "squashed": (lambda a: resized(a, a.shape[1], a.shape[0] * 2 // 3), 4),
    "jpeg": (lambda a: jpeg(a, 40), 4),
    "grey": (lambda a: np.array(Image.fromarray(a).convert("L").convert("RGB")), 0),
    "darker": (lambda a: np.array(ImageEnhance.Brightness(Image.fromarray(a)).enhance(0.8)), 4),
    "brighter": (lambda a: np.array(ImageEnhance.Brightness(Image.fromarray(a)).enhance(1.2)), 8),
}


@pytest.fixture(scope="module")
def photographs(shared):
    source = Source(shared / "data/flickr8k/captions_extra.jsonl", limit=20)
    return [source[i]["image"] for i in range(len(source))]


def test_frozen_bits():
    """Lists of hashes that others made with imagehash can be compared with ours."""
    assert {name: to_hex(hashed(ramp())) for name, hashed in KINDS.items()} == FROZEN["ramp"]
    assert {name: to_hex(hashed(blobs(3))) for name, hashed in KINDS.items()} == FROZEN["blobs"]


def test_phash_is_the_sign_of_low_frequencies():
    """A cosine of frequency (0, 3) lifts one coefficient; its bit is set, its opposite's is not."""
    columns = np.cos(np.pi * 3 * (2 * np.arange(32) + 1) / 64)
    for sign in (1, -1):
        wave = (128 + sign * 100 * columns).astype(np.uint8)
        bits = phash(np.broadcast_to(wave[None, :, None], (32, 32, 3)).copy())
        assert bool(bits >> (63 - 3) & 1) == (sign == 1)


def test_dhash_compares_neighbours():
    steps = np.arange(0, 180, 20, dtype=np.uint8)
    rising = np.broadcast_to(steps[None, :, None], (8, 9, 3)).copy()
    assert dhash(rising) == 2**64 - 1
    assert dhash(rising[:, ::-1].copy()) == 0


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (12, 200, 99)])
def test_flat_pictures_share_one_hash_and_no_random_bits(colour):
    flat = np.full((37, 51, 3), colour, np.uint8)
    assert phash(flat) in (0, 1 << 63)
    assert dhash(flat) == 0


@pytest.mark.parametrize("change", SURVIVED)
def test_drawings_survive(change):
    changed, most = SURVIVED[change]
    for seed in range(10):
        image = blobs(seed)
        for name, hashed in KINDS.items():
            assert distance(hashed(image), hashed(changed(image))) <= most, (name, seed)


@pytest.mark.parametrize("change", SURVIVED)
def test_photographs_survive(change, photographs):
    changed, most = SURVIVED[change]
    for hashed in KINDS.values():
        moved = [distance(hashed(image), hashed(changed(image))) for image in photographs]
        assert max(moved) <= most, moved


def test_a_small_crop_stays_within_ten_bits_and_strangers_do_not(photographs):
    """2% of each axis (3 of 160 px)."""
    values = [[hashed(image) for hashed in KINDS.values()] for image in photographs]
    cut = [[hashed(trimmed(image, 3)) for hashed in KINDS.values()] for image in photographs]
    for i, own in enumerate(cut):
        for j, other in enumerate(values):
            bits = max(distance(a, b) for a, b in zip(own, other, strict=True))
            assert (bits <= 10) == (i == j), (i, j, bits)


def test_turned_and_mirrored_pictures_are_strangers(photographs):
    """What the hashes do not survive: half of the bits differ."""
    for changed in (lambda a: np.rot90(a).copy(), lambda a: a[:, ::-1].copy()):
        for hashed in KINDS.values():
            moved = [distance(hashed(image), hashed(changed(image))) for image in photographs]
            assert 24 < np.mean(moved) < 40


class Pictures:
    """A source in memory; `bad` ones cannot be decoded. Counts what is asked for."""

    def __init__(self, count, bad=()):
        self.count, self.bad, self.asked = count, set(bad), []

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        self.asked.append(i)
        if i in self.bad:
            raise BadRecord(f"p{i}", "cannot be decoded: it is empty")
        return {"key": f"p{i}", "image": blobs(i), "captions": []}


def test_hashing_a_source_in_threads_keeps_the_order():
    found = picture_hashes.hash_pictures(Pictures(20), num_threads=4)
    assert found.index.tolist() == list(range(20))
    assert found.keys == [f"p{i}" for i in range(20)]
    assert found.hashes["phash"].tolist() == [phash(blobs(i)) for i in range(20)]
    assert found.hashes["dhash"].tolist() == [dhash(blobs(i)) for i in range(20)]


def test_a_stopped_run_goes_on_behind_the_last_whole_line(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_hashes, "_AT_A_TIME", 4)
    path = tmp_path / "hashes.jsonl"
    whole = picture_hashes.hash_pictures(Pictures(10), tmp_path / "whole.jsonl")
    text = (tmp_path / "whole.jsonl").read_text()
    path.write_text("".join(text.splitlines(True)[:6]) + text.splitlines()[6][:20])  # cut in a line
    source = Pictures(10)
    again = picture_hashes.hash_pictures(source, path)
    assert path.read_text() == text
    np.testing.assert_array_equal(again.hashes["phash"], whole.hashes["phash"])
    assert sorted(source.asked) == [0, 5, 6, 7, 8, 9]  # 0 and 5: whether the file is theirs
    read = picture_hashes.read_hashes(path)
    assert read.keys == whole.keys
    np.testing.assert_array_equal(read.hashes["dhash"], whole.hashes["dhash"])


def test_bad_records_stop_the_run_or_are_counted_and_may_be_repaired(tmp_path):
    path = tmp_path / "hashes.jsonl"
    with pytest.raises(BadRecord, match="'p2'"):
        picture_hashes.hash_pictures(Pictures(5, bad=[2]), path)
    skips = SkipBudget(5, 0.2)
    found = picture_hashes.hash_pictures(Pictures(5, bad=[2]), path, skips)
    assert found.index.tolist() == [0, 1, 3, 4]
    assert skips.keys == ("p2",)
    assert json.loads(path.read_text().splitlines()[2])["bad"].startswith("cannot be decoded")
    assert picture_hashes.hash_pictures(Pictures(5), path).index.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"index": 1, "key": "p1", "phash": "0", "dhash": "0"}\n', "another source"),
        ('{"index": 0, "key": "q", "phash": "0", "dhash": "0"}\n', "another source"),
        ('{"index": 0, "key": "p0", "phash": "0"}\n', "line 1 lacks phash or dhash"),
        ("[]\n", "line 1 names no record"),
        ("nothing\n", "holds no hashes"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path, text, message):
    path = tmp_path / "hashes.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        picture_hashes.hash_pictures(Pictures(3), path)
    assert path.read_text() == text


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        picture_hashes.hash_pictures(Pictures(3), tmp_path / "missing" / "hashes.jsonl")


def test_hex_has_sixteen_digits():
    assert to_hex(5) == "0000000000000005"
    assert picture_hash.distance(0b1011, 0b1) == 2
