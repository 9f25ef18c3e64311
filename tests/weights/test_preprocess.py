"""Published preprocessing: the pixels of Transformers, OpenCLIP and timm on real photographs."""

import hashlib
import json
import pathlib
import tarfile

import jax.numpy as jnp
import numpy as np
import pytest

from capjax.data import images
from capjax.errors import UserError
from capjax.models import pixels
from capjax.weights import preprocess

ORIGINAL = json.loads((pathlib.Path(__file__).parent / "preprocessors.json").read_text())
PEERS = ORIGINAL["peers"]
CLIP = PEERS["clip_336"]["config"]
VIT = PEERS["vit"]["config"]


def settings(name):
    config = PEERS[name]["config"]
    return config if "resize" in config else preprocess.from_config(config)


@pytest.fixture(scope="module")
def photos(shared):
    """uint8 [H,W,3], each of its own shape."""
    cut = []
    with tarfile.open(shared / "data" / "flickr8k" / "dev-000.tar") as tar:
        for name, (height, width, digest) in ORIGINAL["photos"].items():
            whole = images.decode(tar.extractfile(name).read())
            if hashlib.sha256(whole.tobytes()).hexdigest() != digest:
                pytest.skip("this Pillow's JPEG decoder gives other pixels than that of 13.0.0")
            cut.append(np.ascontiguousarray(whole[:height, :width]))
    return cut


@pytest.mark.parametrize("name", PEERS)
def test_resized_pictures_equal_the_peers(name, photos):
    said = settings(name)
    got = [images.resize(photo, said["image_size"], said["resize"]) for photo in photos]
    digests = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in got]
    assert digests == PEERS[name]["resized"]


@pytest.mark.parametrize("name", PEERS)
def test_normalised_pixels_equal_the_peers(name, photos):
    said = settings(name)
    size = said["image_size"]
    resized = images.resize(photos[1], size, said["resize"])
    known = getattr(pixels, said["pixels"])
    normal = np.asarray(pixels.normalize(jnp.asarray(resized[None]), jnp.float32, known)[0])
    step = (size - 1) // 2
    grid = normal[::step, ::step][:3, :3].reshape(-1, 3)
    np.testing.assert_allclose(grid, PEERS[name]["grid"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "resize", "size", "known"),
    [
        ("clip", "crop_floor", 224, "CLIP"),
        ("clip_336", "crop_floor", 336, "CLIP"),
        ("siglip", "squash", 224, "HALF"),
        ("siglip2", "squash_bilinear", 256, "HALF"),
        ("blip", "squash", 384, "CLIP"),
        ("vit", "squash_bilinear", 224, "HALF"),
        ("deit", "squash_0.875", 224, "IMAGENET"),
        ("dinov2", "crop_0.875_floor", 224, "IMAGENET"),
        ("siglip_defaults", "squash", 224, "HALF"),
        ("bit_defaults", "crop_floor", 224, "CLIP"),
    ],
)
def test_configs_in_our_words(name, resize, size, known):
    assert settings(name) == {"resize": resize, "image_size": size, "pixels": known}


def test_newer_files_keep_the_same_under_a_name():
    assert preprocess.from_config({"image_processor": CLIP}) == preprocess.from_config(CLIP)


def test_a_field_that_is_null_has_its_classs_default():
    assert preprocess.from_config({**CLIP, "resample": None}) == preprocess.from_config(CLIP)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, r"'image_processor_type' .* is '', .*must be one of CLIPImageProcessor, Siglip"),
        ({"image_processor_type": "Siglip2ImageProcessor"}, "'Siglip2ImageProcessor', which is"),
        ({**CLIP, "resample": 1}, r"'resample' .* is 1, .* must be 2 \(bilinear\) or 3"),
        ({**CLIP, "do_center_crop": False}, r"'do_center_crop' .* no square is left"),
        ({**CLIP, "crop_size": {"height": 224, "width": 336}}, "'crop_size' .*take squares"),
        ({**CLIP, "size": {"shortest_edge": 300}}, "'size' .*goes from there to 336 pixels"),
        ({**CLIP, "size": {"shortest_edge": 336, "longest_edge": 400}}, "'size' .*take squares"),
        ({**VIT, "size": [224, 256]}, r"'size' .* is \[224, 256\]"),
        ({**CLIP, "do_resize": False}, "'do_resize' .*always resized"),
        ({**CLIP, "do_normalize": False}, "'do_normalize' .*always resized and normalised"),
        ({**CLIP, "do_rescale": False}, "'do_rescale'"),
        ({**CLIP, "rescale_factor": 1 / 127.5}, "'rescale_factor' .* must be 1 / 255"),
        ({**CLIP, "do_pad": True}, "'do_pad' .*no rule pads"),
        ({**CLIP, "image_mean": [0.4, 0.4, 0.4]}, "'image_mean' .*none of HALF, CLIP, IMAGENET"),
        ({**CLIP, "image_std": 0.5}, "with image_std=0.5 it is none of"),
    ],
)
def test_what_no_rule_does_is_named(config, message):
    with pytest.raises(UserError, match=message):
        preprocess.from_config(config)
