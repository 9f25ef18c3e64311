"""The language model of guiding's section 3.2: few-shot captions, in the captioner's vocabulary.

  python -m experiments.guiding.corpus TEXT.jsonl.gz .. --without TESTED.jsonl --out corpora/a.jsonl
  python -m capjax.train --workdir runs/language_model --config \\
      configs/guiding/language_model.py:captioner=runs/coco,corpora=corpora/a.jsonl+corpora/b.jsonl

The paper's is a Primer variant of 2B parameters, trained on a corpus like PaLM's; neither is
public. Here it is GPT-2 XL's architecture (1.5B) with the captioner's vocabulary, on documents of
many captions of one corpus, one a line (experiments/guiding/documents.py), so that a prompt of
captions sets the style of the next one. `corpora` are JSONL files joined by "+", the last of which
may be measured on with `held_out`. The steps and the rate are ours.

`size=mini` is two layers of width 128 for a few cores: 350 steps of three rows on the captions of
Flickr30k and COCO, which is 0.9 million tokens; what came out is in experiments/guiding/README.md.
`style=sentences` or `style=tags` trains a tiny one, caption by caption, on the texts of
configs/guiding/tags.py for the claims. `:runlocal` takes a few steps of that one.
"""

from capjax.config import base, parse_arg

SIZES = {
    # variant, its overrides, tokens of a row, rows of a batch, steps, rate
    "paper": ("gpt2-xl", {}, 1024, 512, 100_000, 2e-4),
    "mini": (
        "gpt2",
        dict(layers=2, width=128, heads=4, mlp_dim=512, max_positions=832),
        832,
        3,
        350,
        3e-3,
    ),
}


def get_config(arg=""):
    arg = parse_arg(
        arg,
        captioner="",
        corpora="corpora/captions.jsonl",
        held_out="corpora/held_out.jsonl",
        size="paper",
        style="",
        steps=0,
        seed=0,
    )
    config = base()
    config.seed = arg.seed
    config.task = dict(name="capjax.tasks.language")
    config.tokenizer = dict(name="experiments.guiding.lines")
    if arg.captioner:
        config.tokenizer.path = f"{arg.captioner}/tokenizer.model"
    else:
        config.tokenizer.vocab_size = 64 if arg.runlocal else 64_000
    if arg.style or arg.runlocal:
        texts = dict(
            name="experiments.guiding.tags", style=arg.style or "sentences", pictures=False
        )
        train, held_out = dict(texts, split="train"), dict(texts, split="val", size=200)
        variant, overrides, length, batch, steps, rate = "tiny", {}, 24, 32, 200, 2e-3
    else:
        variant, overrides, length, batch, steps, rate = SIZES[arg.size]
        documents = dict(name="experiments.guiding.documents", words=length * 2 // 3)
        train = dict(documents, paths=tuple(arg.corpora.split("+")), blank_lines=64)
        held_out = dict(documents, paths=(arg.held_out,), size=8 if arg.size == "mini" else 500)
    config.steps = 4 if arg.runlocal else arg.steps or steps
    config.batch_size = 8 if arg.runlocal else batch
    config.log_every = 2 if arg.runlocal else 20
    config.model = dict(name="capjax.models.language_model", variant=variant, overrides=overrides)
    if arg.size == "paper" and not (arg.style or arg.runlocal):
        config.model.dtype, config.model.remat = "bfloat16", "full"
        config.mesh.fsdp = 8
    config.tokenizer.max_length = length
    config.data.train = train
    config.data.long_captions = "truncate"

    config.optimizer.learning_rate = rate
    config.optimizer.weight_decay = 0.1
    config.optimizer.b2 = 0.98
    config.optimizer.schedule.warmup_steps = 1 if arg.runlocal else config.steps // 20
    config.checkpoint.every = 1000
    config.evals.text = dict(
        type="capjax.evals.perplexity", every=config.steps, batch_size=8, data=held_out
    )
    return config
