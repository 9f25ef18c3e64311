"""Alt-text and a captioner's captions, fused by a language model on a server, and mixed.

  OPENAI_BASE_URL=http://localhost:8000/v1 python -m capjax.curate run \\
      configs/curate/fuse_captions.py:model=NAME --input "pairs-*.parquet" \\
      "captions=[\\"caption\\"]" "columns=[\\"alt_text\\"]" --output runs/curate/fused

The source has the fields alt_text and captions. `key_from=OPENAI_API_KEY` names the variable of the
environment with the server's key; `share=0.5` is that of fused captions in the column `text`.
"""

from capjax.config import parse_arg
from capjax.curate.language.ask import Ask
from capjax.curate.language.server import Server
from capjax.curate.pipeline import Pipeline
from capjax.curate.stage import Stage
from capjax.curate.stages.texts import language, length, mix


def first_caption(captions, alt_text):
    """The record's texts with single spaces; without an alt-text there is nothing to fuse."""
    if not (alt_text or "").strip():
        return None
    return {"caption": " ".join(captions[0].split()), "alt_text": " ".join(alt_text.split())}


def not_side_by_side(fields, outputs):
    """Why the answer cannot be used, or "" if it can."""
    text = outputs["fused"].lower()
    if fields["alt_text"].lower() in text and fields["caption"].lower() in text:
        return "it holds both sentences as they were, instead of one new sentence"
    return ""


def get_pipeline(arg=""):
    arg = parse_arg(arg, model="model", key_from="", concurrency=64, share=0.5, seed=0)
    model = Server(arg.model, key_from=arg.key_from, concurrency=arg.concurrency)
    return Pipeline(
        name="fused captions",
        source={"key": str, "captions": list[str], "alt_text": str},
        seed=arg.seed,
        stages=(
            Stage(
                "first caption",
                first_caption,
                inputs={"captions": list[str], "alt_text": str},
                outputs={"caption": str, "alt_text": str},
            ),
            language("alt_text"),
            Ask(
                "fuse",
                model,
                "fuse",
                output="fused",
                fallback="caption",
                accept=not_side_by_side,
                max_tokens=80,
            ),
            length("fused", 3, 60),
            mix({"alt_text": 1 - arg.share, "fused": arg.share}, output="text", seed=arg.seed),
        ),
        columns=(
            *("key", "alt_text", "caption", "fused", "fuse_status", "fuse_model"),
            *("text", "text_source"),
        ),
    )
