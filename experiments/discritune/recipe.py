"""What the configs of configs/discritune share: two styles of scenes, the toy CLIP, the reward.

Sources: arXiv 2304.01662 and its authors' code and sweep files.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from capjax.errors import UserError

SIZES = ("paper", "flickr8k", "small")
DRAWINGS = ("greedy", "sampled")
CONTROLS = ("", "shuffled", "flipped")
TOY_CLIP = dict(
    image_layers=2,
    image_width=64,
    image_heads=4,
    patch_size=8,
    text_layers=2,
    text_width=64,
    text_heads=4,
    embedding_dim=64,
)
SHALLOW_CLIP = TOY_CLIP | dict(image_layers=1, text_layers=1)  # quick to compile
# What the pictures show, and how captions speak of it: the captioner learns style A, vaguely.
STYLES = {
    "a": dict(textures=("solid",), backgrounds=("plain",), captions=dict(generic=0.5, short=0.5)),
    "b": dict(
        textures=("striped", "dotted", "checked"),
        backgrounds=("shaded", "noisy"),
        captions="human",
    ),
    "both": dict(captions=dict(short=0.4, human=0.6)),
}


def check(size: str, drawing: str, control: str) -> None:
    """Raises UserError for what is none of these."""
    for name, value, known in (
        ("size", size, SIZES),
        ("drawing", drawing, DRAWINGS),
        ("control", control, CONTROLS),
    ):
        if value not in known:
            raise UserError(f"{name}={value!r} must be one of {', '.join(map(repr, known))}")


def scenes(style: str, split: str, size: int) -> dict[str, Any]:
    """One large object a picture. What the retriever learns from ("both") are other scenes."""
    if style not in STYLES:
        raise UserError(f"style={style!r} must be one of {', '.join(STYLES)}")
    return dict(
        name="capjax.data.scenes",
        seed=1 if style == "both" else 0,
        image_size=32,
        max_objects=1,
        sizes=("large",),
        split=split,
        size=size,
        **STYLES[style],
    )


def retrieval(retriever: str, negatives: str, hard: int, control: str) -> dict[str, Any]:
    """The one section of config.task.rewards, or a control in its place: another picture's reward
    ("shuffled"), the reward's negative ("flipped")."""
    section = dict(
        name="capjax.rewards.self_retrieval", run=retriever, negatives=negatives, hard=hard
    )
    if control == "shuffled":
        return dict(name="capjax.rewards.shuffled", of=section)
    return section | dict(weight=-1.0 if control == "flipped" else 1.0)


def tiny_captioner(config: ConfigDict, runlocal: bool) -> None:
    """ClipCap in small: a frozen toy CLIP, four prefix vectors, a tiny language model."""
    clip = SHALLOW_CLIP if runlocal else TOY_CLIP
    config.model = dict(
        name="capjax.models.captioner",
        image=dict(name="capjax.models.clip", variant="ViT-B/32", overrides=clip),
        text=dict(variant="tiny", overrides=dict(layers=1) if runlocal else {}),
        connector="prefix",
        queries=4,
    )
    config.tokenizer.vocab_size = 256
    config.tokenizer.max_length = 24
    config.tokenizer.num_records = 2000
    config.data.image_size = 32
    config.optimizer.frozen = ("^image_tower/",)


def clip_cap(config: ConfigDict) -> None:
    """CLIP ViT-B/32 (frozen), 10 prefix vectors and GPT-2 small, both trained.

    The paper's prefix is an MLP of the picture's embedding; here 10 learned queries read the tokens
    of the image tower. Captions have at most 30 tokens, as in the paper.
    """
    config.model = dict(
        name="capjax.models.captioner",
        image=dict(name="capjax.models.clip", variant="ViT-B/32", overrides={}),
        text=dict(variant="gpt2", overrides={}),
        connector="prefix",
        queries=10,
    )
    config.tokenizer.max_length = 31
    config.data.image_size, config.data.resize = 224, "crop"
    config.optimizer.frozen = ("^image_tower/",)
