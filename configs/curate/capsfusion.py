"""CapsFusion's captions: alt-text and synthetic caption fused by a language model, and its rivals.

  OPENAI_BASE_URL=http://localhost:8000/v1 python -m capjax.curate run \\
      configs/curate/capsfusion.py:model=NAME --input "pairs-*.parquet" \\
      "captions=[\\"caption\\"]" "columns=[\\"alt_text\\"]" --output runs/curate/capsfusion

The source has the fields alt_text (raw) and captions (synthetic). With `student=RUN` the fuser is a
run of configs/capsfusion/fuser.py in place of a server's model, prompted by the two texts alone and
decoded with 3 beams. Prompts have at most `limit` tokens (the paper's 256; alt-texts alone are cut)
as the tokenizer of the run `tokenizer` (an imported model, say) or of the student counts them;
without one, four characters are taken for a token. Answers have at most 80. `rewrites=True` also
says the alt-text again by the server's model (LaCLIP's way). Written are alt_text, caption, fused
and mixed, of which each trains a model by configs/capsfusion.
"""

from pathlib import Path

from capjax.config import parse_arg
from capjax.curate.language.ask import Ask
from capjax.curate.language.decoder import Decoder
from capjax.curate.language.server import Server
from capjax.curate.language.templates import load
from capjax.curate.pipeline import Pipeline
from capjax.curate.stages.texts import mix
from capjax.errors import UserError
from experiments.capsfusion.budget import Characters, FitPrompt
from experiments.capsfusion.pipeline import Bare, fuse, ready


def counted_by(run):
    """What counts the tokens of a prompt."""
    if not run:
        return Characters()
    from capjax.runs import open_tokenizer, read_config

    return open_tokenizer(Path(run), read_config(run))


def get_pipeline(arg=""):
    arg = parse_arg(
        arg,
        model="model",
        student="",
        key_from="",
        concurrency=64,
        limit=256,
        tokenizer="",
        empty_caption="alt_text",
        rewrites=False,
        max_tokens=80,
        num_beams=3,
        batch_size=64,
        seed=0,
    )
    if arg.student and arg.rewrites:
        raise UserError("a student fuses and does nothing else: give rewrites=True with a server")
    if arg.student:
        template = Bare()
        model = Decoder(
            arg.student, form="{user}", num_beams=arg.num_beams, batch_size=arg.batch_size, step=32
        )
    else:
        template = load("fuse")
        model = Server(arg.model, key_from=arg.key_from, concurrency=arg.concurrency)
    rewrites = ()
    if arg.rewrites:
        # The prompt reads a field called caption, which here is the alt-text alone.
        template_of_alt_text = load(Path(__file__).with_name("rewrite_alt_text.toml"))
        rewrites = (
            Ask(
                "rewrite",
                model,
                template_of_alt_text,
                output="rewritten",
                fallback="alt_text",
                max_tokens=arg.max_tokens,
            ),
        )
    return Pipeline(
        name="capsfusion",
        source={"key": str, "captions": list[str], "alt_text": str},
        seed=arg.seed,
        stages=(
            ready(arg.empty_caption),
            FitPrompt(template, counted_by(arg.tokenizer or arg.student), arg.limit),
            fuse(model, template, max_tokens=arg.max_tokens),
            *rewrites,
            mix({"alt_text": 0.5, "caption": 0.5}, output="mixed", seed=arg.seed),
        ),
        columns=(
            *("key", "alt_text", "alt_text_cut", "caption", "fused", "fuse_status", "fuse_model"),
            *(("rewritten",) if arg.rewrites else ()),
            *("mixed", "mixed_source"),
        ),
    )
