"""BERT's tokenizer: lower-cased words without accents, split into the longest known pieces.

Control characters go, Chinese characters stand alone, punctuation is split off; each word then
loses its longest prefix that is in the vocabulary, and so on ("##ing" continues a word); a word
that cannot be split so is [UNK]. Rows are [CLS] ids [SEP] and [PAD]s. The names of the special
tokens, written out in a caption, are these tokens.

    config.tokenizer = dict(name="capjax.data.wordpiece", path=".../vocab.txt")

reads a vocabulary, one piece a line, the line's number being the id; without `path` a vocabulary of
`vocab_size` pieces is trained on the run's own captions, as ALIGN does with 100,000.

A model that begins or ends its rows otherwise names these tokens, and appends to the vocabulary
those that the file lacks. BLIP's captioner (arXiv 2201.12086) reads BERT's file with

    config.tokenizer = dict(name="capjax.data.wordpiece", path=".../vocab.txt", bos="[DEC]",
                            extra_tokens=("[DEC]", "[ENC]"))

`new_words` follow them: tokens by which a vocabulary is extended, each one id wherever it stands in
a caption. Unlike special tokens they may be written. A BERT's tokenizer.json does as a `path`, too:
the vocabulary is read out of it, and the rest is as above.

Sources: Devlin et al. 2019 (BERT, arXiv 1810.04805); Jia et al. 2021 (ALIGN, arXiv 2102.05918,
section 5). Ids are those of Hugging Face's BertTokenizer, whose library does the work.
Raises `UserError` for a vocabulary that lacks a special token or names a piece twice, for a
tokenizer.json of another kind, for a `bos` or `eos` that is not in the vocabulary, or if the
package tokenizers is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from capjax.data.text_cleaning import INSTALL
from capjax.data.token_rows import TokenRows, check_max_length, checked, read_model, valid
from capjax.errors import UserError
from capjax.special_tokens import SpecialTokens

if TYPE_CHECKING:
    import tokenizers

SPECIALS = PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
ENC = "[ENC]"  # of BLIP, where `extra_tokens` names it


def make(
    captions: Callable[[int], Iterable[str]],
    *,
    path: str = "",
    vocab_size: int = 30_522,
    max_length: int = 64,
    lowercase: bool = True,
    num_records: int = 20_000,
    bos: str = CLS,
    eos: str = SEP,
    extra_tokens: Sequence[str] = (),
    new_words: Sequence[str] = (),
) -> Tokenizer:
    """The tokenizer of the vocabulary at `path`, or one trained on captions(num_records)."""
    model: bytes | str = path
    if not path:
        model = train(captions(num_records), vocab_size, max_length, lowercase).model
    return Tokenizer(model, max_length, lowercase, bos, eos, extra_tokens, new_words)


def reopen(
    model: bytes,
    *,
    max_length: int = 64,
    lowercase: bool = True,
    bos: str = CLS,
    eos: str = SEP,
    extra_tokens: Sequence[str] = (),
    new_words: Sequence[str] = (),
    **made_with: object,
) -> Tokenizer:
    """What `make` made, from its vocabulary."""
    return Tokenizer(model, max_length, lowercase, bos, eos, extra_tokens, new_words)


class Tokenizer(TokenRows):
    """A vocabulary and the length of its rows; `lowercase` also strips accents, as in BERT.

    bos, eos: which tokens begin and end a row.
    extra_tokens: special tokens that follow the vocabulary's last, where it has none of that name.
    new_words: words that follow these in the same way.
    added_ids: the id of each of both.
    """

    def __init__(
        self,
        model: bytes | str | Path,
        max_length: int = 64,
        lowercase: bool = True,
        bos: str = CLS,
        eos: str = SEP,
        extra_tokens: Sequence[str] = (),
        new_words: Sequence[str] = (),
    ):
        model, max_length = lines(read_model(model)), check_max_length(max_length)
        extra_tokens, new_words = tuple(extra_tokens), tuple(new_words)
        self._start(model, max_length, lowercase, bos, eos, extra_tokens, new_words)

    def _start(
        self,
        model: bytes,
        max_length: int,
        lowercase: bool,
        bos: str,
        eos: str,
        extra_tokens: tuple[str, ...],
        new_words: tuple[str, ...] = (),
    ) -> None:
        self.model, self.max_length, self.lowercase = model, max_length, lowercase
        self.bos, self.eos = bos, eos
        self.extra_tokens, self.new_words = extra_tokens, new_words
        self.options = f"lowercase={lowercase}"
        if (bos, eos, extra_tokens) != (CLS, SEP, ()):
            self.options += f" bos={bos} eos={eos} extra_tokens={extra_tokens}"
        if new_words:
            self.options += f" new_words={new_words}"
        ids = vocabulary(model, (*extra_tokens, *new_words))
        for field, name in (("bos", bos), ("eos", eos)):
            if name not in ids:
                raise UserError(
                    f"{field}={name!r} is not in the vocabulary: name one of its tokens, or list "
                    "it in tokenizer.extra_tokens"
                )
        special = [name for name in dict.fromkeys((*SPECIALS, *extra_tokens)) if name in ids]
        self._pieces = _pipeline(ids, lowercase)
        self._pieces.add_special_tokens(special)
        _add_words(self._pieces, new_words)
        self.added_ids = {name: ids[name] for name in (*extra_tokens, *new_words)}
        self._vocab_size = len(ids)
        never = tuple(ids[name] for name in special if name != eos)
        enc = ids[ENC] if ENC in special else None
        self.special_tokens = SpecialTokens(ids[PAD], ids[bos], ids[eos], never, enc)

    @property
    def vocab_size(self) -> int:
        """How many pieces there are, the special ones included."""
        return self._vocab_size

    def ids(self, caption: str) -> list[int]:
        """The caption's pieces, however many, without BOS and EOS."""
        return self._pieces.encode(valid(caption), add_special_tokens=False).ids

    def text(self, ids: list[int]) -> str:
        """The words of pieces, with no space before punctuation."""
        return self._pieces.decode(ids, skip_special_tokens=False)

    # As little as possible: the vocabulary says it all.
    def __getstate__(self) -> dict:
        fields = "model", "max_length", "lowercase", "bos", "eos", "extra_tokens", "new_words"
        return {name: getattr(self, name) for name in fields}

    def __setstate__(self, state: dict) -> None:
        self._start(**state)


