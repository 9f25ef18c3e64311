"""Stages that do not fit are told before anything runs; content keys tell apart what differs."""

import numpy as np
import pytest
from curating import COUNT, FIRST, pipeline

from capjax.curate import pipeline as pipelines
from capjax.curate.content import content_key, stage_key
from capjax.curate.pipeline import Pipeline
from capjax.curate.stage import Stage, as_results
from capjax.errors import UserError


def nothing(**fields):
    return {}


def test_a_missing_field_is_named_with_its_stage():
    reads = Stage("judge", nothing, {"captoin": str})
    with pytest.raises(UserError, match=r"stage 'judge' reads the field 'captoin'.*'caption'\?"):
        pipeline(reads)


def test_a_field_that_comes_later_is_missing_too():
    with pytest.raises(UserError, match="stage 'count' reads the field 'caption'"):
        Pipeline("test", (COUNT, FIRST), ("key",), source={"key": str, "captions": list[str]})


def test_a_field_of_another_type():
    reads = Stage("judge", nothing, {"words": str})
    with pytest.raises(UserError, match="'words' as str, and it is int from 'count'"):
        pipeline(COUNT, reads)


@pytest.mark.parametrize(
    ("columns", "told"),
    [(("key", "fused"), "no stage gives"), (("key", "image"), "cannot be written")],
)
def test_columns_that_cannot_be_written(columns, told):
    with pytest.raises(UserError, match=told):
        Pipeline("test", (), columns, source={"key": str, "image": np.ndarray})


def test_two_stages_of_one_name():
    with pytest.raises(UserError, match="two stages called 'count'"):
        pipeline(COUNT, COUNT)


def test_a_picture_made_before_a_stage_of_all_records_cannot_be_kept():
    class All:
        name, version, place, cached, params = "all", "1", "corpus", False, {}
        inputs, outputs = {"caption": str}, {}

    crop = Stage("crop", nothing, {"image": np.ndarray}, {"patch": np.ndarray})
    uses = Stage("uses", nothing, {"patch": np.ndarray})
    source = {"key": str, "image": np.ndarray, "caption": str}
    with pytest.raises(UserError, match="'patch' of type ndarray is needed behind stage 'all'"):
        Pipeline("test", (crop, All(), uses), ("key",), source=source)
    own = Stage("own", nothing, {"image": np.ndarray})
    Pipeline("test", (crop, All(), own), ("key",), source=source)  # the source's can be read again


def test_params_and_results_are_checked():
    with pytest.raises(UserError, match="params must be JSON"):
        pipeline(Stage("odd", nothing, {}, params={"x": {1, 2}}))
    with pytest.raises(UserError, match="did not give the output 'words'"):
        as_results(COUNT, {})
    with pytest.raises(UserError, match="does not declare the output 'more'"):
        as_results(COUNT, {"words": 1, "more": 2})
    with pytest.raises(UserError, match="'words' is declared as int and is a str"):
        as_results(COUNT, {"words": "1"})
    assert as_results(COUNT, {"words": np.int64(3)}) == [{"words": 3}]
    assert as_results(COUNT, None) == []
    assert as_results(COUNT, [{"words": 1}, {"words": None}]) == [{"words": 1}, {"words": None}]


def test_a_pipeline_file(tmp_path):
    path = tmp_path / "p.py"
    path.write_text("x = (\n")
    with pytest.raises(UserError, match="line 1"):
        pipelines.load(str(path))
    path.write_text("def get_pipeline(arg):\n    return 3\n")
    with pytest.raises(UserError, match="gave a int, not a Pipeline"):
        pipelines.load(str(path))
    with pytest.raises(UserError, match="does not exist"):
        pipelines.load(str(tmp_path / "q.py"))


def test_every_pipeline_of_the_repository_loads(monkeypatch):
    from pathlib import Path

    root = Path(__file__).parents[2]
    found = sorted((root / "configs" / "curate").glob("*.py"))
    assert found
    for path in found:
        if path.stem == "rank_fuse":  # its models are runs, which a checkout does not have
            with pytest.raises(UserError, match="train it first"):
                pipelines.load(str(path))
        else:
            assert pipelines.load(str(path)).stages


def test_content_keys():
    key = stage_key(COUNT)
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    values = [
        1,
        1.0,
        "1",
        True,
        None,
        [1],
        [[1]],
        {"a": 1},
        b"1",
        picture,
        picture.reshape(2, 3, 2),
    ]
    values += [picture.astype(np.int8), picture + 1, "", [], {}]
    keys = {content_key(key, {"x": value}) for value in values}
    assert len(keys) == len(values)
    assert content_key(key, {"x": picture.copy()}) in keys
    assert content_key(key, {"a": 1, "b": 2}) == content_key(key, {"b": 2, "a": 1})
    others = [
        Stage("count", COUNT.function, {"caption": str}, {"words": int}, **more)
        for more in ({"version": "2"}, {"params": {"x": 1}}, {"params": {"x": 2}})
    ]
    assert len({key, *map(stage_key, others)}) == 4
    with pytest.raises(UserError, match="whose content has no key"):
        content_key(key, {"x": object()})
