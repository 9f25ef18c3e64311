"""Which file of a folder is opened, and what is said when none can be."""

import shutil

import pytest
from peer_files import unpack

from capjax.errors import UserError
from capjax.weights.files import open_tensors

PLAIN, TORCH = "plain.safetensors", "protocol4.pt"


def place(folder, kind, *names):
    for name in names:
        shutil.move(unpack(kind, folder), folder / name)


@pytest.mark.parametrize(
    ("kind", "names", "chosen"),
    [
        (PLAIN, ["model.safetensors", "other.safetensors"], "model.safetensors"),
        (PLAIN, ["open_clip_model.safetensors", "x.safetensors"], "open_clip_model.safetensors"),
        (PLAIN, ["any.safetensors"], "any.safetensors"),
        (TORCH, ["pytorch_model.bin", "training_args.bin"], "pytorch_model.bin"),
        (TORCH, ["open_clip_pytorch_model.bin", "x.pt"], "open_clip_pytorch_model.bin"),
        (TORCH, ["ViT-B-32.pt"], "ViT-B-32.pt"),
    ],
)
def test_the_known_name_or_the_only_file_is_taken(tmp_path, kind, names, chosen):
    place(tmp_path, kind, *names)
    (tmp_path / "config.json").write_text("{}")
    assert open_tensors(tmp_path).files == (tmp_path / chosen,)


def test_safetensors_come_before_files_with_pickles(tmp_path):
    place(tmp_path, TORCH, "pytorch_model.bin")
    place(tmp_path, PLAIN, "some.safetensors")
    assert open_tensors(str(tmp_path)).format == "safetensors"


def test_the_format_is_told_by_content(tmp_path):
    place(tmp_path, TORCH, "weights.npz")
    place(tmp_path, PLAIN, "weights.bin")
    assert open_tensors(tmp_path / "weights.npz").format == "torch"
    assert open_tensors(tmp_path / "weights.bin").format == "safetensors"


def test_several_without_an_index_are_named(tmp_path):
    place(tmp_path, PLAIN, "a.safetensors", "b.safetensors")
    with pytest.raises(UserError, match=r"a\.safetensors, b\.safetensors.*give the path of one"):
        open_tensors(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint"):
        open_tensors(tmp_path)
    with pytest.raises(UserError, match=r"no checkpoint at .*absent"):
        open_tensors(tmp_path / "absent")


@pytest.mark.parametrize("data", [b"", b"<html>", b"\x1f\x8b" * 50, b"\0" * 40, b"\xff" * 100])
def test_an_unknown_format_says_what_was_tried(tmp_path, data):
    (tmp_path / "x.weights").write_bytes(data)
    with pytest.raises(UserError, match=r"no known format \(tried safetensors.*llama2\.c"):
        open_tensors(tmp_path / "x.weights")


def test_a_pointer_of_git_lfs_is_recognised(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match="git lfs pull"):
        open_tensors(path)


def test_a_mapping_that_opens_nothing_until_asked(tmp_path):
    tensors = open_tensors(unpack(PLAIN, tmp_path))
    (tmp_path / PLAIN).unlink()
    assert "a" in tensors
    assert "z" not in tensors
    assert (len(tensors), tensors.shape("a")) == (4, (2, 3))
    with pytest.raises(KeyError):
        tensors["z"]
    with pytest.raises(UserError, match="cannot read"):
        tensors["a"]
