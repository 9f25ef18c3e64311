"""The local engine: order, several and none, bad records, what is kept, what is refused."""

import os
import signal
import threading
import time
from typing import ClassVar

import pyarrow.parquet as pq
import pytest
from curating import COUNT, FIRST, RECORDS, Texts, pipeline, run

from capjax.curate.cache import Cache, Quota
from capjax.curate.finished import Finished
from capjax.curate.language.ask import Ask
from capjax.curate.language.scripted import Scripted
from capjax.curate.language.templates import Template
from capjax.curate.local import Options
from capjax.curate.parts import read_metadata
from capjax.curate.stage import Stage
from capjax.errors import BadRecord, UserError

SAY = Template("say", "1", {"caption": str}, "Say it.", "{caption}")


def slow_at_first(key, caption):
    if key.endswith("0"):
        time.sleep(0.02)
    return {"caption": caption.upper()}


def thrice(key):
    number = int(key[1:])
    if number % 3 == 0:
        return None
    return [{"key": f"{key}.{i}"} for i in range(number % 3)]


def fails_on_seven(key):
    if key.endswith("7"):
        raise ValueError(f"no sevens: {key}")
    if key.endswith("33"):
        raise BadRecord(key, "not this one")
    return {}


class All:
    """Drops each caption that was there before; numbers the others."""

    name, version, place, cached, params = "unique", "1", "corpus", False, {}
    inputs, outputs = {"caption": str}, {"number": int}

    def corpus(self, columns):
        seen = {}
        return [
            None if seen.setdefault(text, i) != i else {"number": i}
            for i, text in enumerate(columns["caption"])
        ]


class Model:
    """Stands for a model that is loaded once: its outputs tell in which process."""

    name, version, place, cached, params = "model", "1", "worker", False, {}
    worker, batch_size = "models", 5
    inputs, outputs = {"key": str}, {"size": int, "pid": int}

    def start(self):
        self.started = True

    def batch(self, rows):
        assert self.started
        if any(row["key"] == "r13" for row in rows):
            raise ValueError("this batch has r13")
        return [{"size": len(rows), "pid": os.getpid()} for _ in rows]


class Dies(Model):
    """Dies of one record, whatever it is together with."""

    name = "dies"
    outputs: ClassVar = {}

    def batch(self, rows):
        if any(row["key"] == "r3" for row in rows):
            os.kill(os.getpid(), signal.SIGKILL)
        return [{} for _ in rows]


def test_results_are_in_the_order_of_the_source(tmp_path):
    slow = Stage(
        "slow", slow_at_first, {"key": str, "caption": str}, {"caption": str}, place="threads"
    )
    summary, rows = run(pipeline(slow, COUNT, columns=("key", "words", "caption")), tmp_path)
    assert [row["key"] for row in rows] == [f"r{i}" for i in range(RECORDS)]
    assert rows[7] == {"key": "r7", "words": 4, "caption": "A RED CIRCLE 7"}
    assert (summary.parts, summary.all_parts, summary.stopped) == (6, 6, "")
    assert not list(tmp_path.glob("*.partial"))


def test_none_one_and_several(tmp_path):
    stage = Stage("thrice", thrice, {"key": str}, {"key": str})
    _, rows = run(pipeline(stage), tmp_path)
    expected = [f"r{i}.{j}" for i in range(RECORDS) for j in range(i % 3)]
    assert [row["key"] for row in rows] == expected
    counts = Finished(tmp_path).counts()["thrice"]
    assert (counts["in"], counts["out"]) == (RECORDS, len(expected))


def test_a_stage_sees_what_it_declares_and_no_more(tmp_path):
    peeks = Stage(
        "peeks", lambda **fields: {"seen": sorted(fields)}, {"caption": str}, {"seen": list[str]}
    )
    _, rows = run(pipeline(peeks, columns=("key", "seen")), tmp_path)
    assert rows[0]["seen"] == ["caption"]


