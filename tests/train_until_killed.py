"""A toy run with all that a kill may break, for `test_training_kills`; `:steps=80`: its length.

Its evaluator shows when it runs: it holds the file that CAPJAX_EVALUATING names.
"""

import os
import pathlib
import time

import toy

from capjax import config as config_lib


class Evaluator(toy.Evaluator):
    """The toy's, which takes its time where somebody watches."""

    def run(self, params):
        marker = os.environ.get("CAPJAX_EVALUATING")
        if not marker:
            return super().run(params)
        pathlib.Path(marker).touch()
        try:
            time.sleep(0.1)
            return super().run(params)
        finally:
            pathlib.Path(marker).unlink()


def get_config(arg=""):
    arg = config_lib.parse_arg(arg, steps=80, slow=0.0)
    config = toy.get_config()
    config.steps = arg.steps
    config.ema_decay = 0.5
    config.task.noise = 0.1
    config.data.train.slow = arg.slow
    config.evals.norm = {"type": "train_until_killed", "every": 4}
    config.checkpoint = {
        "every": 3,
        "keep": 2,
        "keep_best": 1,
        "best_metric": "evals/norm/norm",
        "lower_is_better": False,
    }
    config.spikes = {"window": 7, "deviations": 2.0, "action": "skip"}
    return config