def train(
    captions: Iterable[str], vocab_size: int, max_length: int, lowercase: bool = True
) -> Tokenizer:
    """A tokenizer of at most `vocab_size` pieces for these captions, by the pairs met most often.

    The same captions give the same vocabulary. UserError if it cannot hold their characters.
    """
    check_max_length(max_length)
    captions = [valid(caption) for caption in checked(captions)]
    pieces = _pipeline({}, lowercase)
    from tokenizers import trainers

    words = {word for caption in captions for word in _words(pieces, caption)}
    # Named beforehand: the trainer numbers these as it comes upon them, which is different every
    # time, and breaks ties by number.
    inside = [f"##{character}" for character in sorted({c for word in words for c in word[1:]})]
    first = {word[0] for word in words}
    fewest = len(SPECIALS) + len(inside) + len(first.union(*words))
    if vocab_size < fewest:
        raise UserError(
            f"cannot train a tokenizer with vocab_size={vocab_size} on these captions: their "
            f"characters alone need {fewest}"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=[*SPECIALS, *inside], show_progress=False
    )
    pieces.train_from_iterator(captions, trainer)
    vocabulary = pieces.get_vocab()
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    return Tokenizer("\n".join(ordered).encode(), max_length, lowercase)


def _words(pieces: tokenizers.Tokenizer, caption: str) -> list[str]:
    normal = pieces.normalizer.normalize_str(caption)
    return [word for word, _ in pieces.pre_tokenizer.pre_tokenize_str(normal)]


def _pipeline(ids: dict[str, int], lowercase: bool) -> tokenizers.Tokenizer:
    """The library's tokenizer with BERT's rules and this vocabulary."""
    try:
        from tokenizers import Tokenizer as Pipeline
        from tokenizers import decoders, models, normalizers, pre_tokenizers
    except ModuleNotFoundError as error:
        raise UserError(
            f"capjax.data.wordpiece works with the package tokenizers: {INSTALL}"
        ) from error
    pieces = Pipeline(models.WordPiece(vocab=ids, unk_token=UNK))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    return pieces


def _add_words(pieces: tokenizers.Tokenizer, words: Sequence[str]) -> None:
    if words:
        from tokenizers import AddedToken

        pieces.add_tokens([AddedToken(word, normalized=False) for word in words])


def lines(model: bytes) -> bytes:
    """A vocabulary, one piece a line: `model`, or the one in it where that is a tokenizer.json."""
    if model[:1] != b"{":
        return model
    try:
        document = json.loads(model)
        kind, ids = document["model"]["type"], dict(document["model"]["vocab"])
        ids |= {token["content"]: token["id"] for token in document.get("added_tokens", [])}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the tokenizer.json holds no vocabulary of BERT's kind ({error!r}): give BERT's own, "
            "or a vocab.txt"
        ) from error
    if kind != "WordPiece" or sorted(ids.values()) != list(range(len(ids))):
        raise UserError(
            f"the tokenizer.json is not a BERT's: it is of the kind {kind}, and not WordPiece with "
            "ids from 0 without a gap"
        )
    return "\n".join(sorted(ids, key=ids.__getitem__)).encode()


def vocabulary(model: bytes, extra_tokens: Sequence[str] = ()) -> dict[str, int]:
    """The id of each piece: the number of its line, from 0; then `extra_tokens` that are new."""
    try:
        lines = model.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError("the vocabulary is not UTF-8 text: give a vocab.txt") from error
    ids: dict[str, int] = {}
    for number, line in enumerate(lines):
        piece = line.removesuffix("\r")
        if piece in ids:
            raise UserError(
                f"the vocabulary has {piece!r} twice, in the lines {ids[piece] + 1} and "
                f"{number + 1}: each piece needs one id"
            )
        ids[piece] = number
    missing = [name for name in (PAD, UNK, CLS, SEP) if name not in ids]
    if missing:
        raise UserError(
            f"the vocabulary lacks {', '.join(missing)}: give the vocab.txt of a BERT, one piece "
            "a line"
        )
    for name in extra_tokens:
        ids.setdefault(name, len(ids))
    return ids