def test_bad_records_are_left_out_with_the_reason(tmp_path):
    stage = Stage("sevens", fails_on_seven, {"key": str})
    bad = [i for i in range(RECORDS) if i % 10 == 7 or i % 100 == 33 or i == 4]
    summary, rows = run(pipeline(stage), tmp_path, Texts(bad=[4]), max_bad_fraction=0.2)
    assert [row["key"] for row in rows] == [f"r{i}" for i in range(RECORDS) if i not in bad]
    assert summary.bad == len(bad)
    told = Finished(tmp_path).bad()
    assert told["sevens", "ValueError: no sevens: r7"] == 1
    assert told["sevens", "not this one"] == 2
    assert told["source", "it is torn"] == 1
    again, _ = run(pipeline(stage), tmp_path, Texts(bad=[4]), max_bad_fraction=0.2)
    assert again.bad == len(bad)
    with pytest.raises(UserError, match=r"max_bad_fraction=0\.01"):
        run(pipeline(stage), tmp_path / "strict", max_bad_fraction=0.01)


def test_a_mistake_in_a_stage_stops_the_run(tmp_path):
    stage = Stage("wrong", lambda caption: {"oops": 1}, {"caption": str}, {"words": int})
    with pytest.raises(UserError, match="stage 'wrong'"):
        run(pipeline(stage), tmp_path, max_bad_fraction=1.0)


def test_a_source_without_the_field(tmp_path):
    made = pipeline(columns=("key",))
    object.__setattr__(made, "source", {"key": str, "captions": list[str], "alt": str})
    reads = Stage("reads", lambda alt: {}, {"alt": str})
    object.__setattr__(made, "stages", (FIRST, reads))
    with pytest.raises(UserError, match="no field 'alt'"):
        run(made, tmp_path)


def test_a_stage_of_all_records(tmp_path):
    made = pipeline(All(), COUNT, columns=("key", "caption", "number", "words"))
    _, rows = run(made, tmp_path)
    assert [row["key"] for row in rows] == [f"r{i}" for i in range(50)]
    assert [row["number"] for row in rows] == list(range(50))
    assert rows[3]["words"] == 4
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.parquet")}
    run(made, tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.parquet")}


def test_an_interrupted_job_with_a_stage_of_all_records_goes_on(tmp_path):
    made = pipeline(All(), COUNT, columns=("key", "number", "words"))
    whole = tmp_path / "whole"
    run(made, whole)
    for gone in ("before-unique/part-00002.parquet", "before-unique/decided-00001.parquet"):
        place = tmp_path / gone.replace("/", "-")
        run(made, place)
        (place / gone).unlink()
        (place / "part-00001.parquet").unlink()
        run(made, place)
        for path in whole.rglob("*.parquet"):
            assert (place / path.relative_to(whole)).read_bytes() == path.read_bytes()


def test_models_live_in_one_process_and_a_batch_fails_one_by_one(tmp_path):
    made = pipeline(Model(), columns=("key", "size", "pid"))
    _, rows = run(made, tmp_path, max_bad_fraction=0.1)
    assert len({row["pid"] for row in rows}) == 1
    assert rows[0]["pid"] != os.getpid()
    assert "r13" not in {row["key"] for row in rows}
    assert rows[0]["size"] == 5
    assert rows[12]["size"] == 1  # of the batch with r13
    assert sum(Finished(tmp_path).bad().values()) == 1


def test_a_record_that_kills_its_worker_is_left_out(tmp_path):
    options = Options(chunk=2, under_way=1, processes=1)
    _, rows = run(pipeline(Dies()), tmp_path, Texts(5), max_bad_fraction=0.2, options=options)
    assert [row["key"] for row in rows] == ["r0", "r1", "r2", "r4"]
    assert "worker process died" in next(iter(Finished(tmp_path).bad()))[1]


def test_a_folder_of_another_pipeline_is_refused(tmp_path):
    run(pipeline(), tmp_path)
    changed = Stage(
        "shout",
        lambda caption, times: {"caption": caption},
        {"caption": str},
        {"caption": str},
        params={"times": 2},
    )
    with pytest.raises(UserError, match=r"stage shout.*nothing there, 2 now"):
        run(pipeline(changed), tmp_path)
    with pytest.raises(UserError, match="records: 230 there, 100 now"):
        run(pipeline(), tmp_path, Texts(100))
    with pytest.raises(UserError, match="part_size: 40 there, 50 now"):
        run(pipeline(), tmp_path, part_size=50)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"other files, such as 'notes.txt'"):
        run(pipeline(), tmp_path / "other")


