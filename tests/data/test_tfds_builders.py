"""Our own TFDS builders, which prepare without TensorFlow."""

import io
import json
import os
import pathlib
import pickle
import subprocess
import sys
import tarfile

import pytest
from PIL import Image

from capjax.data import tfds_builders
from capjax.data.tars import TarIndex
from capjax.data.tfds_source import Source
from capjax.errors import UserError

pytest.importorskip("tensorflow_datasets")
from capjax.data.tfds_builders import flickr_files

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def png(colour, size=(6, 4)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [png((20 * i, 0, 0)) for i in range(8)]
FLICKR_TEXT = {"a.jpg": ["A dog .", "A brown dog ."], "b.jpg": ['A "cat", sits', "Cat ."]}


def flickr_original(folder, form):
    (folder / "Images").mkdir()
    for i, name in enumerate(FLICKR_TEXT):
        (folder / "Images" / name).write_bytes(PICTURES[i])
    pairs = [(n, i, c) for n, texts in FLICKR_TEXT.items() for i, c in enumerate(texts)]
    if form == "token":
        text = "".join(f"{n}#{i}\t{c}\n" for n, i, c in reversed(pairs))
        (folder / "Flickr8k.token.txt").write_text(text)
        (folder / "Flickr_8k.trainImages.txt").write_text("a.jpg\n")
        (folder / "Flickr_8k.devImages.txt").write_text("b.jpg\n")
        return {"train": ["a.jpg"], "dev": ["b.jpg"]}
    if form == "results":
        lines = [f"{n}| {i}| {c}" for n, i, c in pairs]
        lines[1] = lines[1].replace("| A", "   A")  # as one line of the published file is
        (folder / "results.csv").write_text(
            "\n".join(["image_name| comment_number| comment", *lines, ""])
        )
        return {"train": ["a.jpg", "b.jpg"]}
    if form == "captions.txt":
        lines = ["image,caption"]
        lines += ['{},"{}"'.format(n, c.replace('"', '""')) for n, _, c in pairs]
        (folder / "captions.txt").write_text("\n".join(lines))
        return {"train": ["a.jpg", "b.jpg"]}
    images = [
        {"filename": n, "split": s, "sentences": [{"raw": c} for c in FLICKR_TEXT[n]]}
        for n, s in (("a.jpg", "val"), ("b.jpg", "test"))
    ]
    (folder / "dataset_flickr8k.json").write_text(json.dumps({"images": images}))
    return {"val": ["a.jpg"], "test": ["b.jpg"]}


@pytest.mark.parametrize("form", ["token", "results", "captions.txt", "karpathy"])
def test_flickr_as_it_was_published(form, tmp_path):
    (tmp_path / "files").mkdir()
    expected = flickr_original(tmp_path / "files", form)
    folder = tfds_builders.prepare("flickr30k", tmp_path / "files", tmp_path / "sets")
    assert folder.endswith("flickr30k/1.0.0")
    for split, names in expected.items():
        source = Source("flickr30k", split, tmp_path / "sets")
        records = {record["key"]: record for record in map(source.encoded, range(len(source)))}
        assert set(records) == set(names)
        for name in names:
            assert records[name]["captions"] == FLICKR_TEXT[name]
            assert records[name]["image"] == PICTURES[list(FLICKR_TEXT).index(name)]


def test_flickr_with_files_missing(tmp_path):
    def refusal():
        with pytest.raises(UserError) as caught:
            tfds_builders.prepare("flickr8k", tmp_path, tmp_path / "sets")
        assert not (tmp_path / "sets" / "flickr8k" / "1.0.0").exists()
        return str(caught.value)

    (tmp_path / "notes.md").write_text("nothing yet")
    assert "holds no captions of Flickr; put one of these there" in refusal()
    flickr_original(tmp_path, "token")
    (tmp_path / "Flickr_8k.testImages.txt").write_text("c.jpg\n")
    assert "1 pictures of the split 'test' have no captions (first: 'c.jpg')" in refusal()
    (tmp_path / "Flickr_8k.testImages.txt").unlink()
    (tmp_path / "Images" / "a.jpg").unlink()
    assert "1 of 2 records could not be used (first: 'a.jpg': there is no such pict" in refusal()
    (tmp_path / "Flickr8k.token.txt").write_text("a.jpg A dog .\n")
    assert "Flickr8k.token.txt:1 is not a caption: 'a.jpg A dog .'" in refusal()
    with pytest.raises(UserError, match="there is no builder 'coco'; choose one of conceptual_cap"):
        tfds_builders.prepare("coco", tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        tfds_builders.prepare("flickr8k", tmp_path / "none")
    with pytest.raises(UserError, match="limit=0 keeps no record"):
        tfds_builders.prepare("flickr8k", tmp_path, limit=0)


def test_one_caption_in_a_hundred_pictures_may_lack_its_own(tmp_path):
    flickr_original(tmp_path, "token")
    lines = [f"{i}.jpg#0\tA number .\n" for i in range(99)] + ["258.jpg.1#0\tNobody .\n"]
    for i in range(99):
        (tmp_path / "Images" / f"{i}.jpg").write_bytes(PICTURES[0])
    (tmp_path / "Flickr8k.token.txt").write_text("".join(lines))
    for split in ("train", "dev"):
        (tmp_path / f"Flickr_8k.{split}Images.txt").unlink()
    [(split, records)] = flickr_files.splits(str(tmp_path)).items()
    assert (split, len(list(records))) == ("train", 99)


def test_conceptual_captions(tmp_path):
    for split, numbers in (("", range(3)), ("val/", range(3, 5))):
        path = tmp_path / "files" / f"{split}00000.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for i in numbers:
                for suffix, data in (("png", PICTURES[i]), ("txt", f"number {i}".encode())):
                    info = tarfile.TarInfo(f"{i:09d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    tfds_builders.prepare("conceptual_captions", tmp_path / "files", tmp_path / "sets")
    for split, numbers in (("train", range(3)), ("val", range(3, 5))):
        source = Source("conceptual_captions", split, tmp_path / "sets")
        records = {record["key"]: record for record in map(source.encoded, range(len(source)))}
        assert set(records) == {f"00000/{i:09d}" for i in numbers}
        for i in numbers:
            assert records[f"00000/{i:09d}"]["image"] == PICTURES[i]
            assert records[f"00000/{i:09d}"]["captions"] == [f"number {i}"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("a")
    with pytest.raises(UserError, match="holds no tar"):
        tfds_builders.prepare("conceptual_captions", tmp_path / "empty", tmp_path / "none")


def test_nocaps(tmp_path):
    files = tmp_path / "files"
    (files / "validation").mkdir(parents=True)
    images = [{"id": i, "file_name": f"{i}.jpg", "domain": "out-domain"} for i in range(3)]
    annotations = [{"image_id": i % 3, "caption": f"{i}", "id": i} for i in range(30)]
    content = {"images": images, "annotations": annotations}
    (files / "nocaps_val_4500_captions.json").write_text(json.dumps(content))
    (files / "nocaps_test_image_info.json").write_text(json.dumps({"images": images}))
    with pytest.raises(UserError, match=r"names the picture '0.jpg', which is not below"):
        tfds_builders.prepare("nocaps", files, tmp_path / "none")
    for i in range(3):
        (files / "validation" / f"{i}.jpg").write_bytes(PICTURES[i])
    tfds_builders.prepare("nocaps", files, tmp_path / "sets")
    source = Source("nocaps", "val", tmp_path / "sets", features=["domain", "image_id"])
    records = {record["key"]: record for record in map(source.encoded, range(len(source)))}
    assert set(records) == {"0.jpg", "1.jpg", "2.jpg"}
    assert records["1.jpg"]["captions"] == [str(i) for i in range(1, 30, 3)]
    assert records["1.jpg"]["image"] == PICTURES[1]
    assert (records["1.jpg"]["domain"], records["1.jpg"]["image_id"]) == ("out-domain", 1)
    with pytest.raises(UserError, match="has no split 'test'"):
        Source("nocaps", "test", tmp_path / "sets")
    (files / "nocaps_val_4500_captions.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        tfds_builders.prepare("nocaps", files, tmp_path / "none")


def test_flickr8k_pack_prepared_and_read_without_tensorflow(shared, tmp_path):
    """In a process of its own, where TensorFlow lies ready and says when it is imported."""
    (tmp_path / "poison" / "tensorflow").mkdir(parents=True)
    (tmp_path / "poison" / "tensorflow" / "__init__.py").write_text("raise SystemExit('imported')")
    pack = shared / "data" / "flickr8k"
    code = (
        "import sys, pickle\n"
        "from capjax.data import tfds_builders, tfds_source\n"
        "files, sets, out = sys.argv[1:]\n"
        "tfds_builders.prepare('flickr8k', files, sets, limit=40)\n"
        "records = []\n"
        "for split in ('train', 'dev', 'extra'):\n"
        "    source = tfds_source.Source('flickr8k', split, sets)\n"
        "    source[0]; source.captions(1)\n"
        "    records += [(split, source.encoded(i)) for i in range(len(source))]\n"
        "pickle.dump(records, open(out, 'wb'))\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    path = os.pathsep.join([str(REPOSITORY), str(tmp_path / "poison")])
    ran = subprocess.run(
        [sys.executable, "-c", code, pack, tmp_path / "sets", tmp_path / "out"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    records = pickle.loads((tmp_path / "out").read_bytes())
    assert [split for split, _ in records] == ["train"] * 40 + ["dev"] * 40 + ["extra"] * 40
    tars = {name: TarIndex(pack / f"{name}-000.tar") for name in ("train", "dev", "extra")}
    for split in tars:
        lines = map(json.loads, (pack / f"captions_{split}.jsonl").read_text().splitlines())
        stated = {line["image"]: line["captions"] for line in lines}
        for other, record in records:
            if other == split:
                assert record["captions"] == stated[record["key"]]
                assert record["image"] == tars[split].read(record["key"])
