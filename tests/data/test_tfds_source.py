"""Sets prepared by TFDS, read without it decoding anything; preparing: test_tfds_builders."""

import io
import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from capjax.data import manifest, tfds_builders
from capjax.data.tfds_source import Source
from capjax.errors import BadRecord, UserError

tfds = pytest.importorskip("tensorflow_datasets")


def png(colour, size=(6, 4)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [png((20 * i, 0, 0)) for i in range(8)]


def prepared(data_dir, name, features, records, version="1.0.0", splits=("train",), **options):
    """A set as TFDS writes it, from {key: record}."""

    class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples() for split in splits}

        def _generate_examples(self):
            yield from records.items()

    Made.name = name
    builder = Made(data_dir=data_dir, file_format=options.pop("file_format", "array_record"))
    builder.download_and_prepare()
    return os.fspath(data_dir)


TEXT = tfds.features.Text
# The features of TFDS's own coco_captions, imagenet2012 and of a set like Flickr30k.
COCO = {
    "image": tfds.features.Image(encoding_format="jpeg"),
    "image/filename": TEXT(),
    "image/id": np.int64,
    "captions": tfds.features.Sequence({"id": np.int64, "text": TEXT()}),
    "objects": tfds.features.Sequence({"bbox": tfds.features.BBoxFeature(), "is_crowd": np.bool_}),
}


def coco(i):
    return {
        "image": PICTURES[i],
        "image/filename": f"COCO_{i:012d}.jpg",
        "image/id": i,
        "captions": [{"id": 10 * i + j, "text": f"caption {j} of {i} é"} for j in range(5)],
        "objects": [],
    }


def test_coco_captions(tmp_path):
    prepared(tmp_path, "coco_captions", COCO, {i: coco(i) for i in range(8)})
    source = Source("coco_captions", data_dir=tmp_path)
    assert len(source) == 8
    for i in (3, 0, -1):
        record = source[i]
        assert record["key"] == f"COCO_{i % 8:012d}.jpg"
        assert record["image"][0, 0].tolist() == [20 * (i % 8), 0, 0]
        expected = [f"caption {j} of {i % 8} é" for j in range(5)]
        assert record["captions"] == source.captions(i) == expected
        assert set(record) == {"key", "image", "captions"}
        assert source.encoded(i)["image"] == PICTURES[i]
    with pytest.raises(IndexError):
        source[8]
    more = Source("coco_captions", "train[2:4]", tmp_path, key="image/id", features=["captions/id"])
    assert len(more) == 2
    assert more[1]["key"] == "3"
    assert list(more[1]["captions/id"]) == [30, 31, 32, 33, 34]


def test_imagenet(tmp_path):
    features = {
        "image": tfds.features.Image(),
        "file_name": TEXT(),
        "label": tfds.features.ClassLabel(names=["n01440764", "n01443537", "n01484850"]),
    }
    records = {
        i: {"image": PICTURES[i], "file_name": f"{i}.JPEG", "label": [0, 2, 1, -1][i]}
        for i in range(4)
    }
    prepared(tmp_path, "imagenet2012", features, records, "5.1.0", splits=("train", "validation"))
    source = Source("imagenet2012", "validation", tmp_path)
    assert source.class_names == ["n01440764", "n01443537", "n01484850"]
    record = source[1]
    assert (record["class_id"], record["label"], record["key"]) == (2, "n01484850", "1.JPEG")
    assert record["captions"] == source.captions(1) == []
    assert source[3]["class_id"] == -1
    assert "label" not in source[3]


@pytest.mark.parametrize("many", [True, False], ids=["a list", "one"])
def test_captions_in_a_list_or_alone(many, tmp_path):
    kind = tfds.features.Sequence(TEXT()) if many else TEXT()
    name = "captions" if many else "sentence"
    records = {
        i: {"image": PICTURES[i], name: [f"a {i}", "b"] if many else f"a {i}"} for i in (0, 1)
    }
    prepared(tmp_path, "flickr", {"image": tfds.features.Image(), name: kind}, records)
    source = Source("flickr", data_dir=tmp_path, captions=None if many else "sentence")
    assert source.captions(1) == (["a 1", "b"] if many else ["a 1"])
    assert source[1]["key"] == "flickr/train:1"


def test_copies_and_threads(tmp_path):
    prepared(tmp_path, "coco_captions", COCO, {i: coco(i) for i in range(8)})
    source = Source("coco_captions", data_dir=tmp_path)
    for one in (source, pickle.loads(pickle.dumps(source))):
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(one.encoded, list(range(8)) * 30))
        assert [record["image"] for record in got] == PICTURES * 30


