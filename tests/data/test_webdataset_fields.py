"""What is read of a record: captions from text and JSON, classes, other fields, the picture."""

import json

import pytest
from shards import png, records, write_tar

from capjax.data.webdataset import Source
from capjax.errors import BadRecord, UserError


def one(tmp_path, members, **options):
    return Source(write_tar(tmp_path / "a.tar", members), **options)


CAPTIONS = {
    "one line": ("txt", {"txt": b" a dog \n"}, ["a dog"]),
    "byte order mark": ("txt", {"txt": b"\xef\xbb\xbfgr\xc3\xbcn"}, ["grün"]),
    "windows lines": ("txt:lines", {"txt": b"a dog\r\na cat\r\n"}, ["a dog", "a cat"]),
    "lines": ("txt:lines", {"txt": b"a dog\n\n a cat "}, ["a dog", "a cat"]),
    "joined": ("txt:joined", {"txt": b"a dog\n\n for sale "}, ["a dog for sale"]),
    "other extension": (".Caption", {"caption": b"a dog"}, ["a dog"]),
    "string": ("json:caption", {"json": b'{"caption": "a dog"}'}, ["a dog"]),
    "list": ("json:c", {"json": b'{"c": ["a dog", " ", "a cat"]}'}, ["a dog", "a cat"]),
    "several": (
        ["json:alt", "txt", "json:long"],
        {"json": b'{"alt": "alt", "long": ["l1", "l2"]}', "txt": b"text"},
        ["alt", "text", "l1", "l2"],
    ),
    "other json": ("meta.json:c", {"meta.json": b'{"c": "a dog"}'}, ["a dog"]),
    "none": (None, {"txt": b"not asked for"}, []),
}


@pytest.mark.parametrize("case", CAPTIONS, ids=lambda name: name.replace(" ", "-"))
def test_where_captions_stand(tmp_path, case):
    caption, sidecars, expected = CAPTIONS[case]
    members = {"0.png": png("red")} | {f"0.{name}": text for name, text in sidecars.items()}
    source = one(tmp_path, members, caption=caption)
    assert source.captions(0) == source[0]["captions"] == expected


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("txt:first", "what follows .txt is 'lines' or 'joined', not 'first'"),
        ("json", "names no field; write 'json:caption'"),
        ("json:", "names no caption"),
        ("", "names no caption"),
        ([], "names no caption; leave it out"),
        ([3], "is no string"),
    ],
)
def test_captions_that_cannot_be(tmp_path, caption, message):
    with pytest.raises(UserError, match=message):
        one(tmp_path, records(1), caption=caption)


BAD_SIDECARS = {
    "not utf-8": ("txt", {"txt": "café".encode("latin-1")}, r"its \.txt is not UTF-8 \(byte 4\)"),
    "blank": ("txt", {"txt": b" \n"}, r"its \.txt holds no caption"),
    "lines": ("txt", {"txt": b"a\nb"}, r"has 2 lines: say caption='txt:lines'.*'txt:joined'"),
    "no json": ("json:c", {"json": b"{"}, r"its \.json is not JSON"),
    "nested": ("json:c", {"json": b"[" * 100_000}, r"its \.json is not JSON"),
    "json utf-8": ("json:c", {"json": b'{"c": "\xff"}'}, r"its \.json is not UTF-8"),
    "json list": ("json:c", {"json": b"[1]"}, "is a JSON list, not an object"),
    "no field": ("json:c", {"json": b'{"caption": "a"}'}, "lacks the field 'c'; it has 'caption'"),
    "null": ("json:c", {"json": b'{"c": null}'}, "has 'c' of type NoneType"),
    "number": ("json:c", {"json": b'{"c": ["a", 3]}'}, "has 'c' of type list"),
    "no caption": ("json:c", {"json": b'{"c": ["", " "]}'}, "has no caption in 'c'"),
    "surrogate": ("json:c", {"json": b'{"c": "\\ud83d"}'}, "has half a character in 'c'"),
}


@pytest.mark.parametrize("case", BAD_SIDECARS, ids=lambda name: name.replace(" ", "-"))
def test_a_caption_that_cannot_be_read_is_a_bad_record(tmp_path, case):
    caption, sidecars, message = BAD_SIDECARS[case]
    members = {"0.png": png("red")} | {f"0.{name}": text for name, text in sidecars.items()}
    source = one(tmp_path, members, caption=caption)
    for read in (source.captions, source.encoded, source.__getitem__):
        with pytest.raises(BadRecord, match=message) as caught:
            read(0)
        assert caught.value.key == "a/0"


def test_classes_and_other_fields_stay_with_the_record(tmp_path):
    fields = {"caption": "x", "url": "http://a", "width": 6, "key": "other", "source": "web"}
    members = {
        "0.jpg": png("red"),
        "0.txt": b"a dog",
        "0.cls": b" 17\n",
        "0.json": json.dumps(fields).encode(),
    }
    record = one(tmp_path, members)[0]
    record.pop("image")
    assert record == {
        "key": "a/0",
        "captions": ["a dog"],
        "class_id": 17,
        "caption": "x",
        "url": "http://a",
        "width": 6,
    }
    assert "caption" not in one(tmp_path, members, caption="json:caption")[0]


@pytest.mark.parametrize("text", [b"dog", b"-1", b"1.0", b"\xb2", b"9999999999", "٣".encode()])
def test_a_class_that_is_no_number_is_a_bad_record(tmp_path, text):
    source = one(tmp_path, {"0.jpg": png("red"), "0.cls": text}, caption=None)
    with pytest.raises(BadRecord, match=r"its \.cls is"):
        source[0]


def test_a_chosen_picture_and_what_is_around_it(tmp_path):
    members = {"0.jpg": b"x", "0.seg.png": png("red"), "0.txt": b"a"}
    assert one(tmp_path, members).encoded(0)["image"] == b"x"
    assert one(tmp_path, members, image=".seg.png").encoded(0)["image"] == png("red")
    with pytest.raises(UserError, match=r"has a caption and no \.webp"):
        one(tmp_path, members, image="webp")
