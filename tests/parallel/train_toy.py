"""One of the processes that train the toy captioner together: a program of test_processes.py.

Then process 0 waits for the others where they never come, and prints what it is told.
"""

import argparse
import sys

import toy

from capjax.errors import UserError
from capjax.parallel import process_flags, processes
from capjax.train import train


def config(**mesh):
    """Six steps with all that is random or averaged, on a mesh of these sizes."""
    config = toy.get_config("steps=6")
    config.mesh = mesh
    config.optimizer.name = "sgd"  # adaptive ones blow rounding up where a gradient is nearly zero
    config.ema_decay = 0.5
    config.task.noise = 0.1
    config.evals = {"norm": {"type": "toy", "every": 3}}
    return config


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    process_flags.add(parser)
    args = parser.parse_args()
    processes.start(args)
    train(config(data=-1, fsdp=2), args.workdir)
    if processes.is_first():
        try:
            processes.barrier("a meeting", timeout=1.0)
        except UserError as error:
            print(error, file=sys.stderr)


if __name__ == "__main__":
    main()
