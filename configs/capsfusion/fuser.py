"""A fuser of one's own: a language model that learns from a teacher's fused captions to fuse.

  python -m capjax.weights import DOWNLOADED/Llama-2-13b-hf --to runs/llama-2-13b
  python -m capjax.train --workdir runs/capsfusion/fuser --config \\
      "configs/capsfusion/fuser.py:init=runs/llama-2-13b,triples=runs/curate/teacher/part-*.parquet"

`triples` are Parquet files with alt_text, caption and fused, as configs/curate/capsfusion.py writes
them with a large model as the teacher; the paper's are 1M of ChatGPT's and its student is
LLaMA-2-13B (the number, learning rate and epochs are unverified; the rate, the batch and the three
epochs here are Alpaca's, from which its code is partly adapted). The loss is that of all tokens,
the prompt included. Nothing has been trained with it at this size.

`size=small` is two layers of width 64, and with no `triples` the small world's, whose teacher is a
script (experiments/capsfusion/script.py), no model; what came out is in
experiments/capsfusion/README.md. `:runlocal` takes a few steps of an even
smaller one.
"""

from capjax.config import base, parse_arg
from capjax.runs import tokenizer_of

LLAMA_2_13B = dict(layers=40, width=5120, heads=40, kv_heads=40, mlp_dim=13_824)
TRIPLES = 1_000_000


def get_config(arg=""):
    arg = parse_arg(arg, init="", triples="", size="paper", steps=0, seed=0)
    config = base()
    config.seed = arg.seed
    config.task = dict(name="capjax.tasks.language")
    config.model = dict(name="capjax.models.language_model", variant="tiny", overrides={})
    texts = dict(name="experiments.capsfusion.triples", path=arg.triples)
    held_out = texts
    config.optimizer.weight_decay = 0.0
    if arg.runlocal:
        # As configs/guiding/language_model.py, so that both compile alike.
        config.tokenizer.vocab_size, config.tokenizer.max_length = 64, 24
        config.optimizer.weight_decay, config.optimizer.b2 = 0.1, 0.98
        config.steps, config.batch_size, config.log_every, rate = 4, 8, 2, 1e-3
    elif arg.size == "small":
        config.model.overrides = dict(max_positions=256)
        config.tokenizer.vocab_size, config.tokenizer.max_length = 256, 48
        config.tokenizer.num_records = 1000
        config.steps, config.batch_size, config.log_every, rate = arg.steps or 1500, 64, 50, 3e-3
        config.mesh.data = 1
    else:
        config.model.update(
            variant="llama-2-7b", overrides=LLAMA_2_13B, dtype="bfloat16", remat="full"
        )
        config.mesh.fsdp = 8
        config.init_from = arg.init
        if arg.init:
            config.tokenizer = tokenizer_of(arg.init)
        else:
            config.tokenizer.vocab_size = 32_000
        config.tokenizer.max_length = 336  # 256 tokens of prompt and 80 of answer
        config.batch_size, config.log_every, rate = 128, 50, 2e-5
        config.steps = arg.steps or 3 * TRIPLES // config.batch_size
    if not arg.triples:
        # Of other scenes than the captioners': the fuser has not seen what it is to fuse.
        texts |= dict(size=200 if arg.runlocal else 4000, seed=1)
        held_out = texts | dict(split="val", size=64)
    config.data.train = texts
    config.data.long_captions = "truncate"

    config.optimizer.learning_rate = rate
    config.optimizer.schedule.warmup_steps = max(1, config.steps * 3 // 100)
    config.checkpoint.every = 1000
    config.evals.text = dict(
        type="capjax.evals.perplexity",
        every=config.steps,
        batch_size=8,
        data=held_out,
        limit=64 if arg.size == "small" else 1000,
    )
    return config
