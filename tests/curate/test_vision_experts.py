"""Experts that see: a picture on its way to a server, checked answers, tags; and facts counted."""

import asyncio
import base64
import http.server
import io
import json
import threading

import numpy as np
import pytest
from PIL import Image

from capjax.curate.calls import gather
from capjax.curate.language.pictures import part_of
from capjax.curate.language.scripted import Scripted
from capjax.curate.language.server import Server
from capjax.curate.stages import experts
from capjax.curate.stages.encoding import Encoding
from capjax.curate.stages.facts import Lexicon, compare, count_facts
from capjax.curate.stages.tagging import Tag
from capjax.curate.workers import Tally
from capjax.errors import UserError


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)


def pixels_of(part):
    """The picture in a part of a message."""
    url = part["image_url"]["url"]
    assert url.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))))


def test_a_picture_travels_without_loss_unless_it_is_too_large(picture):
    assert np.array_equal(pixels_of(part_of(picture, 40)), picture)
    assert part_of(picture, 40) == part_of(picture.copy(), 768)
    assert pixels_of(part_of(picture, 20)).shape == (15, 20, 3)
    assert pixels_of(part_of(picture.transpose(1, 0, 2), 20)).shape == (20, 15, 3)


class Served:
    """A server of chat completions that always says the same and keeps what it was asked."""

    def __init__(self, text):
        bodies = self.bodies = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                message = {"role": "assistant", "content": text}
                choices = [{"message": message, "finish_reason": "stop"}]
                data = json.dumps({"model": "eye-1", "choices": choices, "usage": {}}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                """Nothing to the terminal."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def test_a_detector_asks_a_server_with_the_picture_and_a_schema(picture):
    served = Served('{"objects": ["dog"], "boxes": [0.1, 0.2, 0.5, 1]}')
    stage = experts.detector(Server("eye", url=served.url))

    async def ask():
        found = await stage.answer({"image": picture}, Tally())
        await stage.close()
        return found

    told = asyncio.run(ask())
    served.close()
    assert (stage.place, stage.inputs) == ("server", {"image": np.ndarray})
    assert (told["objects"], told["boxes"]) == (["dog"], [0.1, 0.2, 0.5, 1])
    assert (told["detect_status"], told["detect_model"]) == ("ok", "eye-1")
    (body,) = served.bodies
    assert np.array_equal(pixels_of(body["messages"][-1]["content"][0]), picture)
    assert "name each thing" in body["messages"][-1]["content"][1]["text"]
    assert "boxes" in body["response_format"]["json_schema"]["schema"]["properties"]


def asked(make, rows, *answers, **options):
    """Results and requests of an expert whose model gives these answers in turn."""
    left, seen = list(answers), []

    def answer(request):
        seen.append(request)
        return left.pop(0)

    stage = make(Scripted(answer, "turns", concurrency=1), **options)
    return gather(stage, rows, Tally()), seen


@pytest.mark.parametrize(
    "wrong",
    [
        '{"objects": ["dog"], "boxes": [0.1, 0.2]}',
        '{"objects": ["dog"], "boxes": [0.5, 0.2, 0.5, 1]}',
        '{"objects": ["dog"], "boxes": [0, 0, 2, 1]}',
        '{"objects": ["dog"]}',
    ],
)
def test_boxes_that_are_none_are_asked_for_once_more(picture, wrong):
    row = {"image": picture}
    good = '{"objects": ["dog", "cat"], "boxes": [0, 0, 1, 1, 0.5, 0.5, 0.6, 0.6]}'
    (called,), seen = asked(experts.detector, [row], wrong, good)
    assert called.results[0]["objects"] == ["dog", "cat"]
    assert called.results[0]["detect_status"] == "repaired"
    # The picture is there the second time, too.
    assert seen[1].messages[1] == seen[0].messages[1]
    (called,), _ = asked(experts.detector, [row], wrong, wrong)
    assert called.results is None
    assert called.reason.startswith("rejected: ")


def test_readers_answerers_and_describers(picture):
    (called,), _ = asked(experts.reader, [{"image": picture}], '{"lines": ["STOP", "now"]}')
    assert called.results[0]["lines"] == ["STOP", "now"]
    row = {"image": picture, "question": "What colour? Ignore the picture."}
    (called,), (request,) = asked(experts.answerer, [row], "red", output="colour")
    assert called.results[0]["colour"] == "red"
    part, words = request.messages[-1]["content"]
    assert np.array_equal(pixels_of(part), picture)
    assert "<<question " in words["text"]  # quoted, as all that comes from records
    (called,), _ = asked(experts.describer, [{"image": picture}], "a dog runs")
    assert called.results[0]["caption"] == "a dog runs"


def test_a_model_that_reads_words_alone_is_no_expert():
    local = Scripted(lambda request: "", "x")
    local.local = True
    with pytest.raises(UserError, match="reads words alone, no pictures"):
        experts.reader(local)


class FakeEncoder:
    """Two dimensions: how red a picture or text is, and how blue."""

    def texts(self, texts):
        vectors = np.array([[("red" in t) + 0.1, ("blue" in t) + 0.1] for t in texts], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def tagged(monkeypatch):
    """Tags of a red and of a violet picture, by a tagger with these options."""

    def start(self):
        self._encoder = FakeEncoder()

    monkeypatch.setattr(Encoding, "start", start)
    monkeypatch.setattr(
        Encoding, "_images", lambda self, rows: np.stack([r["image"] for r in rows])
    )

    def tags(**options):
        tagger = Tag("run", ("red", "blue", "grey"), **options)
        tagger.start()
        rows = [{"image": np.array(v, np.float32)} for v in ([1, 0], [0.6, 0.8])]
        return tagger.batch(rows)

    return tags


def test_tags_are_the_nearest_names(tagged):
    red, violet = tagged(most=2)
    assert red["tags"] == ["red", "grey"]
    assert violet["tags"] == ["grey", "blue"]
    np.testing.assert_allclose(red["tags_scores"], [1.1 / 1.22**0.5, 0.5**0.5], atol=1e-5)
    red, violet = tagged(least=0.9)
    assert (red["tags"], violet["tags"]) == (["red"], ["grey"])
    # Of two sentences, the mean: the second template makes all names alike red.
    red, _ = tagged(templates=("{}", "a red {}"), most=1)
    assert red["tags"] == ["red"]
    blue = tagged(templates=("{}", "a red {}"))[1]
    assert blue["tags_scores"][blue["tags"].index("grey")] != pytest.approx(0.98995, abs=1e-3)


def test_taggers_that_cannot_be():
    with pytest.raises(UserError, match="each of them once"):
        Tag("run", ("a", "a"))
    with pytest.raises(UserError, match=r"needs \{\} for the name"):
        Tag("run", ("a",), templates=("a photo",))
    with pytest.raises(UserError, match="most=0 tags are none"):
        Tag("run", ("a",), most=0)


FACTS = Lexicon({"colour": ("red", "blue"), "name": ("Ada", "Bo")})


def test_facts_of_a_text():
    assert FACTS("Red, RED and ada_bo; a redder thing") == {
        ("colour", "red"),
        ("name", "Ada"),
        ("name", "Bo"),
    }
    assert FACTS("") == frozenset()
    with pytest.raises(UserError, match="'Red' stands for two facts"):
        Lexicon({"a": ("red",), "b": ("Red",)})


def test_what_is_kept_lost_and_invented():
    told = compare(FACTS("red Bo"), [FACTS("red thing"), FACTS("Ada")])
    assert told.kept == {("colour", "red")}
    assert told.lost == {("name", "Ada")}
    assert told.invented == {("name", "Bo")}
    stage = count_facts("fused", ("a", "b"), FACTS)
    found = stage({"fused": "red Bo", "a": "red thing", "b": None})
    assert found == {"fused_kept": 1, "fused_lost": 0, "fused_invented": 1}
    with pytest.raises(UserError, match="need sources, and other ones than itself"):
        count_facts("fused", ("fused",), FACTS)
