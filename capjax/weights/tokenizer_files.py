"""A tokenizer's published files, and the tokens by which a run has extended them.

GPT-2's tokenizer, any tokenizer.json and BERT's vocabulary grow; SentencePiece models and CLIP's
merges number what they hold and end there. New tokens are written

    tokenizer.json          among its added_tokens; made for a GPT-2 that has none
    vocab.txt               as further lines, if it is there
    tokenizer_config.json   in added_tokens_decoder, which says that each stays whole in a text

Raises `UserError` for tokens that cannot be added, or not with the ids that they have in the run.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capjax.data import wordpiece
from capjax.errors import UserError
from capjax.weights.plan import Plan, Source, read_json
from capjax.weights.small_files import has_vocabulary

if TYPE_CHECKING:
    from capjax import runs

# Fields of config.tokenizer: the first one that a tokenizer has takes new tokens.
_GROWING = ("new_words", "extra_tokens")
# By which a run's tokenizer is published, where its files do not lie in the checkpoint's folder.
_NAMES = {
    "capjax.data.clip_bpe": "merges.txt",
    "capjax.data.wordpiece": "vocab.txt",
    "capjax.data.gpt2_bpe": "tokenizer.json",
    "capjax.data.tokenizer_json": "tokenizer.json",
}


def grown(plan: Plan, add_tokens: Sequence[str]) -> dict[str, Any]:
    """config.tokenizer with more tokens than the plan's."""
    section = dict(plan.tokenizer or {"name": ""})
    if not add_tokens:
        return section
    if plan.tokenizer is None:
        raise UserError(
            f"a checkpoint of the family {plan.family} reads no text, so that it has no tokens to "
            "add to: leave out --add-token"
        )
    taken = inspect.signature(importlib.import_module(section["name"]).make).parameters
    field = next((name for name in _GROWING if name in taken), None)
    if field is None:
        raise UserError(
            f"the tokenizer of this checkpoint, {section['path']!r}, cannot grow: SentencePiece "
            "models and CLIP's merges take no new tokens; leave out --add-token, or name a "
            "tokenizer.json with --tokenizer where the checkpoint has one (T5, Llama)"
        )
    return section | {field: (*section.get(field, ()), *add_tokens)}


def new_words(source: Source) -> list[str]:
    """Tokens beside the vocabulary that are words, as the checkpoint's files say it."""
    folders = [source.folder]
    if source.tokenizer is not None:
        named = source.tokenizer
        folders.insert(0, named if named.is_dir() else named.parent)
    for folder in folders:
        added = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder")
        if added is None:
            listed = read_json(folder / "tokenizer.json").get("added_tokens", [])
            added = {token["id"]: token for token in listed}
        if added:
            in_order = [added[number] for number in sorted(added, key=int)]
            return [token["content"] for token in in_order if not token.get("special")]
    return []


def write(folder: Path, run: runs.Run, plan: Plan) -> None:
    """Completes the published files in `folder` by what the run's tokenizer has beyond them."""
    if run.tokenizer is None:
        return
    if not has_vocabulary(folder):
        _write_whole(folder, run)
    section = run.config.tokenizer
    if set(_all_words(section)) - set(_all_words(plan.tokenizer or {})):
        ids = run.tokenizer.added_ids
        special = section.get("extra_tokens", ()) if section.name == wordpiece.__name__ else ()
        tokens = [_token(name, ids[name], name in special) for name in sorted(ids, key=ids.get)]
        _extend_pipeline(folder / "tokenizer.json", run, tokens)
        _extend_vocabulary(folder / "vocab.txt", tokens)
        _extend_config(folder / "tokenizer_config.json", tokens)


def _all_words(section: Mapping[str, Any]) -> list[str]:
    return [word for field in _GROWING for word in section.get(field, ())]


def _write_whole(folder: Path, run: runs.Run) -> None:
    section = run.config.tokenizer
    usual = Path(section.get("path", "")).name
    name = _NAMES.get(section.name, usual if usual.endswith(".model") else "tokenizer.model")
    (folder / name).write_bytes(run.tokenizer.model)


def _token(name: str, number: int, special: bool) -> dict[str, Any]:
    sides = dict(single_word=False, lstrip=False, rstrip=False)
    return dict(id=number, content=name, **sides, normalized=False, special=special)


def _extend_pipeline(path: Path, run: runs.Run, tokens: Sequence[Mapping[str, Any]]) -> None:
    """A tokenizer.json that is there, or else one for a tokenizer that is kept as one."""
    if not path.is_file():
        if hasattr(run.tokenizer, "to_json"):
            path.write_text(run.tokenizer.to_json())
        return
    import tokenizers

    pieces = tokenizers.Tokenizer.from_file(str(path))
    for token in tokens:
        options = {name: value for name, value in token.items() if name != "id"}
        pieces.add_tokens([tokenizers.AddedToken(**options)])
    _check(path, tokens, pieces.token_to_id)
    path.write_text(pieces.to_str(pretty=True))


def _check(
    path: Path, tokens: Sequence[Mapping[str, Any]], number: Callable[[str], int | None]
) -> None:
    for token in tokens:
        name = token["content"]
        if number(name) != token["id"]:
            raise UserError(
                f"the token {name!r} is number {token['id']} in the run and would be number "
                f"{number(name)} in the form's {path.name}: choose another --like"
            )


def _extend_vocabulary(path: Path, tokens: Sequence[Mapping[str, Any]]) -> None:
    if not path.is_file():
        return
    model = path.read_bytes()
    ids = wordpiece.vocabulary(model, [token["content"] for token in tokens])
    _check(path, tokens, ids.get)
    first = len(wordpiece.vocabulary(model))
    more = "".join(f"{name}\n" for name, number in ids.items() if number >= first)
    path.write_bytes(model.removesuffix(b"\n") + b"\n" + more.encode())


def _extend_config(path: Path, tokens: Sequence[Mapping[str, Any]]) -> None:
    config = read_json(path)
    added = config.setdefault("added_tokens_decoder", {})
    for token in tokens:
        added[str(token["id"])] = {k: v for k, v in token.items() if k != "id"}
    path.write_text(json.dumps(config, indent=2))
