"""The HTML page: well-formed, self-contained, escaped, and showing every picture and caption."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from capjax.report import page

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Checks the nesting of tags, and collects tags, text, and what is marked."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.texts, self.marked = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if "mark" in self.open and "article" in self.open:
            self.marked.append(data)

    @property
    def text(self):
        return "".join(text for text in self.texts)

    def images(self):
        return [attributes for tag, attributes in self.tags if tag == "img"]


def decoded(attributes):
    head, data = attributes["src"].split(",", 1)
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))).convert("RGB"))


def example(captions, image=None, key="scene 1", references=("a shape",)):
    return {
        "key": key,
        "image": np.zeros((32, 32, 3), np.uint8) if image is None else image,
        "references": list(references),
        "captions": [
            {"guidance_scale": scale, "caption": caption, "truncated": scale == 4.0}
            for scale, caption in captions.items()
        ],
    }


@pytest.fixture
def render(tmp_path, rows):
    """Writes a page and parses it: (parsed page, its HTML)."""
    Image.new("RGB", (15, 6), "blue").save(tmp_path / "plot.png")

    def write(*examples, title="Guidance sweep", **results):
        path = tmp_path / "new" / "page.html"
        page.write(path, {"title": title, "rows": rows, **results}, examples, tmp_path / "plot.png")
        html = path.read_text(encoding="utf-8")
        return Page(html), html

    write.plot = tmp_path / "plot.png"
    return write


def test_the_page_holds_table_plot_pictures_settings_and_notes(render):
    image = np.random.default_rng(0).integers(0, 256, (32, 24, 3), dtype=np.uint8)
    parsed, html = render(
        example({1.0: "a shape", 2.0: "a red square", 4.0: "red red"}, image),
        settings={"model": {"width": 64}},
        notes=["500 pictures."],
    )
    assert html.startswith("<!doctype html>")
    for text in ("Guidance sweep", "126.1", "44.6", "0.775", "500 pictures.", '"width": 64',
                 "scene 1", "a shape", "γ 2"):  # fmt: skip
        assert text in parsed.text
    plot, picture = parsed.images()
    assert base64.b64decode(plot["src"].split(",")[1]) == render.plot.read_bytes()
    np.testing.assert_array_equal(decoded(picture), image)
    assert picture["class"] == "crisp"
    assert (int(picture["width"]), int(picture["height"])) == (24 * 6, 32 * 6)


def test_the_page_is_self_contained(render):
    parsed, html = render(example({1.0: "see http://example.com"}))
    for tag, attributes in parsed.tags:
        assert tag not in ("script", "link", "iframe", "object", "base")
        for name in ("href", "srcset", "action", "data", "style", "poster"):
            assert name not in attributes
        assert attributes.get("src", "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in html
    assert "@import" not in html


def test_everything_that_is_data_is_escaped(render):
    attack = '<script>alert("1")</script>\'"&amp;'
    parsed, html = render(
        example({1.0: attack, 2.0: "x " + attack}, key=attack, references=[attack]),
        title=attack,
        notes=[attack],
        settings={attack: attack},
    )
    assert "<script" not in html
    assert (
        parsed.text.count(attack) == 1 + 1 + 1 + 1 + 1 + 2
    )  # title twice, note, key, ref, captions
    assert parsed.images()[1]["alt"] == attack


def test_words_that_differ_from_gamma_1_are_marked(render):
    parsed, _ = render(
        example({2.0: "a red square on the left", 1.0: "a shape on the right", 3.0: "a shape"})
    )
    assert parsed.marked == ["red square", "left"]


def test_without_gamma_1_the_lowest_scale_is_the_measure(render):
    parsed, _ = render(example({1.5: "a shape", 3.0: "a square"}))
    assert parsed.marked == ["square"]


@pytest.mark.parametrize(
    ("words", "base", "expected"),
    [
        ("a b c", "a b c", [0, 0, 0]),
        ("b a", "a b", [0, 1]),
        ("a a b", "a b", [0, 1, 0]),
        ("x y", "", [1, 1]),
        ("", "a", []),
    ],
)
def test_differing_words(words, base, expected):
    new = page.differing(words.split(), base.split())
    assert len(new) == len(expected)
    assert sum(new) == sum(expected)


def test_truncated_and_empty_captions_are_flagged(render):
    parsed, html = render(example({1.0: "a shape", 2.0: "", 4.0: "a a a"}))
    assert html.count('class="flag">truncated<') == 1
    assert "(empty)" in parsed.text


def test_large_pictures_are_reduced_small_ones_kept(render):
    large = np.full((900, 1200, 3), [200, 30, 30], np.uint8)
    parsed, html = render(example({1.0: "a"}, large), example({1.0: "a"}, large[:160, :160]))
    _, reduced, kept = parsed.images()
    assert decoded(reduced).shape == (312, 416, 3)
    assert decoded(kept).shape == (160, 160, 3)
    np.testing.assert_allclose(decoded(reduced).mean((0, 1)), [200, 30, 30], atol=2)
    assert "class" not in reduced
    assert (reduced["width"], reduced["height"]) == ("312", "234")
    assert len(html) < 300_000


def test_a_page_without_examples_has_no_grid(render):
    parsed, _ = render()
    assert len(parsed.images()) == 1
    assert "Pictures and their captions" not in parsed.text


def test_the_best_of_each_column_is_bold(render):
    _, html = render()
    for value in ("36.1", "126.1", "0.808", "49.4"):
        assert f'<td class="best">{value}</td>' in html
    assert html.count('class="best"') == 6  # 0.808 is reached twice
