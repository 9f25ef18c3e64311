"""Decoding of every kind of picture met in caption data sets, and the resizing rules."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from capjax.data import images
from capjax.errors import UserError


def encode(picture, format="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height, width):
    """A picture without high frequencies, which lossy formats keep."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [rows * 255 / height, columns * 255 / width, (rows + columns) * 127 / height]
    return np.clip(np.stack(channels, -1), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("format", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})]
)
def test_lossless_formats_come_back_exactly(format, options):
    array = noise(20, 30)
    decoded = images.decode(encode(Image.fromarray(array), format, **options))
    assert decoded.dtype == np.uint8
    assert decoded.flags.writeable
    np.testing.assert_array_equal(decoded, array)


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats_come_back_nearly(format):
    array = smooth(64, 48)
    decoded = images.decode(encode(Image.fromarray(array), format, quality=95))
    assert decoded.shape == array.shape
    assert np.abs(decoded.astype(int) - array).mean() < 4


def test_greyscale_palette_and_bilevel_become_rgb():
    grey = Image.fromarray(noise(9, 7)[..., 0])
    expected = np.repeat(np.asarray(grey)[..., None], 3, -1)
    np.testing.assert_array_equal(images.decode(encode(grey)), expected)
    palette = Image.fromarray(noise(9, 7)).quantize(16)
    np.testing.assert_array_equal(
        images.decode(encode(palette)), np.asarray(palette.convert("RGB"))
    )
    bilevel = Image.new("1", (7, 9), 1)
    assert (images.decode(encode(bilevel)) == 255).all()


def test_transparency_is_laid_on_white():
    rgba = np.zeros((4, 6, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:, :2, 3], rgba[:, 2:4, 3], rgba[:, 4:, 3] = 0, 128, 255
    decoded = images.decode(encode(Image.fromarray(rgba)))
    assert (decoded[:, :2] == 255).all()
    assert (decoded[:, 4:] == [200, 0, 0]).all()
    np.testing.assert_allclose(decoded[0, 2], [227, 127, 127], atol=1)
    palette = Image.new("P", (3, 3), 0)
    palette.putpalette([10, 20, 30] + [0] * 765)
    assert (images.decode(encode(palette, transparency=0)) == 255).all()
    grey_alpha = Image.new("LA", (3, 3), (7, 0))
    assert (images.decode(encode(grey_alpha)) == 255).all()


def test_cmyk_jpeg_becomes_the_colours_it_shows():
    cmyk = Image.fromarray(smooth(32, 32)).convert("CMYK")
    decoded = images.decode(encode(cmyk, "JPEG", quality=95))
    assert np.abs(decoded.astype(int) - smooth(32, 32)).mean() < 6


def test_16_bit_greyscale_keeps_its_range():
    """Pillow alone would clip at 255 and give a white picture."""
    wide = np.array([[0, 257 * 50, 65535]], np.uint16)
    decoded = images.decode(encode(Image.fromarray(wide)))
    np.testing.assert_array_equal(decoded[0, :, 0], [0, 50, 255])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(orientation):
    upright = noise(5, 8)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), exif=exif.tobytes())
    np.testing.assert_array_equal(images.decode(data), upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_cost_the_picture():
    array = smooth(16, 16)
    data = encode(Image.fromarray(array), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    assert images.decode(data).shape == array.shape


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (images.decode(data) == [255, 0, 0]).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.95])
def test_truncated_pictures_are_refused(format, kept):
    data = encode(Image.fromarray(noise(64, 64)), format)
    with pytest.raises(ValueError, match="cannot be decoded"):
        images.decode(data[: int(len(data) * kept)])


@pytest.mark.parametrize(
    "data", [b"", b"<html>404</html>", b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF"]
)
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(ValueError, match="cannot be decoded: it is"):
        images.decode(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8_200, 12_000, 60_000])
def test_decompression_bombs_are_refused_before_they_are_decoded(side):
    honest = encode(Image.new("L", (1, 1)))  # 8 bytes of signature, 4 of length, then IHDR
    claim = b"IHDR" + struct.pack(">II", side, side) + honest[24:29]
    bomb = honest[:12] + claim + struct.pack(">I", zlib.crc32(claim)) + honest[33:]
    with pytest.raises(ValueError, match="more than 67,108,864 pixels"):
        images.decode(bomb)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=200, deadline=None)
