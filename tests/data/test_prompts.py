"""Templates: ours, a user's file, and what is refused."""

import json

import pytest

from capjax.data import prompts
from capjax.errors import UserError


def test_ours_are_different_sentences_with_one_place():
    assert len(set(prompts.GENERAL)) == 20
    assert prompts.check(prompts.GENERAL) == prompts.GENERAL
    assert all(template.count("{}") == 1 for template in prompts.GENERAL)


def test_a_name_is_filled_in():
    assert prompts.fill("a photo of a {}.", "tabby {cat}") == "a photo of a tabby {cat}."
    assert prompts.fill("{0} and {}", "dog") == "{0} and dog"


def test_a_users_file(tmp_path):
    lines = tmp_path / "mine.txt"
    lines.write_text("ein Foto von {}.\n\n  {} im Schnee\n", encoding="utf-8")
    assert prompts.load(lines) == ("ein Foto von {}.", "{} im Schnee")
    (tmp_path / "mine.json").write_text(json.dumps(["{}!", "the {}"]))
    assert prompts.load(tmp_path / "mine.json") == ("{}!", "the {}")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "a {}\na photo of a cat\n", "'a photo of a cat' has no {} where"),
        ("a.txt", "\n \n", "there are none"),
        ("a.json", "[]", "there are none"),
        ("a.json", '{"a": 1}', "must be a JSON list of strings"),
        ("a.json", '["{}", 3]', "must be a JSON list of strings"),
        ("a.json", "[", "are not JSON"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        prompts.load(tmp_path / name)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the templates .*none.txt"):
        prompts.load(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 {}")
    with pytest.raises(UserError, match="not UTF-8"):
        prompts.load(tmp_path / "latin.txt")


def test_clips_own_templates_are_accepted(shared):
    file = shared / "data" / "imagenet_prompts" / "clip_imagenet_prompts.json"
    assert len(prompts.check(json.loads(file.read_text())["imagenet_templates"])) == 80
