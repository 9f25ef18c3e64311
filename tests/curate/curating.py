"""Small pipelines and sources for the tests of the engine."""

from __future__ import annotations

from capjax.curate import local
from capjax.curate.pipeline import Pipeline
from capjax.curate.stage import Stage
from capjax.errors import BadRecord

RECORDS = 230


class Texts:
    """`size` records with two captions each; `bad` cannot be read."""

    def __init__(self, size=RECORDS, bad=()):
        self.size, self.bad = size, set(bad)

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index in self.bad:
            raise BadRecord(f"r{index}", "it is torn")
        return {
            "key": f"r{index}",
            "captions": [f"a red circle {index % 50}", f"circle number {index}"],
        }


def first(captions):
    return {"caption": captions[0]}


def count(caption):
    return {"words": len(caption.split())}


FIRST = Stage("first", first, {"captions": list[str]}, {"caption": str})
COUNT = Stage("count", count, {"caption": str}, {"words": int})


def pipeline(*stages, columns=("key", "caption"), **fields):
    """The caption of each record, and what the stages make of it."""
    return Pipeline(
        name="test",
        source={"key": str, "captions": list[str]},
        stages=(FIRST, *stages),
        columns=columns,
        **fields,
    )


def run(made, directory, source=None, **settings):
    """Runs a pipeline in small parts and chunks; gives the summary and all rows."""
    from capjax.curate.finished import Finished

    settings = {"part_size": 40, "progress": False} | settings
    options = settings.pop("options", local.Options(chunk=16, threads=4, processes=1))
    summary = local.run(made, source or Texts(), directory, options=options, **settings)
    done = summary.parts > 0
    return summary, list(Finished(directory).rows()) if done else []
