"""The stage that asks a language model: a template, an answer that is checked, and what else then.

    Ask("fuse", model, template="fuse", output="fused", fallback="caption")
    Ask("judge", model, template="judge", schema={...})       one output for each property

An answer that does not fit (no JSON of the schema, empty, cut at its longest length, refused by
`accept`) is asked for once more, with the reason. What is then no answer, and a refusal at once,
give the record's field `fallback` in its place, or where there is none leave the record out.
Beside its outputs a stage NAME gives, for each record,

    NAME_status    ok, repaired, refused, cut or rejected
    NAME_model     what the model that answered calls itself; "" where none had to

Raises `UserError` for a template, schema or fallback that do not go together; in use `BadRecord`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from capjax.curate.language import json_schema
from capjax.curate.language.pictures import with_picture
from capjax.curate.language.refusals import is_refusal
from capjax.curate.language.request import CUT, REFUSED, Answer, Request
from capjax.curate.language.templates import Template, load
from capjax.curate.stage import Fields
from capjax.errors import BadRecord, UserError

_REPAIR = "That answer cannot be used: {}. Answer once more, and give the corrected answer alone."
_FIELD_TYPES = {"string": str, "integer": int, "number": float, "boolean": bool, "object": dict}
_LIST_TYPES = {"string": list[str], "integer": list[int], "number": list[float]}

Accept = Callable[[Fields, Mapping[str, Any]], str]


class Ask:
    """A stage; see the top of this file.

    output: the field of a plain answer; schema: of an answer in JSON, whose properties are the
    outputs. picture: a field of a picture to be shown with the words, at most `side` pixels on its
    longer side, for models that see. accept(fields, outputs) -> "" or why the answer cannot be
    used; raise `version` when it changes. skip(fields) -> outputs for a record that needs no model,
    or None.
    """

    cached = True

    def __init__(
        self,
        name: str,
        model: Any,
        template: str | Path | Template,
        *,
        output: str | None = None,
        schema: Mapping[str, Any] | None = None,
        fallback: str | None = None,
        picture: str | None = None,
        side: int = 768,
        accept: Accept | None = None,
        skip: Callable[[Fields], Mapping[str, Any] | None] | None = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        version: str = "1",
    ):
        self.name, self.model, self.version = name, model, version
        self.template = template if isinstance(template, Template) else load(template)
        if (output is None) == (schema is None):
            raise UserError(f"stage {name!r}: give either output or schema")
        self.place = "worker" if model.local else "server"
        self.concurrency = 0 if model.local else model.concurrency
        self.worker = "models"
        self.inputs = dict(self.template.inputs)
        self._own = {output: str} if output else _fields_of(name, schema)
        self.outputs = self._own | {f"{name}_status": str, f"{name}_model": str}
        self._output, self._schema, self._fallback = output, schema, fallback
        if fallback is not None and (
            output is None or self.inputs.setdefault(fallback, str) is not str
        ):
            raise UserError(f"stage {name!r}: fallback={fallback!r} must be text, for one output")
        self._accept, self._skip = accept, skip
        self._picture, self._side = picture, side
        self._options = dict(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
        self.params = {
            **model.identity,
            **self._options,
            "prompt": self.template.name,
            "prompt_version": self.template.version,
            "prompt_hash": self.template.digest,
            "repair": _REPAIR,
            "schema": None if schema is None else dict(schema),
            "fallback": fallback,
        }
        if picture is not None:
            if model.local:
                raise UserError(
                    f"stage {name!r}: the model {model.name!r} reads words alone, no pictures: ask "
                    "a server with a model that sees"
                )
            self.inputs[picture] = np.ndarray
            self.params["side"] = side

    def start(self) -> None:
        """Loads a model of our own."""
        self.model.start()

    async def close(self) -> None:
        """Ends the model's connections."""
        if not self.model.local:
            await self.model.close()

    async def answer(self, fields: Fields, ledger: Any) -> dict[str, Any]:
        """The outputs for a record."""
        given = self._skip(fields) if self._skip else None
        if given is not None:
            return self._told(given, "ok", "")
        messages = self.template.messages(fields)
        if self._picture is not None:
            messages = with_picture(messages, fields[self._picture], self._side)
        status = "ok"
        for attempt in range(2):
            request = Request(messages, schema=self._schema, **self._options)
            answer = await self.model.complete(request, self.name, ledger)
            if answer.finish == REFUSED or is_refusal(answer.text):
                ledger.failed(self.name, "refused")
                return self._instead(fields, "refused", "the model refused", answer)
            outputs, problem = self._read(answer)
            if not problem and self._accept:
                problem = self._accept(fields, outputs)
            if not problem:
                return self._told(outputs, status, answer.model)
            cut = answer.finish == CUT
            ledger.failed(self.name, "cut" if cut else "schema" if self._schema else "rejected")
            if attempt == 0:
                messages = (
                    *messages,
                    {"role": "assistant", "content": answer.text},
                    {"role": "user", "content": _REPAIR.format(problem)},
                )
                status = "repaired"
        return self._instead(fields, "cut" if cut else "rejected", problem, answer)

    def _read(self, answer: Answer) -> tuple[dict[str, Any], str]:
        if answer.finish == CUT:
            return {}, f"it was cut at {self._options['max_tokens']} tokens, so it must be shorter"
        if self._schema is None:
            text = " ".join(answer.text.split())
            return {self._output: text}, "" if text else "it is empty"
        value, problem = json_schema.parse(answer.text, self._schema)
        if problem:
            return {}, problem
        return {name: value.get(name) for name in self._own}, ""

    def _instead(self, fields: Fields, status: str, reason: str, answer: Answer) -> dict[str, Any]:
        if self._fallback is None:
            raise BadRecord(str(fields.get("key", "")), f"{status}: {reason}")
        return self._told({self._output: fields[self._fallback]}, status, answer.model)

    def _told(self, outputs: Mapping[str, Any], status: str, model: str) -> dict[str, Any]:
        return {**outputs, f"{self.name}_status": status, f"{self.name}_model": model}


def _fields_of(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    where = f"stage {name!r}: the schema"
    json_schema.check_schema(schema, where)
    if schema.get("type") != "object" or not schema.get("properties"):
        raise UserError(f'{where} must be of type "object" with properties, which are the outputs')
    found = {}
    for field, own in schema["properties"].items():
        kind = own.get("type")
        if kind == "array":
            found[field] = _LIST_TYPES.get(own.get("items", {}).get("type"))
        else:
            found[field] = _FIELD_TYPES.get(kind)
        if found[field] is None:
            raise UserError(f"{where}.{field} has no type of which a field can be")
    return found
