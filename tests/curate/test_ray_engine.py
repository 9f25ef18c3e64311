"""Ray Data fills the folder that the local engine fills, byte for byte, also when it goes on."""

import json
from pathlib import Path

import pytest

pytest.importorskip("ray.data", reason="the second engine is tested where Ray is installed")

from capjax.curate import local
from capjax.curate.cache import Quota
from capjax.curate.on_ray import run_on_ray
from capjax.curate.pipeline import load
from capjax.data.spec import open_spec

PIPELINE = Path(__file__).parents[2] / "configs" / "curate" / "clean_captions.py"


def parts(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*.parquet")}


def test_both_engines_give_the_same_files(tmp_path):
    fields = {"size": 200, "image_size": 16, "captions": {"human": 2}}
    path = tmp_path / "scenes.json"
    path.write_text(json.dumps({"name": "capjax.data.scenes", **fields}))
    made = load(str(PIPELINE))
    how = dict(source_text="scenes", part_size=50)
    source = open_spec(str(path))
    local.run(made, source, tmp_path / "local", progress=False, **how)
    options = local.Options(processes=1)
    out = tmp_path / "ray"
    summary = run_on_ray(made, str(path), {}, out, options=options, quota=Quota(calls=5), **how)
    assert (summary.parts, summary.stopped) == (4, "")
    assert parts(out) == parts(tmp_path / "local")
    (out / "part-00002.parquet").unlink()
    run_on_ray(made, str(path), {}, out, options=options, **how)
    assert parts(out) == parts(tmp_path / "local")
