"""Small files of tokenizers, made on the spot; each function returns how many ids there are."""

import gzip
import json
import pathlib

import tokenizers
from round_trips.inputs import CAPTIONS

MANY = CAPTIONS * 5  # trainers want pairs that occur more than once


def byte_level(folder):
    """GPT-2's vocab.json and merges.txt."""
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(MANY, vocab_size=290, special_tokens=["<|endoftext|>"])
    tokenizer.save_model(str(folder))
    return tokenizer.get_vocab_size()


def pipeline(folder, eos):
    """tokenizer.json with tokenizer_config.json, as newer models have them."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(MANY, vocab_size=280, special_tokens=[eos])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, eos_token=eos, pad_token=eos
    )
    fast.save_pretrained(folder)
    return len(fast)


def word_pieces(folder):
    """BERT's vocab.txt: letters, letters that continue a word, and half of the words."""
    words = sorted({word for caption in CAPTIONS for word in caption.split()})
    letters = sorted(set("".join(words)))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters)]
    pieces += [word for word in words[::2] if word not in pieces]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return len(pieces)


def sentence_pieces(folder, name, **options):
    """A SentencePiece model."""
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(MANY),
        model_prefix=str(folder / name.removesuffix(".model")),
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return sentencepiece.SentencePieceProcessor(str(folder / name)).get_piece_size()


def clip(folder):
    """CLIP's own vocab.json and merges.txt, from the file that open_clip brings."""
    from open_clip.tokenizer import SimpleTokenizer, default_bpe

    lines = gzip.decompress(pathlib.Path(default_bpe()).read_bytes()).decode().split("\n")
    ids = dict(SimpleTokenizer().encoder)
    for theirs, name in (("<start_of_text>", "startoftext"), ("<end_of_text>", "endoftext")):
        ids[f"<|{name}|>"] = ids.pop(theirs)
    merges = ["#version: 0.2", *lines[1 : len(ids) - 512 - 1]]
    (folder / "merges.txt").write_text("\n".join(merges) + "\n")
    (folder / "vocab.json").write_text(json.dumps(ids))
    return len(ids)