@given(
    position=st.integers(0, 10_000),
    value=st.integers(0, 255),
    format=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF"]),
)
def test_any_damaged_byte_gives_a_picture_or_a_value_error(position, value, format):
    data = bytearray(encode(Image.fromarray(smooth(24, 24)), format))
    data[position % len(data)] = value
    try:
        decoded = images.decode(bytes(data))
    except ValueError:
        return  # any other exception fails the test
    assert decoded.ndim == 3
    assert decoded.dtype == np.uint8


def test_squash_ignores_the_aspect():
    array = smooth(60, 20)
    expected = np.asarray(Image.fromarray(array).resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(images.resize(array, 32, "squash"), expected)


@pytest.mark.parametrize(
    "shape", [(480, 640), (333, 500), (500, 333), (37, 301), (64, 64), (32, 45)]
)
@pytest.mark.parametrize("size", [32, 33, 224])
def test_crop_is_shorter_side_then_centre_square(shape, size):
    """Against the published two steps, done literally."""
    array = noise(*shape)
    height, width = shape
    if height <= width:
        scaled = (int(size * width / height), size)
    else:
        scaled = (size, int(size * height / width))
    whole = np.asarray(Image.fromarray(array).resize(scaled, Image.Resampling.BICUBIC))
    top, left = round((scaled[1] - size) / 2), round((scaled[0] - size) / 2)
    got = images.resize(array, size, "crop")
    np.testing.assert_array_equal(got, whole[top : top + size, left : left + size])


@pytest.mark.parametrize("upright", [False, True])
def test_a_strip_gives_its_middle_without_growing_to_gigabytes(upright):
    """Resized in full, this strip would take 8 GiB."""
    strip = np.zeros((2, 400_000, 3), np.uint8)
    strip[:, 199_996:200_004] = 255
    if upright:
        strip = strip.swapaxes(0, 1)
    square = images.resize(strip, 120, "crop")
    assert square.shape == (120, 120, 3)
    assert (square == 255).all()


def test_an_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(
        UserError, match="unknown resize rule 'stretch'; choose one of squash, crop"
    ):
        images.resize(noise(4, 4), 2, "stretch")


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), seed=st.integers(0, 1000))
def test_random_crops_have_the_size_asked_for_and_follow_the_seed(height, width, seed):
    array = noise(height, width)
    first = images.random_resized_crop(array, 16, np.random.default_rng(seed))
    again = images.random_resized_crop(array, 16, np.random.default_rng(seed))
    assert first.shape == (16, 16, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)


def test_random_crops_keep_to_scale_and_ratio():
    """The columns' and rows' positions are written into the picture and read off the crop."""
    rows, columns = np.mgrid[0:200, 0:200].astype(np.uint8)
    array = np.stack([rows, columns, rows], -1)
    rng = np.random.default_rng(0)
    shares, ratios, corners = [], [], set()
    for _ in range(200):
        crop = images.random_resized_crop(array, 100, rng, scale=(0.3, 0.6), ratio=(0.5, 2.0))
        height = (int(crop[-1, 0, 0]) - int(crop[0, 0, 0])) * 100 / 99
        width = (int(crop[0, -1, 1]) - int(crop[0, 0, 1])) * 100 / 99
        shares.append(height * width / 200**2)
        ratios.append(width / height)
        corners.add((int(crop[0, 0, 0]), int(crop[0, 0, 1])))
    assert 0.28 < min(shares) < 0.35
    assert 0.55 < max(shares) < 0.62
    assert 0.48 < min(ratios) < 0.6
    assert 1.7 < max(ratios) < 2.08
    assert len(corners) > 150


def test_flip_mirrors_left_to_right():
    array = noise(3, 5)
    flipped = images.flip(array)
    np.testing.assert_array_equal(flipped[:, 0], array[:, -1])
    np.testing.assert_array_equal(images.flip(flipped), array)
    assert flipped.flags.c_contiguous
