"""What every source of the training loop must do, tried on each of them alike.

A source is listed with a section of a config, as users name it; some are made from real Flickr8k.
"""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from capjax.config import instantiate
from capjax.data import shards
from capjax.data.encoded import encoded
from capjax.data.loader import Examples, TrainLoader
from capjax.data.prepare import prepare
from capjax.data.tokenizer import train
from capjax.errors import BadRecord

COUNT = 24
SCENES = {"name": "capjax.data.scenes", "seed": 3, "image_size": 16, "size": COUNT}
BATCH, LENGTH = 6, 48


@pytest.fixture(scope="session")
def sections(tmp_path_factory, shared):
    """Name -> section of a source; all but the mixture have COUNT records or a multiple."""
    folder = tmp_path_factory.mktemp("sources")
    flickr8k = {
        "name": "capjax.data.manifest",
        "path": str(shared / "data" / "flickr8k" / "captions_dev.jsonl"),
        "limit": COUNT,
    }
    for form in shards.WRITERS:
        prepare(flickr8k, folder / form, form, records_per_shard=10, progress=False)
    pictures = folder / "pictures"
    pictures.mkdir()
    lines = []
    source = instantiate(flickr8k, "Source")
    for index in range(COUNT):
        record = encoded(source, index)
        (pictures / record["key"]).write_bytes(record["image"])
        lines.append(
            {
                "image": record["key"],
                "captions": record["captions"],
                "label": ["dog", "cat"][index % 2],
            }
        )
    (pictures / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    own = {"name": "capjax.data.manifest", "path": str(pictures / "m.jsonl")}
    return {
        "scenes": SCENES,
        "manifest of tars": flickr8k,
        "manifest of files": own,
        "webdataset": {
            "name": "capjax.data.webdataset",
            "shards": str(folder / "tar" / "*.tar"),
            "caption": "json:captions",
        },
        "parquet": {"name": "capjax.data.parquet", "paths": str(folder / "parquet" / "*.parquet")},
        "array_record": {
            "name": "capjax.data.array_records",
            "files": str(folder / "array_record" / "*.array_record"),
        },
        "each caption": {"name": "capjax.data.each_caption", "data": own},
        "prompted": {"name": "capjax.data.prompted", "data": own, "classes": ["cat", "dog"]},
        "mismatched": {"name": "capjax.data.mismatched", "data": own, "share": 0.5},
        "mixture": {"name": "capjax.data.mixture", "sources": {"a": SCENES, "b": own}},
    }


NAMES = (
    "scenes",
    "manifest of tars",
    "manifest of files",
    "webdataset",
    "parquet",
    "array_record",
    "each caption",
    "prompted",
    "mismatched",
    "mixture",
)


@pytest.fixture(params=NAMES)
def source(request, sections):
    return instantiate(sections[request.param], "Source")


@pytest.fixture(scope="session")
def tokenizer():
    return train(["a dog runs", "two cats sit on the grass", "a red circle"] * 2, 60, LENGTH)


def same(first, second):
    """Whether two records are the same."""
    return (
        first["key"] == second["key"]
        and list(first["captions"]) == list(second["captions"])
        and np.array_equal(first["image"], second["image"])
    )


def test_the_list_is_complete(sections):
    assert sorted(sections) == sorted(NAMES)


def test_records_are_where_they_are(source):
    """Length, random access in any order, the same each time, keys of their own."""
    count = len(source)
    assert count % COUNT == 0
    order = np.random.default_rng(0).permutation(count)[:30]
    first = {int(i): source[int(i)] for i in order}
    for i in reversed(order.tolist()):
        record = source[i]
        assert same(record, first[i])
        assert record["image"].dtype == np.uint8
        assert record["image"].ndim == 3
        assert all(isinstance(caption, str) and caption for caption in record["captions"])
    keys = [source[i]["key"] for i in range(count)]
    assert len(set(keys)) == count
    with pytest.raises(IndexError):
        source[count]


def test_captions_are_told_without_the_picture(source):
    if hasattr(source, "classes"):
        return  # prompted: what class a record has is not known without it
    for i in (0, len(source) - 1):
        assert list(source.captions(i)) == list(source[i]["captions"])


def test_it_travels_to_another_process(source, tmp_path):
    (tmp_path / "source.pickle").write_bytes(pickle.dumps(source))
    script = (
        "import pickle,sys,zlib;s=pickle.load(open(sys.argv[1],'rb'));"
        "print([(s[i]['key'],zlib.crc32(s[i]['image'].tobytes())) for i in (0,5,len(s)-1)])"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "source.pickle")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    import zlib

    places = (0, 5, len(source) - 1)
    mine = [(source[i]["key"], zlib.crc32(source[i]["image"].tobytes())) for i in places]
    assert told.strip() == str(mine)


def stream(source, tokenizer, index=0, count=1, batch=BATCH):
    examples = Examples(
        source,
        tokenizer,
        seed=1,
        batch_size=batch,
        image_size=16,
        resize="squash",
        truncate=True,
        process_index=index,
        process_count=count,
    )
    return TrainLoader(examples, num_threads=4)


def test_the_stream_resumes_at_every_position(source, tokenizer):
    whole, states = stream(source, tokenizer), []
    batches = []
    for _ in range(8):
        states.append(whole.state())
        batches.append(next(whole))
    for position in range(8):
        other = stream(source, tokenizer)
        other.restore(states[position])
        batch = next(other)
        assert batch["key"] == batches[position]["key"]
        np.testing.assert_array_equal(batch["image"], batches[position]["image"])
        np.testing.assert_array_equal(batch["tokens"], batches[position]["tokens"])
        other.close()
    whole.close()


@pytest.mark.parametrize("hosts", [2, 3])
def test_hosts_share_an_epoch_without_loss(source, tokenizer, hosts):
    """Together they see what one sees, and of a source alone every record once an epoch."""
    one = stream(source, tokenizer)
    parts = [stream(source, tokenizer, index, hosts) for index in range(hosts)]
    seen = []
    for _ in range(len(source) // BATCH):
        expected = next(one)
        together = [next(part) for part in parts]
        keys = [key for batch in together for key in batch["key"]]
        assert keys == expected["key"]
        np.testing.assert_array_equal(
            np.concatenate([batch["image"] for batch in together]), expected["image"]
        )
        seen += keys
    if not hasattr(source, "names"):  # a mixture draws its sources
        assert sorted(seen) == sorted(source[i]["key"] for i in range(len(source)))
    for each in (one, *parts):
        each.close()


@pytest.mark.parametrize("name", ["webdataset", "parquet", "array_record", "manifest of files"])
def test_forms_of_a_set_are_the_same_set(sections, tokenizer, name):
    """Real pictures, byte for byte; and training on each gives the same batches."""
    before = instantiate(sections["manifest of tars"], "Source")
    after = instantiate(sections[name], "Source")
    for i in range(COUNT):
        ours, theirs = encoded(after, i), encoded(before, i)
        assert ours["image"] == theirs["image"]
        assert list(ours["captions"]) == list(theirs["captions"])
    if name == "parquet":
        return  # its order is its own where row groups are large
    first, second = (stream(each, tokenizer) for each in (before, after))
    for _ in range(6):
        a, b = next(first), next(second)
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["tokens"], b["tokens"])


@pytest.mark.parametrize("form", [*shards.WRITERS, "files"])
def test_a_picture_that_cannot_be_decoded_is_one_bad_record(tmp_path, tokenizer, form):
    def records():
        good = instantiate(SCENES, "Source")
        for i in range(COUNT):
            record = encoded(good, i)
            yield record | {"image": b"\xff\xd8\xff not a picture"} if i == 7 else record

    if form == "files":
        lines = []
        for record in records():
            (tmp_path / f"{record['key'].replace('/', '_')}.png").write_bytes(record["image"])
            name = f"{record['key'].replace('/', '_')}.png"
            lines.append(json.dumps({"image": name, "captions": record["captions"]}))
        (tmp_path / "m.jsonl").write_text("\n".join(lines))
        section = {"name": "capjax.data.manifest", "path": str(tmp_path / "m.jsonl")}
    else:
        path = tmp_path / f"part.{form}"
        shards.WRITERS[form](path, records(), 0)
        section = {
            "tar": {
                "name": "capjax.data.webdataset",
                "caption": "json:captions",
                "shards": str(path),
            },
            "parquet": {"name": "capjax.data.parquet", "paths": str(path)},
            "array_record": {"name": "capjax.data.array_records", "files": str(path)},
        }[form]
    source = instantiate(section, "Source")
    assert len(source) == COUNT
    with pytest.raises(BadRecord, match="cannot be decoded"):
        source[7]
    assert source[8]["image"].shape == (16, 16, 3)
    examples = Examples(
        source, tokenizer, seed=1, batch_size=BATCH, image_size=16, resize="squash", truncate=True
    )
    loader = TrainLoader(examples, num_threads=2, max_bad_fraction=0.05)
    for _ in range(8):
        next(loader)
    assert loader.bad_records == 1
