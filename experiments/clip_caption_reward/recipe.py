"""What the configs of configs/clip_caption_reward share: rewards, and the paper's captioner.

Sources: arXiv 2205.13115, its released code and the first author's answers about it.
"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from capjax.errors import UserError

PREFIX = "A photo depicts"
REWARDS = ("cider", "clips", "cider_clips", "clips_grammar")
SIZES = ("paper", "flickr8k", "small")


def check_size(size: str) -> None:
    """Raises UserError for a size that there is not."""
    if size not in SIZES:
        raise UserError(f"size={size!r} must be one of {', '.join(SIZES)}")


def rewards(
    kind: str,
    judge: str,
    corpus: dict[str, Any],
    *,
    clips_weight: float = 2.0,
    grammar_weight: float = 1.0,
    prefix: str = PREFIX,
    shuffled: bool = False,
) -> dict[str, dict[str, Any]]:
    """The sections of config.task.rewards for a row of the paper's table.

    The weights of CLIP-S and grammar are those of the code that made the reported results; the
    paper's formula has them the other way round (1 and 2).
    shuffled: every caption gets another picture's reward, a control.
    """
    if kind not in REWARDS:
        raise UserError(f"reward={kind!r} must be one of {', '.join(REWARDS)}")
    if shuffled and "cider" in kind:
        raise UserError(f"reward={kind!r} reads strings and cannot be shuffled: choose clips")
    judged = dict(run=judge, prefix=prefix)
    found = {}
    if "cider" in kind:
        found["cider"] = dict(name="capjax.rewards.cider", corpus=corpus, num_records=200_000)
    if "clips" in kind:
        found["clips"] = dict(name="capjax.rewards.clip_similarity", **judged)
    if "grammar" in kind:
        found["grammar"] = dict(name="capjax.rewards.grammar", **judged)
    if shuffled:
        name = "capjax.rewards.shuffled"
        found = {key: dict(name=name, of=section) for key, section in found.items()}
    for key, weight in (("clips", clips_weight), ("grammar", grammar_weight)):
        if key in found:
            found[key]["weight"] = weight
    return found


def paper_captioner(config: ConfigDict) -> None:
    """A frozen CLIP tower and a decoder of 6 blocks, 512 wide, with 8 heads and MLPs of 2,048.

    The paper's tower is RN50 with its grid of features, and 6 encoder blocks stand before the
    decoder; here it is ViT-B/32, whose own blocks take their place. Its words are 10,000 pieces.
    """
    config.model = dict(
        name="capjax.models.captioner",
        image=dict(name="capjax.models.clip", variant="ViT-B/32", overrides={}),
        text=dict(variant="gpt2", overrides=dict(layers=6, width=512, heads=8, mlp_dim=2048)),
        connector="cross",
        queries=0,
        dropout=0.1,
    )
    config.tokenizer.vocab_size = 10_000
    config.tokenizer.max_length = 24
    config.data.image_size, config.data.resize = 224, "crop"
    config.data.long_captions = "truncate"
    config.optimizer.frozen = ("^image_tower/",)


def tiny_captioner(config: ConfigDict, runlocal: bool) -> None:
    """The captioner of configs/guiding/scenes.py; with `runlocal` that of configs/policy/scenes.py,
    which compiles sooner."""
    shallow = dict(image_layers=1, unimodal_layers=1, multimodal_layers=1)
    config.model = dict(
        name="capjax.models.coca",
        size="tiny",
        size_overrides=shallow if runlocal else {},
        patch_size=8,
        variant="bottleneck",
    )
    config.tokenizer.vocab_size = 256
    config.tokenizer.max_length = 24
    config.tokenizer.num_records = 2000
    config.data.image_size = 32


def scenes(split: str, size: int) -> dict[str, Any]:
    """One object a picture; half of its captions say nothing of it, two tenths nearly all."""
    return dict(
        name="capjax.data.scenes",
        seed=0,
        image_size=32,
        max_objects=1,
        sizes=("large",),
        captions=dict(generic=0.5, short=0.3, human=0.2),
        split=split,
        size=size,
    )


def judged_scenes(split: str, size: int) -> dict[str, Any]:
    """Other scenes with specific captions only: a judge must know what can be said of a picture."""
    return scenes(split, size) | dict(seed=1, captions=dict(short=0.4, human=0.6))


def photographs(folder: str, split: str) -> dict[str, Any]:
    """A JSONL manifest."""
    return dict(name="capjax.data.manifest", path=f"{folder}/captions_{split}.jsonl")