def test_versions_and_configs(tmp_path):
    for version in ("1.0.0", "1.10.0", "1.9.0"):
        prepared(tmp_path, "many", COCO, {0: coco(0)}, version)
    assert Source("many", data_dir=tmp_path).folder.endswith("1.10.0")
    assert Source("many:1.9.0", data_dir=tmp_path).folder.endswith("1.9.0")
    for config in ("2014", "2017"):
        (tmp_path / "configured" / config).mkdir(parents=True)
        os.rename(
            tmp_path / "many" / ("1.0.0" if config == "2014" else "1.9.0"),
            tmp_path / "configured" / config / "1.0.0",
        )
    assert len(Source("configured/2017", data_dir=tmp_path)) == 1
    (tmp_path / "begun" / "incomplete.XYZ_1.0.0").mkdir(parents=True)

    def refusal(builder):
        with pytest.raises(UserError) as caught:
            Source(builder, data_dir=tmp_path)
        return str(caught.value)

    assert "'configured' needs its config;" in refusal("configured")
    assert "has 2014, 2017" in refusal("configured")
    assert "has no version 3.0.0; it has 1.10.0" in refusal("many:3.0.0")
    assert "no version that was prepared to its end" in refusal("begun")
    assert "there is no prepared set 'none'" in refusal("none")
    assert "tfds build none" in refusal("none")
    assert "names no set" in refusal("../many")
    with pytest.raises(UserError, match="are read from a file system; copy or mount gs://bucket"):
        Source("many", data_dir="gs://bucket")


def test_without_tfds_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    for use in (lambda: Source("a"), lambda: tfds_builders.prepare("nocaps", tmp_path)):
        with pytest.raises(UserError, match=r'pip install "capjax\[tfds\]"'):
            use()


def test_wrong_splits_features_and_formats(tmp_path):
    prepared(tmp_path, "coco_captions", COCO, {i: coco(i) for i in range(8)})
    for fields, reason in [
        ({"split": "val"}, r"has no split 'val' .*; it has train"),
        ({"split": "train[9"}, "has no split"),
        ({"image": "picture"}, "'picture' is not one of its image features; it has capt"),
        ({"image": "image/id"}, "'image/id' is not one of its image features"),
        ({"captions": "text"}, "has no feature 'text'; it has captions, image"),
        ({"captions": "captions"}, "'captions' is not text; name captions by"),
        ({"captions": "captions/words"}, "has no feature 'captions/words'"),
        ({"label": "image/id"}, "'image/id' is not a class label"),
        ({"features": ["width"]}, "has no feature 'width'"),
    ]:
        with pytest.raises(UserError, match=reason):
            Source("coco_captions", data_dir=tmp_path, **fields)
    features = {"image": tfds.features.Image(), "words": TEXT()}
    prepared(tmp_path, "unnamed", features, {0: {"image": PICTURES[0], "words": "a"}})
    with pytest.raises(UserError, match="name the one of the captions among image, words"):
        Source("unnamed", data_dir=tmp_path)
    for name in ("dataset_info.json",):  # as a set that was prepared as tfrecord says it
        path = tmp_path / "unnamed" / "1.0.0" / name
        path.write_text(path.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match=r"prepared as tfrecord, .*convert it, .*tfds convert_form"):
        Source("unnamed", data_dir=tmp_path, captions="words")


def test_records_without_captions_and_damaged_ones_are_bad(tmp_path):
    records = {i: coco(i) for i in range(4)}
    records[0]["captions"] = []
    records[1]["captions"] = [{"id": 0, "text": " "}]
    records[2]["image"] = b"no picture"
    prepared(tmp_path, "coco_captions", COCO, records)
    source = Source("coco_captions", data_dir=tmp_path)
    for i, reason in enumerate(
        ["has no caption in 'captions/t", "has an empty cap", "cannot be dec"]
    ):
        with pytest.raises(BadRecord, match=reason) as caught:
            source[i]
        assert caught.value.key == f"COCO_{i:012d}.jpg"
    with pytest.raises(BadRecord, match="has no caption"):
        source.captions(0)
    [shard] = (tmp_path / "coco_captions" / "1.0.0").glob("*.array_record*")
    whole = shard.read_bytes()
    spoilt = bytearray(whole)
    spoilt[whole.index(b"PNG")] ^= 1  # in the picture of one of the records
    shard.write_bytes(spoilt)
    source, damaged = Source("coco_captions", data_dir=tmp_path), []
    for i in range(4):
        try:
            source.encoded(i)
        except BadRecord as error:
            if "cannot be read from" in error.reason:
                damaged.append(error.key)
    assert damaged in ([f"coco_captions/train:{i}"] for i in range(4))
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"has 0 records, where 4 were prepared; copy it again"):
        Source("coco_captions", data_dir=tmp_path)
    shard.unlink()
    with pytest.raises(UserError, match=r"is missing, where 4 were prepared; copy it again"):
        Source("coco_captions", data_dir=tmp_path)


def test_pictures_are_decoded_as_everywhere_else(shared, tmp_path):
    """A prepared record decodes to the very pixels that the manifest gives."""
    pack = manifest.Source(shared / "data" / "flickr8k" / "captions_extra.jsonl", limit=5)
    features = {"image": tfds.features.Image(), "captions": tfds.features.Sequence(TEXT())}
    records = {
        i: {"image": pack.encoded(i)["image"], "captions": pack.captions(i)} for i in range(5)
    }
    prepared(tmp_path, "extra", features, records)
    source = Source("extra", data_dir=tmp_path)
    for i in range(5):
        assert np.array_equal(source[i]["image"], pack[i]["image"])
        assert source.captions(i) == pack.captions(i)
