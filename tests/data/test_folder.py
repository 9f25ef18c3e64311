"""Pictures by path: order, what counts as a picture, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from capjax.data.folder import Source
from capjax.errors import BadRecord, UserError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("z.png", "b/a.JPG", "c.webp"):
        Image.fromarray(np.full((5, 7, 3), 200, np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("text")
    return tmp_path


def test_a_folder_stands_for_its_pictures_in_order(folder):
    source = Source([str(folder)])
    assert source.paths == [str(folder / name) for name in ("b/a.JPG", "c.webp", "z.png")]
    assert len(source) == 3
    assert source[2]["image"].shape == (5, 7, 3)
    assert (source[2]["key"], source.captions(2)) == (str(folder / "z.png"), [])


def test_a_file_is_taken_whatever_its_name_and_fails_alone(folder):
    source = Source([str(folder / "notes.txt"), str(folder / "z.png")])
    with pytest.raises(BadRecord, match=r"notes\.txt"):
        source[0]
    assert source[1]["image"].dtype == np.uint8


def test_what_is_not_there_is_refused(folder):
    with pytest.raises(UserError, match="no picture and no folder"):
        Source([str(folder / "none.png")])
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="holds no picture"):
        Source([str(folder / "empty")])
    with pytest.raises(UserError, match="given twice"):
        Source([str(folder), str(folder / "z.png")])
