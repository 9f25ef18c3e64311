"""The notebooks run from first to last cell, on a small run and on pictures of one's own."""

import json
import pathlib

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from capjax.data.scenes import Source

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "colabs").glob("*.ipynb"))


def cells(name):
    return json.loads((ROOT / "colabs" / f"{name}.ipynb").read_text())["cells"]


def execute(name, constants):
    """The code cells in one namespace; `constants`: {line: what stands in its place}."""
    code = ["".join(cell["source"]) for cell in cells(name) if cell["cell_type"] == "code"]
    for line, other in constants.items():
        found = [text for text in code if line in text.splitlines()]
        assert len(found) == 1, f"{name}: {line}"
        code[code.index(found[0])] = found[0].replace(line, other, 1)
    namespace = {"__name__": "__main__"}
    for number, text in enumerate(code):
        exec(compile(text, f"{name}, code cell {number}", "exec"), namespace)
    return namespace


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder to work in, with four photographs, so to speak."""
    folder = tmp_path_factory.mktemp("colab")
    (folder / "photos").mkdir()
    for i, side in enumerate((40, 64, 90, 48)):
        Image.fromarray(Source(image_size=side)[i]["image"]).save(folder / "photos" / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    """What the first notebook leaves behind."""
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        line = next(
            line
            for cell in cells("guiding")
            for line in "".join(cell["source"]).splitlines()
            if line.startswith("SMALL = False")
        )
        yield execute("guiding", {line: "SMALL = True"})
    plt.close("all")
    matplotlib.use(before)


def test_training_captions_and_the_frontier(trained, folder):
    assert trained["run"].step == trained["config"].steps
    assert len(trained["captions"]) == trained["PICTURES"]
    assert [row["guidance_scale"] for row in trained["sweep"].rows] == [1.0, 2.0]
    assert [explained.scale for explained in trained["explain"](
        trained["captioner"], trained["context"][:1], (1.0, 3.0))] == [1.0, 3.0]  # fmt: skip
    assert (folder / "runs" / "colab" / "pareto.png").stat().st_size > 10_000


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_captions_of_pictures_of_your_own(trained, folder, monkeypatch):
    monkeypatch.chdir(folder)
    constants = {
        'CHECKPOINT = "runs/captioner"  # a run directory': 'CHECKPOINT = "runs/colab"',
        "BATCH = 16": "BATCH = 64",  # for which all is compiled
    }
    found = execute("caption_your_images", constants)
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    names = [f"photos/{i}.png" for i in range(4) for _ in range(2)]
    assert [row["image"] for row in rows] == names
    assert [row["guidance_scale"] for row in rows] == [1.0, 2.0] * 4
    # The last picture's caption is its own, not that of what fills up the batch.
    own = {"image": np.asarray(Image.open(folder / "photos" / "3.png"))}
    sized = found["stack_images"]([own], found["BATCH"], found["side"], found["rule"])
    context = found["captioner"].encode(sized).context
    assert found["captioner"].write(context, 2.0)[0].text == rows[-1]["caption"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_clean(path):
    """Without outputs, and with an installing cell before all other code."""
    book = json.loads(path.read_text())
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert 'find_spec("capjax")' in "".join(code[0]["source"])
    assert book["cells"][0]["cell_type"] == "markdown"
    assert (book["nbformat"], book["metadata"]["kernelspec"]["name"]) == (4, "python3")
