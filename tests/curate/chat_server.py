"""A server of chat completions on this machine, with known latency, slots and failures.

    python chat_server.py PORT SECONDS SLOTS LOG

It answers each prompt with ANSWER of it after SECONDS, at most SLOTS at a time, and writes the
prompts that it answered to LOG, one a line. `Served` runs one within a test. `faults` decides by
(prompt, how often it came) what goes wrong: one of FAULTS, or None.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections import Counter

FAULTS = ("429", "500", "timeout", "malformed", "cut", "reset")


def answer_to(prompt):
    """What the server makes of a prompt: no language model, but a text that depends on it."""
    return "fused " + " ".join(reversed(prompt.split()))


class Served:
    """A context with `url`, `answered` (prompt -> times), `requests` and `most` at once."""

    def __init__(
        self, faults=lambda prompt, time: None, seconds=0.0, slots=10_000, answer=answer_to, port=0
    ):
        self.faults, self.seconds, self.answer, self.port = faults, seconds, answer, port
        self.answered, self.came, self.headers = Counter(), Counter(), []
        self.failed = Counter()
        self.bodies, self.now, self.most = [], 0, 0
        self._slots = slots
        self._log = None

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(10)

    def _stop(self):
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.call_later(0.02, self._loop.stop)  # when they have ended

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def _run(self, ready):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self.start())
        ready.set()
        self._loop.run_forever()

    async def start(self, log=None):
        self._semaphore = asyncio.Semaphore(self._slots)
        self._log = log
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, backlog=2000)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _connected(self, reader, writer):
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _one(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.headers.append(headers)
        self.bodies.append(body)
        prompt = body["messages"][-1]["content"]
        self.came[prompt] += 1
        fault = self.faults(prompt, self.came[prompt])
        if fault:
            self.failed[fault] += 1
        if fault == "reset":
            writer.transport.abort()
            return False
        if fault == "timeout":
            await asyncio.sleep(3)
            return False
        async with self._semaphore:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(self.seconds)
            self.now -= 1
        if fault in ("429", "500", "401", "400"):
            text = json.dumps({"error": {"message": f"no: {headers.get('authorization')}"}})
            extra = "Retry-After: 0.05\r\n" if fault == "429" else ""
            return self._send(writer, f"{fault} Failed", text.encode(), extra)
        told = self.answer(prompt)
        if isinstance(told, str):
            told = {"content": told}
        finish = told.pop("finish_reason", "stop")
        words = len(prompt.split())
        usage = {"prompt_tokens": words, "completion_tokens": 5}
        if body.get("stream"):
            return self._stream(writer, told["content"], finish, usage, fault)
        choice = {"message": {"role": "assistant", **told}, "finish_reason": finish}
        text = json.dumps({"model": "echo-1", "choices": [choice], "usage": usage}).encode()
        if fault == "malformed":
            return self._send(writer, "200 OK", text[: len(text) // 2])
        if fault == "cut":
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n".encode())
            writer.write(text[: len(text) // 2])
            return False
        # Told first: a server that is killed in between has done the work.
        self._was_answered(prompt)
        self._send(writer, "200 OK", text)
        await writer.drain()
        return True

    def _was_answered(self, prompt):
        self.answered[prompt] += 1
        if self._log:
            self._log.write(json.dumps(prompt) + "\n")
            self._log.flush()

    def _send(self, writer, status, data, extra=""):
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{extra}"
        writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        return True

    def _stream(self, writer, text, finish, usage, fault):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n")
        writer.write(b"\r\n")
        pieces = [{"choices": [{"delta": {"content": word + " "}}]} for word in text.split()]
        pieces.append({"choices": [{"delta": {}, "finish_reason": finish}], "model": "echo-1"})
        pieces.append({"choices": [], "usage": usage})
        for piece in pieces[:2] if fault == "cut" else pieces:
            writer.write(f"data: {json.dumps(piece)}\n\n".encode())
        if fault != "cut":
            writer.write(b"data: [DONE]\n\n")
        return False


def main(port, seconds, slots, log):
    """Serves until it is killed."""

    async def serve():
        served = Served(seconds=float(seconds), slots=int(slots), port=int(port))
        with open(log, "a") as file:
            server = await served.start(file)
            await server.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    main(*sys.argv[1:])
