"""What the curation engine costs: beside a plain loop, beside a peer, and against a server.

  python -m benchmarks.curate
  python -m benchmarks.curate --ray-python OTHER/bin/python        Ray Data as the peer

overhead   three cheap stages over records in memory: the functions called in a loop; the engine,
           which also checks types, keeps order, counts and writes Parquet parts; and, with the
           Python of an environment with Ray (and this package on its path), the same functions as a
           plain Ray Data pipeline that writes Parquet. All rows are compared with the loop's.
server     a server on this machine that answers after a fixed time, so many calls at once: what
           share of the calls that it allows is made. Client and server share the cores.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from capjax.curate.finished import Finished
from capjax.curate.language.ask import Ask
from capjax.curate.language.server import Server
from capjax.curate.language.templates import Template
from capjax.curate.local import Options, run
from capjax.curate.pipeline import Pipeline
from capjax.curate.stage import Stage

ROOT = Path(__file__).resolve().parents[1]
SERVER = ROOT / "tests" / "curate" / "chat_server.py"


class Texts:
    """Records in memory."""

    def __init__(self, size: int):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        text = f"  A photo of {index % 97} red circles, number {index}, on a blue ground "
        return {"key": f"r{index}", "caption": text}


def tidy(caption):
    return {"caption": " ".join(caption.lower().split())}


def count(caption):
    return {"words": len(caption.split())}


def keep(words):
    return {} if words % 5 else None


STAGES = (
    Stage("tidy", tidy, {"caption": str}, {"caption": str}),
    Stage("count", count, {"caption": str}, {"words": int}),
    Stage("keep", keep, {"words": int}),
)
SOURCE = {"key": str, "caption": str}
COLUMNS = ("key", "caption", "words")


def in_a_loop(source: Texts) -> list[dict[str, Any]]:
    """What the stages cost by themselves."""
    rows = []
    for i in range(len(source)):
        record = source[i]
        caption = tidy(record["caption"])["caption"]
        words = count(caption)["words"]
        if keep(words) is not None:
            rows.append({"key": record["key"], "caption": caption, "words": words})
    return rows


PEER = """
import sys, time, glob, logging
import ray
from benchmarks.curate import Texts, tidy, count, keep
logging.getLogger("ray").setLevel(logging.ERROR)
size, out = int(sys.argv[1]), sys.argv[2]
ray.init(log_to_driver=False, logging_level="error", include_dashboard=False)
ray.data.DataContext.get_current().enable_progress_bars = False
source = Texts(size)
rows = [source[i] for i in range(size)]
ray.data.range(8).map(lambda r: r).count()  # its workers are there
began = time.perf_counter()
data = ray.data.from_items(rows, override_num_blocks=16)
data = data.map(lambda r: r | tidy(r["caption"])).map(lambda r: r | count(r["caption"]))
data.filter(lambda r: keep(r["words"]) is not None).write_parquet(out)
print(time.perf_counter() - began)
"""


def overhead(size: int, ray_python: str | None, place: Path) -> None:
    """Prints microseconds a record."""
    source = Texts(size)
    pipeline = Pipeline("benchmark", STAGES, COLUMNS, source=SOURCE)
    run(pipeline, Texts(500), place / "warm", progress=False)
    began = time.perf_counter()
    expected = in_a_loop(source)
    told = {"loop": time.perf_counter() - began}
    began = time.perf_counter()
    run(pipeline, source, place / "engine", progress=False)
    told["engine"] = time.perf_counter() - began
    assert list(Finished(place / "engine").rows()) == expected
    if ray_python:
        import pyarrow.parquet as pq

        command = [ray_python, "-c", PEER, str(size), str(place / "ray")]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment, timeout=500
        )
        told["Ray Data"] = float(done.stdout.split()[-1])
        found = pq.read_table(place / "ray").to_pylist()
        assert sorted(r["key"] for r in found) == sorted(r["key"] for r in expected)
    print(f"{size:,} records, three stages, microseconds a record")
    for name, seconds in told.items():
        print(f"  {name:10} {1e6 * seconds / size:8.1f}")


def against_a_server(calls: int, seconds: float, slots: int, place: Path) -> None:
    """Prints the share of the allowed calls that were made."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(SERVER), str(port), str(seconds), str(slots), str(place / "log")]
    server = subprocess.Popen(command)
    try:
        # A few more than it takes at once: it need not wait for the next call to arrive.
        model = Server("echo", url=f"http://127.0.0.1:{port}/v1", concurrency=slots + slots // 4)
        say = Template("say", "1", {"caption": str}, "Say it.", "{caption}")
        pipeline = Pipeline(
            "server",
            (Ask("say", model, say, output="said"),),
            ("key", "said"),
            source=SOURCE,
        )
        time.sleep(1.0)  # until it listens
        summary = run(pipeline, Texts(calls), place / "out", progress=False, options=Options())
    finally:
        server.kill()
        server.wait()
    assert summary.paid.calls == calls
    allowed = calls * seconds / slots
    print(
        f"{calls:,} calls of {1e3 * seconds:.0f} ms, {slots} at once: {summary.seconds:.1f} s, "
        f"{calls / summary.seconds:.0f} a second, {100 * allowed / summary.seconds:.0f}% of what "
        f"the server allows ({slots / seconds:.0f} a second)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--ray-python", help="of an environment with Ray")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        overhead(args.records, args.ray_python, Path(folder))
    for seconds, slots in ((0.5, 32), (1.0, 128)):
        with tempfile.TemporaryDirectory() as folder:
            against_a_server(args.calls, seconds, slots, Path(folder))


if __name__ == "__main__":
    main()
