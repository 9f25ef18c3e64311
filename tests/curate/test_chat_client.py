"""The client against a server on this machine that fails in every way: all told, nothing lost."""

import asyncio
import email.utils
import json
import logging
import random
import time

import pytest
from chat_server import FAULTS, Served, answer_to
from curating import Texts, pipeline, run

from capjax.curate.cache import Cache
from capjax.curate.language.ask import Ask
from capjax.curate.language.rates import Rate, backoff, retry_after
from capjax.curate.language.request import CUT, ENDED, REFUSED, CallFailed, Request
from capjax.curate.language.server import Server
from capjax.curate.language.templates import Template
from capjax.curate.report import report, write_page
from capjax.curate.workers import Tally
from capjax.errors import UserError

SAY = Template("say", "1", {"caption": str}, "Say it.", "{caption}")
KEY = "sk-very-secret-0123456789"
QUICK = {"backoff_s": (0.01, 0.05), "timeout_s": 0.5}


def request(text, **fields):
    return Request(({"role": "user", "content": text},), **fields)


def ask_all(server, requests, ledger=None):
    """The answers, or what was raised."""
    ledger = ledger or Tally()

    async def run_all():
        calls = (server.complete(one, "say", ledger) for one in requests)
        done = await asyncio.gather(*calls, return_exceptions=True)
        await server.close()
        return done

    return asyncio.run(run_all())


