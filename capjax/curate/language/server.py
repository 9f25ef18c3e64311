"""Any server that speaks OpenAI's chat completions: vLLM, llama.cpp, Ollama, hosted ones.

Calls are asynchronous, at most `concurrency` at a time and within limits of requests and tokens a
minute. What fails is asked again, later each time, by jittered exponential backoff; a Retry-After
is obeyed by all calls together. Every failed attempt is counted in the ledger by its kind:

    http 429, http 500, ...   what the server answered
    timeout                   no answer within `timeout_s`
    connection                it cannot be reached; asked for up to `patience_s`, since a server
                              that is restarted is no fault of the record
    cut                       the answer broke off
    malformed                 the answer is no chat completion

The key comes from the environment variable `key_from` alone. It is in no setting, and is struck out
of everything that a server sends back.

Raises `CallFailed` for a record that cannot be answered; `UserError`, which stops the run, for a
key or model that the server refuses and for a server that stays away.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
import time
from collections import Counter
from typing import Any

from capjax.curate.language.rates import Rate, backoff, retry_after
from capjax.curate.language.request import (
    CUT,
    ENDED,
    REFUSED,
    Answer,
    CallFailed,
    Request,
    text_of,
)
from capjax.errors import UserError

_FINISHES = {"stop": ENDED, "length": CUT, "content_filter": REFUSED}
_OURS = {401, 403, 404}  # mistakes in key, rights, address or model: no record is to blame
_AGAIN = {408, 409, 425, 429}  # and all from 500


class Server:
    """A model on a server.

    url: up to `/v1`; by default that of the environment variable OPENAI_BASE_URL. key_from: the
    name of the environment variable with the key, "" for a server without one. prices: of a million
    tokens of prompts and of answers, in any currency. stream: answers come in pieces, so that a
    long one is not held for a timeout: `timeout_s` is then that of a piece.
    """

    local = False

    def __init__(
        self,
        model: str,
        *,
        url: str | None = None,
        key_from: str = "",
        concurrency: int = 32,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        timeout_s: float = 120.0,
        attempts: int = 6,
        patience_s: float = 600.0,
        backoff_s: tuple[float, float] = (0.5, 60.0),
        prices: tuple[float, float] = (0.0, 0.0),
        stream: bool = False,
    ):
        if url and "@" in url.split("//")[-1].split("/")[0]:
            raise UserError("the server's url holds a password: give the key by key_from")
        if concurrency < 1 or attempts < 1:
            raise UserError("a server needs concurrency and attempts of at least 1")
        self.name, self.concurrency = model, concurrency
        self._url, self._key_from, self._prices = url, key_from, prices
        self._timeout, self._attempts, self._patience = timeout_s, attempts, patience_s
        self._backoff, self._stream = backoff_s, stream
        self._limits = requests_per_minute, tokens_per_minute
        self._clients: list[Any] = []
        self._key = ""

    @property
    def identity(self) -> dict[str, Any]:
        """Not the address: a model may move."""
        return {"model": self.name}

    async def complete(self, request: Request, stage: str, ledger: Any) -> Answer:
        """The answer, however many attempts it takes."""
        self._open()
        ledger.reserve()
        try:
            answer = await self._persist(request, stage, ledger)
        except BaseException:
            ledger.unpaid()
            raise
        prompt, completion = self._prices
        cost = (prompt * answer.prompt_tokens + completion * answer.completion_tokens) / 1e6
        ledger.paid(stage, answer.model, answer.prompt_tokens, answer.completion_tokens, cost)
        return answer

    async def close(self) -> None:
        """Ends its connections."""
        clients, self._clients = self._clients, []
        for client in clients:
            await client.aclose()

    async def _persist(self, request: Request, stage: str, ledger: Any) -> Answer:
        failures: Counter[str] = Counter()
        began, attempt, away = time.monotonic(), 0, 0
        while True:
            await self._admission(request)
            client = await self._idle.get()
            try:
                found = await self._attempt(client, request)
            finally:
                self._idle.put_nowait(client)
            if isinstance(found, Answer):
                return found
            kind, wait = found
            ledger.failed(stage, kind)
            failures[kind] += 1
            if kind == "connection":
                away += 1
                if time.monotonic() - began > self._patience:
                    raise UserError(
                        f"the server of the model {self.name!r} has not been reached for "
                        f"{self._patience:g} s: start it, or correct its url; the same command "
                        "goes on"
                    )
                await asyncio.sleep(backoff(min(away, 4), *self._backoff, self._draw))
                continue
            attempt += 1
            if attempt >= self._attempts:
                told = ", ".join(f"{kind} {n} times" for kind, n in failures.items())
                raise CallFailed(f"no answer from {self.name}: {told}")
            if wait:
                self._open_again = max(self._open_again, time.monotonic() + wait)
            await asyncio.sleep(max(wait, backoff(attempt - 1, *self._backoff, self._draw)))

    async def _admission(self, request: Request) -> None:
        pause = self._open_again - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)
        await self._requests.take()
        # Four characters a token is a common estimate; what is asked for counts as answered.
        told = sum(len(text_of(message)) for message in request.messages) // 4
        await self._tokens.take(told + request.max_tokens)

    async def _attempt(self, client: Any, request: Request) -> Answer | tuple[str, float]:
        """The answer, or the kind of failure and the seconds that the server asks to wait."""
        import httpx2

        body = self._body(request)
        try:
            if self._stream:
                return await self._streamed(client, body)
            response = await client.post("chat/completions", json=body)
        except httpx2.TimeoutException:
            return "timeout", 0.0
        except (httpx2.ConnectError, httpx2.WriteError):
            return "connection", 0.0
        except httpx2.TransportError:  # ReadError, RemoteProtocolError: it broke off
            return "cut", 0.0
        if response.status_code != 200:
            return self._refused(response.status_code, response.headers, response.text)
        try:
            return self._answer(response.json())
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return "malformed", 0.0

    async def _streamed(self, client: Any, body: dict[str, Any]) -> Answer | tuple[str, float]:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        text, finish, model, usage, ended = "", None, "", {}, False
        async with client.stream("POST", "chat/completions", json=body) as response:
            if response.status_code != 200:
                told = (await response.aread()).decode("utf-8", "replace")
                return self._refused(response.status_code, response.headers, told)
            async for line in response.aiter_lines():
                data = line.removeprefix("data:").strip()
                if not line.startswith("data:"):
                    continue
                if data == "[DONE]":
                    ended = True
                    break
                try:
                    piece = json.loads(data)
                    model, usage = piece.get("model") or model, piece.get("usage") or usage
                    for choice in piece.get("choices") or []:
                        text += (choice.get("delta") or {}).get("content") or ""
                        finish = choice.get("finish_reason") or finish
                except (ValueError, AttributeError, TypeError):
                    return "malformed", 0.0
        if not ended or finish is None:
            return "cut", 0.0
        message = {"content": text}
        choices = [{"message": message, "finish_reason": finish}]
        return self._answer({"model": model, "usage": usage, "choices": choices})

    def _answer(self, told: dict[str, Any]) -> Answer:
        choice = told["choices"][0]
        message, usage = choice["message"], told.get("usage") or {}
        refusal = message.get("refusal")
        text = message.get("content")
        if text is None and not refusal:
            raise ValueError("no content")
        finish = REFUSED if refusal else _FINISHES.get(choice.get("finish_reason"), ENDED)
        return Answer(
            str(text if text is not None else refusal),
            finish,
            str(told.get("model") or self.name),
            int(usage.get("prompt_tokens") or 0),
            int(usage.get("completion_tokens") or 0),
        )

    def _refused(self, status: int, headers: Any, text: str) -> tuple[str, float]:
        told = self._without_key(" ".join(text.split()))[:200]
        if status in _OURS:
            named = f"; its key comes from {self._key_from}" if self._key_from else ""
            raise UserError(
                f"the server of the model {self.name!r} answers {status} ({told}): correct the "
                f"model, the url or the key{named}"
            )
        if status in _AGAIN or status >= 500:
            return f"http {status}", retry_after(headers.get("retry-after"))
        raise CallFailed(f"the server answers {status}: {told}")

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.name,
            "messages": list(request.messages),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
        }
        if request.seed is not None:
            body["seed"] = request.seed
        if request.schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": dict(request.schema), "strict": True},
            }
        return body

    def _open(self) -> None:
        """Connections belong to the event loop in which they are first used."""
        if self._clients:
            return
        try:
            import httpx2
        except ModuleNotFoundError as error:
            raise UserError(
                "servers are asked with the package httpx2: pip install 'capjax[curate]'"
            ) from error
        url = self._url or os.environ.get("OPENAI_BASE_URL", "")
        if not url:
            raise UserError(
                f"the model {self.name!r} has no server: give Server(url=...), or set "
                "OPENAI_BASE_URL"
            )
        self._key = os.environ.get(self._key_from, "") if self._key_from else ""
        if self._key_from and not self._key:
            raise UserError(
                f"the environment variable {self._key_from} with the key of the model "
                f"{self.name!r} is not set"
            )
        # A client for each slot: one client's pool looks through all of its connections at each
        # call, which at 128 of them costs more than the call.
        trusted = ssl.create_default_context()
        self._clients = [
            httpx2.AsyncClient(
                base_url=url.rstrip("/") + "/",
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
                timeout=httpx2.Timeout(self._timeout, connect=min(10.0, self._timeout)),
                verify=trusted,
            )
            for _ in range(self.concurrency)
        ]
        # The last one used first: few connections are open where few are needed.
        self._idle: asyncio.LifoQueue = asyncio.LifoQueue()
        for client in self._clients:
            self._idle.put_nowait(client)
        self._requests, self._tokens = map(Rate, self._limits)
        self._open_again = 0.0
        self._draw = random.Random()

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text
