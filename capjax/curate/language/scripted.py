"""A script in the place of a model, for tests and for trying a pipeline: it understands nothing.

Its name says so wherever provenance is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from capjax.curate.language.request import ENDED, Answer, Request, text_of


class Scripted:
    """`function(request) -> text or Answer`; `name` tells one script from another.

    seconds: how long each answer takes.
    """

    local = False

    def __init__(
        self,
        function: Callable[[Request], str | Answer],
        name: str,
        *,
        concurrency: int = 64,
        seconds: float = 0.0,
    ):
        self.name = f"script {name} (no model)"
        self.concurrency = concurrency
        self._function, self._seconds = function, seconds

    @property
    def identity(self) -> dict[str, Any]:
        return {"model": self.name}

    async def complete(self, request: Request, stage: str, ledger: Any) -> Answer:
        """What the script says; words count as tokens."""
        ledger.reserve()
        try:
            if self._seconds:
                await asyncio.sleep(self._seconds)
            told = self._function(request)
        except BaseException:
            ledger.unpaid()
            raise
        if isinstance(told, str):
            words = sum(len(text_of(message).split()) for message in request.messages)
            told = Answer(told, ENDED, self.name, words, len(told.split()))
        ledger.paid(stage, told.model, told.prompt_tokens, told.completion_tokens, 0.0)
        return told

    async def close(self) -> None:
        """Nothing is open."""
