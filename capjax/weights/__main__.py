"""Published checkpoints in and out.

  python -m capjax.weights inspect SOURCE
  python -m capjax.weights import SOURCE --to runs/clip
  python -m capjax.weights verify runs/clip SOURCE
  python -m capjax.weights export runs/clip --to clip-finetuned

SOURCE is a folder or a file: safetensors (in shards too), PyTorch's .bin, .pt and .pth (read
without torch, and without running what is in them), big_vision's .npz, llama2.c's .bin. What it
holds is told by its tensors and config.json. An imported checkpoint is a run directory like one
that was trained here: evaluate it, caption with it, train on from it with config.init_from, or
take parts of it with config.init_parts.
"""

from __future__ import annotations

import argparse
import sys

from capjax.errors import exit_cleanly


def main() -> None:
    """Parses the command line and does what it says."""
    parser = argparse.ArgumentParser(
        prog="python -m capjax.weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (_add_import, _add_export, _add_inspect, _add_verify):
        add(commands)
    args = parser.parse_args()
    exit_cleanly(lambda: args.run(args))


def _add_import(commands) -> None:
    parser = commands.add_parser("import", help="make a run directory of a published checkpoint")
    parser.add_argument("source", help="a folder or a file")
    parser.add_argument("--to", required=True, help="the run directory to write; must not exist")
    _add_family(parser)
    parser.add_argument("--tokenizer", help="its file or folder, if it does not lie beside SOURCE")
    parser.add_argument(
        "--image-size", type=int, help="pixels; another one than published resamples positions"
    )
    parser.add_argument(
        "--add-token",
        action="append",
        default=[],
        metavar="TEXT",
        help="a new token, for which the embedding grows by a row; may be repeated. SentencePiece "
        "models and CLIP's merges take none",
    )
    parser.add_argument(
        "--dtype",
        default="float32",
        help="of the parameters: float32 (default), bfloat16 or float16",
    )
    parser.set_defaults(run=_import)


def _import(args: argparse.Namespace) -> None:
    from capjax.weights.importing import import_checkpoint

    loaded = import_checkpoint(
        args.source,
        args.to,
        family=args.family,
        tokenizer=args.tokenizer,
        image_size=args.image_size,
        add_tokens=tuple(args.add_token),
        dtype=args.dtype,
    )
    print(
        f"{args.to}: {loaded.plan.family}, {_count(loaded.params):,} parameters, as "
        f"{loaded.config.model.name}"
    )


def _add_export(commands) -> None:
    parser = commands.add_parser("export", help="write a run in a form that other libraries load")
    parser.add_argument("run_directory", help="a run of an importable family")
    parser.add_argument("--to", required=True, help="the folder to write; must not exist")
    parser.add_argument("--like", help="an imported run or a checkpoint whose form to take")
    parser.add_argument("--step", type=int, help="of the run's checkpoints; the latest by default")
    parser.add_argument("--dtype", default="", help="of the tensors; as published by default")
    parser.add_argument("--licence", default="", help="for the card, if not the original's")
    parser.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> None:
    from capjax.weights.exporting import export

    plan = export(
        args.run_directory,
        args.to,
        like=args.like,
        step=args.step,
        dtype=args.dtype,
        licence=args.licence,
    )
    print(f"{args.to}: {plan.family}")


def _add_inspect(commands) -> None:
    parser = commands.add_parser("inspect", help="what a checkpoint holds and what it is")
    parser.add_argument("source", help="a folder or a file")
    _add_family(parser)
    parser.add_argument("--tokenizer", help="its file or folder, if it does not lie beside SOURCE")
    parser.set_defaults(run=_inspect)


def _inspect(args: argparse.Namespace) -> None:
    import math

    from capjax.errors import UserError
    from capjax.weights import families

    source = families.open_source(args.source, args.tokenizer)
    rows = [(n, str(source.tensors[n].dtype), source.tensors[n].shape) for n in source.tensors]
    width = max((len(name) for name, *_ in rows), default=0)
    for name, dtype, shape in rows:
        print(f"{name:{width}}  {dtype:8}  {' x '.join(map(str, shape)) or 'one number'}")
    total = sum(math.prod(shape) for *_, shape in rows)
    print(f"{len(rows)} tensors, {total:,} numbers, {source.tensors.format}")
    try:
        plan = families.recognise(source, args.family)
    except UserError as error:
        print(error, file=sys.stderr)
        return
    print(f"family {plan.family}: config.model = {dict(plan.model)}")


def _add_verify(commands) -> None:
    parser = commands.add_parser("verify", help="compare a run with a checkpoint, tensor by tensor")
    parser.add_argument("run_directory")
    parser.add_argument("source", help="a folder or a file")
    _add_family(parser)
    parser.add_argument("--tokenizer", help="its file or folder; the run's own by default")
    parser.set_defaults(run=_verify)


def _verify(args: argparse.Namespace) -> int:
    from capjax.weights.verify import differences

    found = differences(args.run_directory, args.source, args.family, args.tokenizer)
    other = [d for d in found if d.largest > 0]
    for d in sorted(other, key=lambda d: -d.largest / max(d.scale, 1e-30))[:20]:
        print(f"{d.name}: differs by {d.largest:.3g}, largest value {d.scale:.3g}")
    print(f"{len(found) - len(other)} of {len(found)} tensors are the same, bit for bit")
    return 1 if other else 0


def _add_family(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--family",
        default="",
        help="coca, clip, clip_transformers, siglip, blip, vit, gpt2, ...: only if SOURCE does "
        "not tell by itself",
    )


def _count(params) -> int:
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(params))


if __name__ == "__main__":
    main()