def model_that_counts(calls, name="m"):
    def answer(request):
        calls.append(request.messages[-1]["content"])
        return f"said {len(request.messages[-1]['content'])} {name}"

    return Scripted(answer, name, concurrency=8)


def told(template, **fields):
    return Template(template, "1", {"caption": str}, f"{template} it.", "{caption}", **fields)


def test_a_changed_prompt_reruns_what_depends_on_it(tmp_path):
    """Two prompts one behind the other, and one beside them: 50 different captions."""
    calls = {"a": [], "b": [], "c": []}

    def made(a, b):
        return pipeline(
            Ask("a", model_that_counts(calls["a"], "a"), told(a), output="caption"),
            Ask("b", model_that_counts(calls["b"], "b"), told(b), output="other"),
            Stage("first again", FIRST.function, FIRST.inputs, FIRST.outputs),
            Ask("c", model_that_counts(calls["c"], "c"), told("c"), output="third"),
            columns=("key", "other", "third"),
        )

    cache = tmp_path / "cache"
    run(made("a", "b"), tmp_path / "1", cache=cache)
    # What a says depends on the length of the caption alone: two lengths, two calls of b.
    assert [len(calls[name]) for name in "abc"] == [50, 2, 50]
    run(made("a", "b"), tmp_path / "2", cache=cache)
    assert [len(calls[name]) for name in "abc"] == [50, 2, 50]
    run(made("a", "b2"), tmp_path / "3", cache=cache)
    assert [len(calls[name]) for name in "abc"] == [50, 4, 50]
    run(made("a2", "b"), tmp_path / "4", cache=cache)
    assert [len(calls[name]) for name in "abc"] == [100, 4, 50]
    first = [(tmp_path / n / "part-00003.parquet") for n in ("1", "2")]
    assert first[0].read_bytes() == first[1].read_bytes()


def test_records_with_the_same_content_are_asked_about_once_at_a_time(tmp_path):
    calls = []
    lock = threading.Lock()

    def slow(caption):
        with lock:
            calls.append(caption)
        time.sleep(0.01)
        return {"caption": caption + "!"}

    stage = Stage("slow", slow, {"caption": str}, {"caption": str}, place="threads", cached=True)
    _, rows = run(pipeline(stage), tmp_path, options=Options(chunk=16, threads=8, under_way=4))
    assert sorted(calls) == sorted({f"a red circle {i}" for i in range(50)})
    assert rows[229]["caption"] == "a red circle 29!"


def test_quotas_stop_cleanly_and_go_on(tmp_path):
    calls = []
    ask = Ask("say", model_that_counts(calls), SAY, output="said")
    made = pipeline(ask, columns=("key", "said"))
    source = Texts(120)  # 50 different captions
    summary, _ = run(made, tmp_path, source, quota=Quota(calls=20))
    assert "quota" in summary.stopped
    assert len(calls) == summary.paid.calls == 20
    summary, _ = run(made, tmp_path, source, quota=Quota(tokens=1))
    assert "quota" in summary.stopped
    assert len(calls) == 20
    summary, rows = run(made, tmp_path, source)
    assert not summary.stopped
    assert len(calls) == summary.paid.calls == 50
    assert [row["key"] for row in rows] == [f"r{i}" for i in range(120)]


def test_provenance_is_in_the_parts(tmp_path):
    ask = Ask("say", model_that_counts([], "x"), SAY, output="said", seed=7)
    _, rows = run(
        pipeline(ask, columns=("key", "said", "say_model", "say_status"), seed=3), tmp_path
    )
    told = read_metadata(tmp_path / "part-00000.parquet")
    assert told["seed"] == 3
    stage = told["stages"][1]
    assert stage["params"]["model"] == "script x (no model)"
    assert stage["params"]["prompt_hash"] == SAY.digest
    assert (stage["params"]["seed"], stage["version"]) == (7, "1")
    assert rows[0]["say_model"] == "script x (no model)"
    assert pq.read_schema(tmp_path / "part-00000.parquet").names[-1] == "say_status"


def test_a_torn_cache_is_told(tmp_path):
    (tmp_path / "answers.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match="cannot use the cache"):
        Cache(tmp_path)
