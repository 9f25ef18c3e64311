"""Captions for pictures, by a trained captioner, at one or several guidance scales.

  python -m capjax.caption --checkpoint runs/demo/captioner --images photos/ --guidance 1,2 \\
      --out captions.jsonl
  python -m capjax.caption --checkpoint runs/captioner --data "cc12m-{00000..01242}.tar" \\
      --data-fields caption=null --guidance 2 --out captions/ --format parquet --shard 0/8

A row of the output: {"image", "guidance_scale", "caption", "log_prob", "score", "truncated"}.
log_prob is log p(caption | picture) in nats, score what the search went by, truncated says that the
caption reached the longest length without an end; with --samples there is "sample", the number of
the draw, or with --best-of clipscore "clipscore". Without --out the rows go to the terminal.

--out NAME.jsonl is one file, which appears when all is done. Any other --out is a folder of parts
that appear one by one: a job that was stopped goes on with the same command where it was, and hosts
that are given the same command with --shard 0/8, 1/8, ... share the work, as the processes of one
job (SLURM, a TPU pod, --process-id) do by themselves. Pictures that cannot be
used are listed with the reason in bad-*.jsonl there, or in NAME.bad.jsonl beside the one file.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

from capjax.errors import UserError, exit_cleanly

NO_FILES = (".json", ".parquet", ".csv", ".tsv", ".txt", ".gz")  # suffixes that no folder has


def parse_scales(text: str) -> tuple[float, ...]:
    """ "1,1.5,2" -> (1.0, 1.5, 2.0); UserError for what is no list of numbers."""
    from capjax.decode.guidance import check_scale

    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(
            f"cannot read guidance scales from {text!r}: give numbers, such as 1,1.5,2"
        ) from error
    check_scale(scales, len(scales))
    if len(set(scales)) != len(scales):
        raise UserError(f"a guidance scale is given twice in {text!r}: name each once")
    return scales


def parse_shard(text: str):
    """ "2/8" -> host 2 of 8; UserError for what is none."""
    from capjax.decode.bulk_parts import Shard

    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(
            f"--shard is {text!r}: give this host's number and how many there are, from 0/8 to 7/8"
        )
    return Shard(int(index), int(count))


def options_of(args: argparse.Namespace):
    """The `Options` that the command line asks for; UserError for what does not go together."""
    from capjax.decode.options import Options

    for name in ("temperature", "top_k", "top_p"):
        if getattr(args, name) is not None and args.samples is None:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} is about drawing captions at random: add --samples 1 or more")
    if args.length_penalty is not None and args.beams == 1:
        raise UserError("--length-penalty is about beams: add --beams 2 or more")
    if args.must_contain and args.beams == 1:
        raise UserError("--must-contain is searched for with beams: add --beams 5 or more")
    if args.best_of and (args.samples or 0) < 2:
        raise UserError("--best-of chooses among samples: add --samples 2 or more")
    if (args.encoder is not None) != (args.best_of == "clipscore"):
        raise UserError("--best-of clipscore and --encoder RUN go together: give both or neither")
    given = {
        "samples": args.samples,
        "temperature": args.temperature,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "length_penalty": args.length_penalty,
    }
    return Options(
        num_beams=args.beams,
        sample=args.samples is not None,
        min_length=args.min_length,
        max_length=args.max_length,
        no_repeat_ngram=args.no_repeat_ngram,
        repetition_penalty=args.repetition_penalty,
        cache_dtype=args.cache_dtype,
        **{name: value for name, value in given.items() if value is not None},
    )


def main() -> None:
    from capjax.decode.bulk_arguments import parser

    args = parser(__doc__).parse_args()

    import jax

    from capjax.decode import words
    from capjax.decode.bulk import Job, on_all_devices
    from capjax.decode.bulk_request import Request
    from capjax.decode.captioner import Captioner
    from capjax.decode.guidance import warn_if_untrained
    from capjax.models import int8, turned
    from capjax.parallel import processes
    from capjax.runs import open_run

    for name in ("batch_size", "threads", "part_size"):
        if getattr(args, name) < 1:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} is {getattr(args, name)}: give at least 1")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed is {args.seed}: give a number from 0 to {2**32 - 1}")
    scales, options = parse_scales(args.guidance), options_of(args)
    processes.start(args)
    shard = parse_shard(args.shard or f"{jax.process_index()}/{jax.process_count()}")
    to_folder = _is_folder(args.out)
    if not to_folder and (shard.count > 1 or args.format != "jsonl"):
        raise UserError(
            "--shard, several processes and --format parquet need a folder: give --out DIR"
        )
    source, source_text = _source(args)
    run = open_run(args.checkpoint)
    warn_if_untrained(run.config, scales)
    if args.ban:
        options = dataclasses.replace(options, banned=words.banned(run.tokenizer, args.ban))
    if args.weights == "int8":
        # In place of the run's own, whose memory is to be had again.
        model, params = int8.quantise(run.model, run.params)
        run = dataclasses.replace(run, model=model, params=params)
    model, params = run.model, on_all_devices(run.params)
    if args.weights == "float32" and jax.default_backend() == "cpu":
        model, params = turned.turn(model, params)
    captioner = Captioner(model, params, run.tokenizer)
    encoder = open_run(args.encoder) if args.encoder else None
    scorer = _scorer(encoder, args.batch_size) if encoder else None
    request = Request(
        scales,
        options,
        args.prompt,
        args.seed,
        args.best_of == "likelihood",
        scorer,
        tuple(tuple(phrase.split("|")) for phrase in args.must_contain),
    )
    job = Job(
        captioner,
        source,
        request,
        resize=run.config.data.resize,
        batch_size=args.batch_size,
        threads=args.threads,
        max_bad_fraction=args.max_bad_fraction,
    )
    if to_folder:
        from capjax.decode.bulk_parts import Parts
        from capjax.decode.bulk_settings import settings_of

        parts = Parts(
            args.out,
            settings_of(run, source, source_text, request, encoder),
            request.columns,
            records=len(source),
            part_size=args.part_size,
            form=args.format,
            shard=shard,
        )
        _fill(job, parts)
    else:
        _write(job, args.out)


def _is_folder(out: str | None) -> bool:
    if out is None or out.endswith(".jsonl"):
        return False
    if Path(out).suffix in NO_FILES or Path(out).is_file():
        raise UserError(f"--out is {out!r}: name a file that ends with .jsonl, or a folder")
    return True


def _source(args: argparse.Namespace):
    """(the source, what the user calls it)."""
    if (args.images is None) == (args.data is None):
        raise UserError("say which pictures: either --images with paths or --data with a source")
    if args.images is not None:
        from capjax.data.folder import Source

        if args.data_fields:
            raise UserError("--data-fields are those of --data, which is not given")
        return Source(args.images), " ".join(map(str, args.images))
    from capjax.data.spec import open_spec, parse_fields

    return open_spec(args.data, parse_fields(args.data_fields)), " ".join(
        [args.data, *args.data_fields]
    )


def _scorer(run, batch_size: int):
    from capjax.decode.bulk import on_all_devices, whole_batch
    from capjax.decode.bulk_request import ClipScorer
    from capjax.evals.encoder import Encoder

    if not hasattr(type(run.model), "embed_text"):
        raise UserError(f"--encoder {str(run.directory)!r} embeds no texts: give a dual encoder")
    size = whole_batch(batch_size, batch_size)
    encoder = Encoder(run.model, on_all_devices(run.params), run.tokenizer, size)
    return ClipScorer(encoder, run.config.data.resize)


def _fill(job, parts) -> None:
    missing, start = len(parts.missing), time.monotonic()
    captioned = job.fill(parts)
    seconds = max(time.monotonic() - start, 1e-9)
    done = len(parts.ranges) - missing
    print(
        f"{parts.directory}: {len(parts.ranges)} parts of {parts.records:,} pictures, of which "
        f"{len(parts.known_bad()):,} could not be used; {done} parts were there already; "
        f"{captioned:,} pictures captioned in {seconds:,.1f} s ({captioned / seconds:,.1f} a "
        "second)",
        file=sys.stderr,
    )


def _write(job, out: str | None) -> None:
    from capjax.decode.bulk_parts import jsonl
    from capjax.whole_file import whole_file

    bad: dict[str, str] = {}
    if out is None:
        for row in job.rows():
            print(jsonl([row]).decode(), end="")
        return
    with whole_file(out, "wb") as file:
        for row in job.rows(bad):
            file.write(jsonl([row]))
    beside = Path(out).with_suffix(".bad.jsonl")
    if bad:
        with whole_file(beside, "wb") as file:
            file.write(jsonl({"image": key, "error": reason} for key, reason in bad.items()))
    else:
        beside.unlink(missing_ok=True)  # of an earlier run
    print(f"{out}: captions of {len(job.source) - len(bad)} pictures", file=sys.stderr)


if __name__ == "__main__":
    exit_cleanly(main)
