"""Captions of any source, cleaned without a model: language, length, and near duplicates.

  python -m capjax.curate run configs/curate/clean_captions.py --input captions.jsonl \\
      --output runs/curate/clean

`:least=3,most=40` are the words that a caption may have, `:threshold=0.8` the share of its pairs of
words above which a caption repeats an earlier one.
"""

from capjax.config import parse_arg
from capjax.curate.pipeline import Pipeline
from capjax.curate.stage import Stage
from capjax.curate.stages.duplicates import SameCaptions
from capjax.curate.stages.texts import language, length


def each_caption(key, captions):
    """A record for each caption, with the spaces of its web page gone."""
    return [
        {"key": f"{key}#{i}", "raw": caption, "caption": " ".join(caption.split())}
        for i, caption in enumerate(captions)
    ]


def get_pipeline(arg=""):
    arg = parse_arg(arg, least=3, most=40, threshold=0.8)
    return Pipeline(
        name="clean captions",
        source={"key": str, "captions": list[str]},
        stages=(
            Stage(
                "each caption",
                each_caption,
                inputs={"key": str, "captions": list[str]},
                outputs={"key": str, "raw": str, "caption": str},
            ),
            language("caption", "en"),
            length("caption", arg.least, arg.most),
            SameCaptions("caption", threshold=arg.threshold),
        ),
        columns=("key", "raw", "caption"),
    )
