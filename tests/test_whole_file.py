"""A file is there whole or not at all."""

import pytest

from capjax.errors import UserError
from capjax.whole_file import whole_file


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "numbers.txt"
    with whole_file(path) as file:
        file.write("é 1")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "é 1"
    with whole_file(path, "wb") as file:
        file.write(b"2")
    assert path.read_bytes() == b"2"
    assert list(tmp_path.iterdir()) == [path]


def test_what_stood_there_survives_a_failure(tmp_path):
    path = tmp_path / "numbers.txt"
    path.write_text("before")

    def fail_half_way():
        with whole_file(path) as file:
            file.write("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with (
        pytest.raises(UserError, match=r"cannot write .*nowhere"),
        whole_file(tmp_path / "nowhere" / "f"),
    ):
        pytest.fail("the block must not run")


def test_a_failure_to_read_is_not_taken_for_one_to_write(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "out"):
        (tmp_path / "absent").read_text()
