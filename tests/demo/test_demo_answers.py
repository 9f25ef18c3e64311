"""What the page answers, and how the command ends: without Gradio and without a browser."""

import io
import re
import socket
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capjax import runs
from capjax.data import images
from capjax.demo import __main__ as command
from capjax.demo import page
from capjax.demo.answers import Answers, Search
from capjax.demo.examples import COUNT, write_examples
from capjax.errors import UserError


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "a picture.png"
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)


def call(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["capjax.demo", *map(str, args)])
    return command.main()


def cards(answer):
    """The texts of the two cards."""
    return [
        re.sub(r"<.*?>", "", card) for card in re.findall('<p class="caption">(.*?)</p>', answer)
    ]


def test_an_answer_has_the_captioners_captions(answers, picture):
    answer = answers(picture, 2.0)
    image = images.resize(images.decode(Path(picture).read_bytes()), 32, "squash")
    captioner = answers.captioner
    again = np.repeat(captioner.encode(image[None]).context, 5, 0)
    written = captioner.write(again, np.array([1, 2, 0, 1, 2.0]))
    assert len({caption.text for caption in written}) > 1
    for text, caption in zip(cards(answer.captions), written, strict=False):
        shown = text.removesuffix(" end")
        assert shown == caption.text
        assert (shown != text) == (not caption.truncated)
    assert [f"γ = {scale:g}</dt>" in answer.captions for scale in (0, 1, 2, 3)] == [1, 1, 1, 0]
    assert answer.numbers.count("<tr>") > 1


def test_a_picture_is_encoded_once_and_no_scale_is_compiled_for(answers, picture, monkeypatch):
    answers(picture, 2.0)
    encoded, compiled = [], []
    monkeypatch.setattr(answers.captioner, "encode", lambda *_: encoded.append(1))
    from capjax.decode import explain, search

    before = (search._search._cache_size(), explain._read._cache_size())
    shown = {answers(picture, scale).captions for scale in (0.0, 0.7, 1.0, 2.0, 9.9)}
    compiled = (search._search._cache_size(), explain._read._cache_size())
    assert len(shown) == 5
    assert encoded == []
    assert compiled == before


def test_notes_say_what_to_know(answers, picture, recwarn):
    assert "Above γ = 4 captions are likely to degenerate" in answers(picture, 5.0).captions
    assert "degenerate" not in answers(picture, 4.0).captions
    assert not [w for w in recwarn if "guidance_scale" in str(w.message)]


def test_an_untrained_branch_is_told_of(run_directory):
    run = runs.open_run(run_directory)
    with run.config.unlocked():
        run.config.task.conditioning_dropout = 0.0
    (note,) = Answers(run, (1.0, 2.0)).notes
    assert note.startswith("This run was trained with conditioning_dropout=0")


def test_searches():
    sampling = Search("sampling", temperature=0.5, top_p=0.9, num_beams=3, draw=2)
    options = sampling.options()
    assert (options.sample, options.temperature, options.top_p, options.num_beams) == (
        True, 0.5, 0.9, 1,
    )  # fmt: skip
    assert sampling.key is not None
    beams = Search("beams", temperature=0.5, num_beams=3)
    assert (beams.options().num_beams, beams.options().sample, beams.key) == (3, False, None)
    assert Search(temperature=0.5).options() == Search().options()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"no picture", "it is none of JPEG, PNG"),
        ("cut", "cannot be decoded"),
        (None, "No such file"),
    ],
)
def test_what_is_no_picture_is_a_sentence(answers, tmp_path, data, reason):
    path = tmp_path / "my <cat>.jpg"
    if data == "cut":
        whole = io.BytesIO()
        Image.new("RGB", (64, 64)).save(whole, "JPEG")
        data = whole.getvalue()[:200]
    if data is not None:
        path.write_bytes(data)
    shown, numbers = answers(str(path), 2.0)
    assert 'role="alert">my &lt;cat&gt;.jpg ' in shown
    assert reason in shown
    assert shown.endswith("choose another picture</p></div>")
    assert numbers == ""


def test_without_a_picture_it_asks_for_one(answers):
    assert "Drop a picture" in answers(None, 2.0).captions


def test_examples_are_the_runs_own_or_those_that_are_named(run_directory, tmp_path, picture):
    config = runs.open_run(run_directory).config
    own = write_examples(config, [], tmp_path)
    assert len(own) == COUNT
    assert len({path.read_bytes() for path in own}) > 1
    assert own[0].name == "0-scenes-0-val-00000000.png"
    (named,) = write_examples(config, [picture], tmp_path)
    np.testing.assert_array_equal(Image.open(named), Image.open(picture))
    with config.unlocked():
        config.evals.guidance.data = dict(name="capjax.data.manifest", path="gone.jsonl")
        config.data.train.size = 2
    assert len(write_examples(config, [], tmp_path)) == 2, "its training data instead"
    with config.unlocked():
        config.data.train = dict(name="capjax.data.manifest", path="gone.jsonl")
    assert write_examples(config, [], tmp_path) == []
    with pytest.raises(UserError, match="there is no picture"):
        write_examples(config, ["gone.png"], tmp_path)


def test_what_is_no_captioner_is_refused(run_directory):
    run = runs.open_run(run_directory)
    blind = types.SimpleNamespace(decode_step=None)
    for model, said in ((object(), "writes no captions"), (blind, "reads no pictures")):
        fields = {**run.__dict__, "model": model}
        with pytest.raises(UserError, match=said):
            Answers(runs.Run(**fields), (1.0, 2.0))


def test_a_port_that_is_taken_and_other_mistakes(run_directory, monkeypatch):
    monkeypatch.setattr(page, "gradio", lambda: None)  # it is not needed, and slow to import
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {taken} of 127.0.0.1 is taken.* --port 0"):
            call(monkeypatch, "--checkpoint", run_directory, "--port", taken)
    for args, said in (
        (["--host", "192.0.2.1"], "cannot listen at '192.0.2.1'"),
        (["--port", "70000"], "--port is 70000"),
        (["--max-gamma", "0.5"], "--max-gamma is 0.5"),
        (["--max-gamma", "inf"], "--max-gamma is inf"),
        (["--scales", "1,x"], "cannot read guidance scales"),
        (["--scales", "-1"], "gamma"),
        (["--checkpoint", "gone", "--port", "0"], "'gone' is not a run directory"),
    ):
        with pytest.raises(UserError, match=re.escape(said)):
            call(monkeypatch, "--checkpoint", run_directory, *args)
    assert command.free_port("127.0.0.1", 0) > 1023


def test_without_gradio_it_names_the_extra(run_directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"pip install 'capjax\[demo\]'"):
        page.gradio()
    with pytest.raises(UserError, match=r"pip install 'capjax\[demo\]'"):
        call(monkeypatch, "--checkpoint", run_directory)


def test_help_says_how_to_begin(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="0"):
        call(monkeypatch, "--help")
    told = capsys.readouterr().out
    for said in ("python -m capjax.demo --checkpoint", "no picture leaves it", "--max-gamma"):
        assert said in told
