"""A language model of ours as the model of a stage: a run that was trained here or imported.

    Decoder("runs/llama")        of capjax.models.language_model, see capjax.weights

Calls are put together to batches; the stage that asks runs in a worker process, which loads it.
Prompts are filled up to multiples of `step` tokens, so that few lengths are compiled.

Letters: B calls of a batch, P tokens of the longest prompt, T of what is written.
Raises `UserError` for a run that is no language model; `CallFailed` for a prompt that does not fit.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from capjax.curate.language.request import CUT, ENDED, Answer, CallFailed, Request
from capjax.curate.stages.runs import run_identity
from capjax.errors import UserError

_GATHER_SECONDS = 0.01  # for which a batch that is not full waits for more


class Decoder:
    """run: its directory. form: how messages become one text, {system} and {user} in it; the model
    goes on behind it. num_beams: 1 decodes greedily or, with a temperature, samples.
    """

    local, concurrency = True, 0

    def __init__(
        self,
        run: Path | str,
        *,
        form: str = "{system}\n\n{user}\n",
        batch_size: int = 8,
        step: int = 64,
        num_beams: int = 1,
    ):
        if "{user}" not in form:
            raise UserError("the form of a decoder's prompts must hold {user}")
        self._run, self._form, self._batch_size = run, form, batch_size
        self._step, self._num_beams = step, num_beams
        self.name = Path(run).name
        self._waiting: list[tuple[Request, asyncio.Future]] = []

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """Read once: the sum goes over the weights."""
        how = {"form": self._form, "num_beams": self._num_beams}
        return {"model": self.name, **run_identity(self._run), **how}

    def start(self) -> None:
        """Opens the run on this process's devices."""
        from capjax.runs import open_run

        run = open_run(self._run)
        if not hasattr(type(run.model), "decode_step") or hasattr(run.model, "image_size"):
            raise UserError(f"{str(self._run)!r} is no run of capjax.models.language_model")
        self._model, self._params, self._tokenizer = run.model, run.params, run.tokenizer

    async def complete(self, request: Request, stage: str, ledger: Any) -> Answer:
        """The answer, together with those of other calls."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if len(self._waiting) == self._batch_size:
            self._decode()
        elif len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._decode)
        answer = await future
        ledger.paid(stage, answer.model, answer.prompt_tokens, answer.completion_tokens, 0.0)
        return answer

    def prompt(self, request: Request) -> str:
        """The one text of a request's messages; a second try carries the first one along."""
        system, *rest = request.messages
        user = "\n\n".join(message["content"] for message in rest)
        # Not format(): a text with braces in it stays what it is.
        before, _, behind = self._form.partition("{user}")
        return before.replace("{system}", system["content"]) + user + behind

    def _decode(self) -> None:
        some, self._waiting = self._waiting, []
        # What is decoded together must be decoded alike.
        groups: dict[tuple, list[tuple[Request, asyncio.Future]]] = {}
        for request, future in some:
            how = (request.max_tokens, request.temperature, request.top_p, request.seed)
            groups.setdefault(how, []).append((request, future))
        for group in groups.values():
            try:
                answers = self._answers([request for request, _ in group])
            except Exception as error:
                answers = [error] * len(group)
            for (_, future), answer in zip(group, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def _answers(self, requests: list[Request]) -> list[Answer | Exception]:
        """Of requests with the same options."""
        ids = [self._tokenizer.ids(self.prompt(request)) for request in requests]
        limit = _positions(self._model) - requests[0].max_tokens - 2
        fits = [i for i, own in enumerate(ids) if len(own) <= limit]
        found: list[Answer | Exception] = [
            CallFailed(f"the prompt has {len(own)} tokens, and there is room for {limit}")
            for own in ids
        ]
        if fits:
            texts = self._continued([ids[i] for i in fits], requests[0], limit)
            for i, answer in zip(fits, texts, strict=True):
                found[i] = answer
        return found

    def _continued(self, ids: list[list[int]], request: Request, limit: int) -> list[Answer]:
        import jax

        from capjax.decode.options import Options
        from capjax.decode.search import search

        longest = min(-(-max(map(len, ids)) // self._step) * self._step, limit)
        rows = np.zeros((self._batch_size, longest), np.int32)
        lengths = np.full(self._batch_size, len(ids[0]))
        rows[:, : len(ids[0])] = ids[0]  # the rest of a batch that is not full
        for row, own, i in zip(rows, ids, range(len(ids)), strict=False):
            row[:] = 0
            row[: len(own)], lengths[i] = own, len(own)
        sampled = request.temperature > 0
        options = Options(
            num_beams=1 if sampled else self._num_beams,
            sample=sampled,
            temperature=request.temperature if sampled else 1.0,
            top_p=request.top_p if sampled else 1.0,
            max_length=request.max_tokens + 1,
        )
        model = self._model.clone(max_length=longest + request.max_tokens + 2)
        context = np.zeros((self._batch_size, 0, 1), np.float32)
        rng = None
        if sampled:
            # By the prompt, so that a text does not depend on the batch that it was in.
            sums = [int.from_bytes(_digest(own)[:4], "big") for own in [*ids, *[[]] * len(rows)]]
            seed = jax.random.key(request.seed or 0)
            rng = jax.vmap(jax.random.fold_in, (None, 0))(
                seed, np.array(sums[: len(rows)], np.uint32)
            )
        found = search(
            model, self._params, context, 1.0, options, rng=rng, prompt=rows, prompt_length=lengths
        )
        tokens = np.asarray(found.tokens)[:, 0]
        lost = self._tokenizer.special_tokens.bos is None  # the prompt's first token
        return [self._told(own, tokens[i, len(own) - lost :], request) for i, own in enumerate(ids)]

    def _told(self, prompt: list[int], tokens: np.ndarray, request: Request) -> Answer:
        tokens = tokens[: request.max_tokens + 1]
        ends = np.flatnonzero(tokens == self._tokenizer.special_tokens.eos)
        finish, count = (ENDED, int(ends[0])) if len(ends) else (CUT, request.max_tokens)
        text = self._tokenizer.decode(tokens[:count].tolist()).strip()
        return Answer(text, finish, self.name, len(prompt), count)


def _positions(model: Any) -> int:
    from capjax.models.language_model import resolve

    return resolve(model.variant, model.overrides).max_positions


def _digest(ids: list[int]) -> bytes:
    return hashlib.sha256(np.array(ids, np.int64).tobytes()).digest()
