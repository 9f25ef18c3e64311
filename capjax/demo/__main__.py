"""A web page to try a captioner: drop a picture, move the guidance scale, see what it changes.

  python -m capjax.demo --checkpoint runs/demo/captioner

Then open the address that is printed in a browser. The page shows the caption without guidance
beside the one at the scale of the slider, the captions at several other scales, and which words
guidance changed. It runs on this machine alone: no picture leaves it, and no network is needed.
Ctrl-C ends it, and the pictures that were dropped are forgotten.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path

from capjax.errors import UserError, exit_cleanly


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m capjax.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="DIR",
        help="a captioner's run directory: the --workdir of capjax.train, or what "
        "capjax.weights import made of a published checkpoint",
    )
    parser.add_argument(
        "--examples",
        nargs="+",
        default=[],
        metavar="PATH",
        help="pictures and folders of pictures to offer; by default some of those that the run is "
        "evaluated on, if they are on this machine",
    )
    parser.add_argument(
        "--scales",
        default="0,1,1.5,2,3,4",
        metavar="GAMMAS",
        help="guidance scales whose captions are always shown (default: %(default)s)",
    )
    parser.add_argument(
        "--max-gamma",
        type=float,
        default=10.0,
        metavar="GAMMA",
        help="where the slider ends (default: 10)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen at: 127.0.0.1 (default) is for this machine alone, 0.0.0.0 for "
        "everyone who can reach it",
    )
    parser.add_argument(
        "--port", type=int, default=7860, help="the port (default: 7860); 0 takes any that is free"
    )
    return parser


def main() -> None:
    args = parser().parse_args()

    from capjax.caption import parse_scales
    from capjax.demo import page

    scales = parse_scales(args.scales)
    if not 1 <= args.max_gamma < float("inf"):
        raise UserError(f"--max-gamma is {args.max_gamma:g}: give at least 1, plain decoding")
    with tempfile.TemporaryDirectory(prefix="capjax-demo-") as folder:
        # Gradio keeps uploads here; they vanish with the folder.
        os.environ["GRADIO_TEMP_DIR"] = folder
        # What can be told at once is told before a large checkpoint is read.
        page.gradio()
        port = free_port(args.host, args.port)
        served = _page(args, scales, Path(folder))
        address = page.serve(served, args.host, port)
        print(f"open {address} in a browser (Ctrl-C ends it)", flush=True)
        _wait()


def _page(args: argparse.Namespace, scales: tuple[float, ...], folder: Path):
    from capjax.demo.answers import Answers
    from capjax.demo.examples import write_examples
    from capjax.demo.page import build
    from capjax.runs import open_run

    run = open_run(args.checkpoint)
    answers = Answers(run, scales)
    pictures = write_examples(run.config, args.examples, folder)
    if not pictures:
        _say("the pictures that the run is evaluated on are not here: name some with --examples")
    _say("compiling for this model; the page will be there in a moment ...")
    answers.warm_up()
    title = f"{run.directory}, step {run.step:,}: {run.config.model.name}"
    return build(answers, title, pictures, args.max_gamma)


def free_port(host: str, port: int) -> int:
    """The port if it can be listened at, or for 0 any that can; UserError otherwise."""
    if not 0 <= port < 2**16:
        raise UserError(f"--port is {port}: give a number from 0 to {2**16 - 1}")
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            return trial.getsockname()[1]
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} of {host} is taken, perhaps by another demo: give another one with "
                "--port, or --port 0 for any that is free"
            ) from error
        raise UserError(
            f"cannot listen at {host!r} port {port}: {error.strerror or error}; give an address of "
            "this machine with --host and a port above 1023 with --port"
        ) from error


def _wait() -> None:
    """Until Ctrl-C or SIGTERM; the server's thread ends with the process."""

    def end(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    threading.Event().wait()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    exit_cleanly(main)
