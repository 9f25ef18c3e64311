"""A pipeline of five stages over scenes with a server, and its run that is there to be killed.

    python curate_until_killed.py PORT OUT RECORDS PART_SIZE

As a pipeline file, `curate_until_killed.py:PORT`. Started again, it goes on.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from capjax.curate.language.ask import Ask
from capjax.curate.language.server import Server
from capjax.curate.local import Options, run
from capjax.curate.pipeline import Pipeline, load
from capjax.curate.stage import Stage
from capjax.curate.stages.texts import length, mix
from capjax.data.scenes import Source

CONCURRENCY = 16


def scene(source, index):
    """A record without its picture, which nothing here looks at."""
    alt_text, caption = source.captions(index)
    return {"key": f"scene-{index:06}", "alt_text": alt_text, "caption": caption}


def tidy(alt_text):
    """Something to compute."""
    words = [word for word in alt_text.split() if not any(c.isdigit() for c in word)]
    return {"alt_text": " ".join(words) or "a picture"}


class Scorer:
    """Stands in the place of a model in its process; scores are lengths."""

    name, version, place, worker, cached = "score", "1", "worker", "models", False
    params, batch_size = {"what": "length"}, 32
    inputs, outputs = {"fused": str}, {"score": float}

    def start(self):
        time.sleep(0.1)

    def batch(self, rows):
        return [{"score": len(row["fused"]) / 10} for row in rows]


def get_pipeline(arg):
    server = Server(
        "echo-1",
        url=f"http://127.0.0.1:{arg}/v1",
        concurrency=CONCURRENCY,
        backoff_s=(0.05, 0.5),
        timeout_s=20,
        attempts=50,
        patience_s=60,
    )
    return Pipeline(
        name="until killed",
        source={"key": str, "alt_text": str, "caption": str},
        read=scene,
        seed=1,
        stages=(
            Stage("tidy", tidy, {"alt_text": str}, {"alt_text": str}, place="processes"),
            Ask("fuse", server, "fuse", output="fused", max_tokens=64),
            length("fused", 3),
            Scorer(),
            mix({"alt_text": 0.3, "fused": 0.7}, output="text", seed=1),
        ),
        columns=("key", "alt_text", "fused", "fuse_status", "score", "text", "text_source"),
    )


def source(records):
    """Scenes with an alt-text and a caption each."""
    return Source(size=records, image_size=32, captions={"alt_text": 1, "human": 1})


def main(port, out, records, part_size):
    """The run, from wherever it is to its end."""
    made = load(f"{Path(__file__).resolve()}:{port}")
    summary = run(
        made,
        source(int(records)),
        out,
        part_size=int(part_size),
        options=Options(chunk=16, processes=2, threads=4),
        progress=False,
    )
    print(summary.seconds, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