def test_an_answer_and_what_is_sent(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    with Served() as served:
        server = Server("m", url=served.url, key_from="TEST_KEY", prices=(2.0, 10.0))
        ledger = Tally()
        schema = {"type": "object", "properties": {"a": {"type": "string"}}}
        asked = request("a b c", seed=5, max_tokens=9, temperature=0.5, schema=schema)
        (answer,) = ask_all(server, [asked], ledger)
    assert (answer.text, answer.finish, answer.model) == ("fused c b a", ENDED, "echo-1")
    assert ledger.entries == [("paid", "say", "echo-1", 3, 5, (2.0 * 3 + 10.0 * 5) / 1e6)]
    body = served.bodies[0]
    assert (body["model"], body["seed"], body["max_tokens"]) == ("m", 5, 9)
    assert body["response_format"]["json_schema"]["schema"] == schema
    assert served.headers[0]["authorization"] == f"bearer {KEY}"


@pytest.mark.parametrize(
    ("told", "finish"),
    [
        ({"content": "ab", "finish_reason": "length"}, CUT),
        ({"content": "", "finish_reason": "content_filter"}, REFUSED),
        ({"content": None, "refusal": "I will not."}, REFUSED),
    ],
)
def test_how_an_answer_ends(told, finish):
    with Served(answer=lambda prompt: dict(told)) as served:
        (answer,) = ask_all(Server("m", url=served.url), [request("x")])
    assert answer.finish == finish


@pytest.mark.parametrize("stream", [False, True])
def test_every_failure_is_overcome_and_accounted_for(tmp_path, stream):
    """300 prompts, of which 40% fail once or twice: all are answered, all failures are counted."""
    rng = random.Random(3)
    faults = [f for f in FAULTS if f != "timeout" and not (stream and f == "malformed")]
    plan = {
        f"prompt {i}": [rng.choice(faults) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
        for i in range(300)
    }
    plan |= {f"prompt {i}": ["timeout", *plan[f"prompt {i}"]] for i in range(0, 300, 30)}

    def fault(prompt, time):
        return plan[prompt][time - 1] if time <= len(plan[prompt]) else None

    with Served(fault, seconds=0.002) as served:
        how = QUICK | {"timeout_s": 1.5}
        server = Server("m", url=served.url, concurrency=24, stream=stream, **how)
        cache = Cache(tmp_path)
        answers = ask_all(server, [request(text) for text in plan], cache)
        ledger = cache.ledger()
        cache.close()
    assert [a.text.strip() for a in answers] == [answer_to(text) for text in plan]
    planned = [kind for kinds in plan.values() for kind in kinds]
    told = {"429": "http 429", "500": "http 500", "reset": "cut"}
    expected = {}
    for kind in planned:
        expected[told.get(kind, kind)] = expected.get(told.get(kind, kind), 0) + 1
    assert len(planned) > 100
    failures = ledger["failures"]["say"]
    # A machine that is busy enough for a second and a half makes more of them.
    unplanned = failures.pop("timeout") - expected.pop("timeout")
    assert failures == expected
    assert unplanned >= 0
    paid = ledger["paid"]["say"]["echo-1"]
    assert (paid.calls, paid.prompt_tokens) == (300, 600)
    if not stream:
        assert served.answered.total() - 300 <= unplanned


def test_a_record_that_always_fails_and_a_call_that_is_wrong():
    def fault(prompt, time):
        return "500" if prompt == "bad" else None

    with Served(fault) as served:
        good, bad = ask_all(
            Server("m", url=served.url, attempts=3, **QUICK), map(request, ("a", "bad"))
        )
    assert good.text == "fused a"
    assert isinstance(bad, CallFailed)
    assert "http 500 3 times" in str(bad)
    assert served.came["bad"] == 3


def test_concurrency_is_bounded():
    with Served(seconds=0.02) as served:
        ask_all(Server("m", url=served.url, concurrency=5), [request(f"{i}") for i in range(40)])
    assert served.most == 5


def test_a_server_that_stays_away_stops_the_run():
    server = Server("m", url="http://127.0.0.1:9/v1", patience_s=0.2, **QUICK)
    (error,) = ask_all(server, [request("x")])
    assert isinstance(error, UserError)
    assert "has not been reached for 0.2 s" in str(error)


def test_the_key_is_nowhere_but_in_the_header(monkeypatch, tmp_path, caplog, capfd):
    """Also where the server sends it back: in a failure that is left out, and in one that stops."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TEST_KEY", KEY)

    def fault(prompt, time):
        kinds = {"stop": "401", "a red circle 7": "500", "a red circle 8": "400"}
        return next((kind for text, kind in kinds.items() if text in prompt.split("\n")), None)

    with Served(fault) as served:
        server = Server("m", url=served.url, key_from="TEST_KEY", attempts=2, **QUICK)
        (error,) = ask_all(server, [request("stop")])
        ask = Ask("say", server, SAY, output="said")
        made = pipeline(ask, columns=("key", "said"))
        run(made, tmp_path / "out", Texts(60), max_bad_fraction=0.2, progress=True)
        found = report(tmp_path / "out")
        write_page(found, tmp_path / "out" / "page.html")
    assert isinstance(error, UserError)
    assert "TEST_KEY" in str(error)
    assert KEY in served.headers[0]["authorization"]
    written = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert b"http 500" in written
    assert b"answers 400" in written
    assert b"[key]" in written
    streams = "".join(capfd.readouterr())
    for text in (str(error), caplog.text, streams, found.text(), json.dumps(made.settings())):
        assert KEY not in text
    assert KEY.encode() not in written


def test_mistakes_of_the_user(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("NO_KEY", raising=False)
    (error,) = ask_all(Server("m"), [request("x")])
    assert "OPENAI_BASE_URL" in str(error)
    (error,) = ask_all(Server("m", url="http://127.0.0.1:9", key_from="NO_KEY"), [request("x")])
    assert "NO_KEY" in str(error)
    with pytest.raises(UserError, match="holds a password"):
        Server("m", url="https://me:pw@host/v1")


def test_rates():
    now = [0.0]
    rate = Rate(60.0, lambda: now[0])
    assert [rate.place() for _ in range(3)] == [pytest.approx(w) for w in (0.0, 1.0, 2.0)]
    now[0] = 100.0  # of what was not used, a second's worth is left
    assert [rate.place() for _ in range(3)] == [pytest.approx(w) for w in (0.0, 0.0, 1.0)]
    assert Rate(None).place(1e9) == 0


def test_a_rate_holds_against_a_server():
    with Served() as served:
        began = time.monotonic()
        server = Server("m", url=served.url, requests_per_minute=60 * 40)
        ask_all(server, [request(f"{i}") for i in range(60)])
        seconds = time.monotonic() - began
    assert seconds >= 0.45  # 60 calls at 40 a second, of which one second's worth at once


def test_backoff_and_retry_after():
    draw = random.Random(0)
    waits = [[backoff(n, 0.5, 8.0, draw) for _ in range(50)] for n in range(8)]
    for n, own in enumerate(waits):
        most = min(0.5 * 2**n, 8.0)
        assert most / 2 <= min(own) < max(own) <= most
        assert len(set(own)) == 50
    assert retry_after("2.5") == 2.5
    assert retry_after(None) == retry_after("soon") == retry_after("-3") == retry_after("nan") == 0
    assert retry_after("1e9") == 600
    later = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 27 <= retry_after(later) <= 30


def test_retry_after_is_obeyed():
    def fault(prompt, time):
        return "429" if time == 1 else None

    with Served(fault) as served:
        began = time.monotonic()
        server = Server("m", url=served.url, concurrency=1, backoff_s=(0.0001, 0.0001))
        ask_all(server, [request("x")])
        assert time.monotonic() - began >= 0.05
    assert served.came["x"] == 2
