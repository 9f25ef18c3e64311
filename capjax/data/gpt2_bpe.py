"""GPT-2's tokenizer: byte-level byte-pair encoding, 50,257 tokens, upper case and spaces kept.

A text is split into clitics, words, numbers and runs of other signs, each with the space before it;
their UTF-8 bytes are merged in the order of the merges. The one special token, <|endoftext|>
(50256), begins, ends and fills a row:

    config.tokenizer = dict(name="capjax.data.gpt2_bpe", path=".../gpt2")

`path` is a folder with vocab.json and merges.txt, with the original encoder.json and vocab.bpe, or
with tokenizer.json; or such a tokenizer.json itself, whose added tokens behind the vocabulary are
kept. All give the same bytes, so the same fingerprint. A vocabulary is extended by `extra_tokens`,
behind its last id, and padded with one by

    extra_tokens=("<pad>",), pad="<pad>"

Sources: Radford et al. 2019 (GPT-2, section 2.2), and openai/gpt-2, src/encoder.py; Sennrich et al.
2016. Ids are those of Transformers' GPT2Tokenizer, whose library does the work; a text that writes
<|endoftext|> out ends there, as in Transformers. Rows, and how a BOS that is EOS is decoded:
`capjax.data.tokenizer_json`.
Raises `UserError` for a folder without these files, for files that do not belong together, and for
a tokenizer.json of another kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from capjax.data.token_rows import read_model
from capjax.data.tokenizer_json import MAX_LENGTH, Tokenizer
from capjax.errors import UserError

END = "<|endoftext|>"
_PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))


def make(
    captions: Callable[[int], Iterable[str]] | None = None,
    *,
    path: str,
    max_length: int = MAX_LENGTH,
    pad: str = END,
    extra_tokens: Sequence[str] = (),
) -> Tokenizer:
    """The tokenizer in the folder `path`; it is not trained, so captions are unread."""
    return reopen(read(path), max_length=max_length, pad=pad, extra_tokens=extra_tokens)


def reopen(
    model: bytes,
    *,
    path: str = "",
    max_length: int = MAX_LENGTH,
    pad: str = END,
    extra_tokens: Sequence[str] = (),
) -> Tokenizer:
    """What `make` made, from its bytes, a tokenizer.json."""
    return Tokenizer(model, max_length, eos=END, bos=END, pad=pad, extra_tokens=extra_tokens)


def read(path: str | Path) -> bytes:
    """A tokenizer.json of nothing but what the files in the folder `path` say."""
    path = Path(path)
    if not path.is_dir():
        return _written(*_of_tokenizer_json(read_model(path)))
    for vocabulary, merges in _PAIRS:
        if (path / vocabulary).is_file() and (path / merges).is_file():
            ids = _json(read_model(path / vocabulary), vocabulary)
            lines = read_model(path / merges).decode("utf-8", errors="replace").split("\n")
            rows = [line.removesuffix("\r") for line in lines if not line.startswith("#version")]
            return _written(ids, [row.split(" ") for row in rows if row])
    if (path / "tokenizer.json").is_file():
        return _written(*_of_tokenizer_json(read_model(path / "tokenizer.json")))
    raise UserError(
        f"the folder {str(path)!r} holds no tokenizer of GPT-2: it needs vocab.json and "
        "merges.txt, encoder.json and vocab.bpe, or tokenizer.json"
    )


def _of_tokenizer_json(data: bytes) -> tuple[Any, Any, list[dict]]:
    """(ids, merges, tokens that are added), if the file splits texts as GPT-2 does."""
    document = _json(data, "tokenizer.json")
    model, split = document.get("model") or {}, document.get("pre_tokenizer") or {}
    alike = (
        split.get("type") == "ByteLevel"
        and split.get("use_regex", True)
        and not split.get("add_prefix_space")
        and not document.get("normalizer")
        and model.get("type", "BPE") == "BPE"
        and not model.get("ignore_merges")
    )
    if not alike:
        raise UserError(
            "this tokenizer.json is not GPT-2's: its texts are split otherwise; name "
            "capjax.data.tokenizer_json as the tokenizer, with its eos"
        )
    merges = [m.split(" ") if isinstance(m, str) else m for m in model.get("merges", [])]
    added = [token for token in document.get("added_tokens") or [] if token["content"] != END]
    return model.get("vocab"), merges, sorted(added, key=lambda token: token["id"])


def _json(data: bytes, name: str) -> dict:
    try:
        document = json.loads(data)
    except ValueError as error:  # of UTF-8, too
        raise UserError(f"the tokenizer's {name} is not JSON ({error}): get it again") from error
    if not isinstance(document, dict):
        raise UserError(f"the tokenizer's {name} holds no table of tokens: get it again")
    return document


def _written(ids: Any, merges: list[list[str]], added: Sequence[dict] = ()) -> bytes:
    """The file's bytes, the same for the same arguments, once they fit together."""
    if not isinstance(ids, dict) or sorted(ids.values()) != list(range(len(ids))):
        raise UserError("the vocabulary of GPT-2 must number its tokens from 0 without a gap")
    if END not in ids:
        raise UserError(f"the vocabulary lacks {END}: it is not GPT-2's")
    for number, merge in enumerate(merges):
        if len(merge) != 2 or not {*merge, "".join(merge)} <= ids.keys():
            raise UserError(
                f"merge number {number} of the tokenizer, {' '.join(merge)!r}, does not join two "
                "tokens of the vocabulary to a third: the files do not belong together"
            )
    behind = [token["id"] for token in added if ids.get(token["content"]) != token["id"]]
    if behind != list(range(len(ids), len(ids) + len(behind))):
        raise UserError(
            f"the tokens that the tokenizer.json adds have the ids {behind}, and must go on after "
            f"the {len(ids)} of its vocabulary: get it again"
        )
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    end = {"id": ids[END], "content": END, "special": True, "normalized": False}
    document = {
        "version": "1.0",
        "added_tokens": [{**end, "single_word": False, "lstrip": False, "rstrip": False}, *added],
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "use_regex": True},
        "post_processor": None,
        "decoder": {**byte_level, "use_regex": True},
        "model": {"type": "BPE", "vocab": dict(sorted(ids.items(), key=lambda item: item[1]))}
        | {"merges": [" ".join(merge) for merge in merges]},
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
