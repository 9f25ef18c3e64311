"""Caption files: COCO's formats, mappings, JSON lines; and what can be wrong with them."""

import gzip
import json

import pytest

from capjax.errors import UserError
from capjax.metrics.caption_files import read_candidates, read_references

COCO = {
    "images": [{"id": 7}, {"id": 8}],
    "annotations": [
        {"id": 1, "image_id": 7, "caption": "a dog"},
        {"id": 2, "image_id": 8, "caption": "a cat"},
        {"id": 3, "image_id": 7, "caption": "the dog"},
    ],
}
REFERENCES = {"7": ["a dog", "the dog"], "8": ["a cat"]}


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="captions.json"):
        path = tmp_path / name
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else json.dumps(content)).encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return to_file


def lines(*entries):
    return "".join(json.dumps(entry) + "\n" for entry in entries)


@pytest.mark.parametrize(
    "content",
    [
        COCO,
        {"7": ["a dog", "the dog"], "8": "a cat"},
        lines(
            {"image_id": 7, "captions": ["a dog", "the dog"]}, {"image_id": 8, "caption": "a cat"}
        ),
        lines({"key": "7", "caption": "a dog"}, {"key": "7", "caption": "the dog"})
        + "\n"
        + lines({"image": "8", "captions": ["a cat"]}),
        COCO["annotations"],
    ],
)
def test_references_of_every_layout(write, content):
    assert read_references(write(content)) == REFERENCES


@pytest.mark.parametrize(
    "content",
    [
        [{"image_id": 7, "caption": "a dog"}, {"image_id": 8, "caption": "a cat"}],
        {"7": "a dog", "8": ["a cat"]},
        lines({"id": 7, "caption": "a dog"}, {"id": 8, "caption": "a cat"}),
    ],
)
def test_candidates_of_every_layout(write, content):
    assert read_candidates(write(content)) == {"": {"7": ["a dog"], "8": ["a cat"]}}


def test_one_line_is_a_line_and_not_a_mapping(write):
    path = write(lines({"image": "7", "caption": "a dog", "log_prob": -3.5}))
    assert read_candidates(path) == {"": {"7": ["a dog"]}}


def test_several_candidates_of_an_image_are_a_list(write):
    path = write([{"image_id": 7, "captions": ["a dog", "the dog"]}])
    assert read_candidates(path) == {"": {"7": ["a dog", "the dog"]}}


def test_each_guidance_scale_of_a_file_is_a_system(write):
    entries = [
        {"image": image, "guidance_scale": scale, "caption": f"{image} at {scale}"}
        for image in ("7", "8")
        for scale in (1.0, 1.5)
    ]
    assert read_candidates(write(lines(*entries))) == {
        "@1": {"7": ["7 at 1.0"], "8": ["8 at 1.0"]},
        "@1.5": {"7": ["7 at 1.5"], "8": ["8 at 1.5"]},
    }
    assert list(read_candidates(write(lines(entries[0])))) == [""]


def test_compressed_files_and_byte_order_marks(write):
    assert read_references(write(COCO, "captions.json.gz")) == REFERENCES
    assert read_references(write(b"\xef\xbb\xbf" + json.dumps(COCO).encode())) == REFERENCES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("[]", "has no captions"),
        (json.dumps(COCO)[:-9], "is no JSON .* is it complete"),
        (lines({"image_id": 7, "caption": "x"}) + '{"image_id": 8, "cap\n', "line 2 is no JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ('"text"', "entry 0 is a str"),
        ([["a dog"]], "entry 0 is a list"),
        ([{"image_id": 7}], "entry 0 has the fields image_id"),
        ([{"caption": "x"}], "entry 0 has the fields caption"),
        ([{"image_id": 7, "caption": "x", "captions": ["x"]}], "either a caption or a list"),
        ([{"image_id": 7, "caption": 3}], "caption of image '7' is a int"),
        ([{"image_id": 7, "captions": ["x", None]}], "caption of image '7' is a NoneType"),
        ({"7": []}, "image '7' has no caption"),
        ([{"image_id": None, "caption": "x"}], "image id is a NoneType"),
        ([{"image_id": 1.5, "caption": "x"}], "image id is a float"),
        ('{"7": "x", "7": "y"}', r"1 field or image names stand more than once \('7'\)"),
    ],
)
@pytest.mark.parametrize("read", [read_references, read_candidates])
def test_mistakes_are_named(write, content, message, read):
    with pytest.raises(UserError, match=message):
        read(write(content))


def test_mistakes_of_annotations_are_named(write):
    twice = {"annotations": [*COCO["annotations"], COCO["annotations"][0]]}
    with pytest.raises(UserError, match=r"1 annotation ids stand more than once \('1'\)"):
        read_references(write(twice))
    with pytest.raises(UserError, match=r"1 image ids stand more than once \('7'\)"):
        read_references(write({**COCO, "images": [{"id": 7}, {"id": 7}]}))
    more = [{"id": image} for image in (7, 8, 9, 10, 11, 12)]
    with pytest.raises(UserError, match=r"4 images have no caption \('9', '10', '11', \.\.\.\)"):
        read_references(write({**COCO, "images": more}))


def test_mistakes_of_candidates_are_named(write):
    entries = [{"image_id": image, "caption": "x"} for image in (1, 2, 3, 4, 1, 2, 3, 4)]
    with pytest.raises(UserError, match=r"4 image ids .* \('1', '2', '3', \.\.\.\).*as one list"):
        read_candidates(write(entries))
    with pytest.raises(UserError, match="guidance_scale of image '1' is no number"):
        read_candidates(write([{"image_id": 1, "caption": "x", "guidance_scale": "high"}]))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*absent\.json"):
        read_references(tmp_path / "absent.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_references(tmp_path)
