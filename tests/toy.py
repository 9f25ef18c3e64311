"""A toy captioner for tests of the loop: model, task, data and evaluator in one module.

Named in configs as "toy" (tests/ is on the path of the tests). It trains in milliseconds and
shows what the loop must handle: randomness in the loss, a weight, bad records and a poisoned one.
"""

import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from capjax import config as config_lib
from capjax.errors import BadRecord

COLOURS = ("red", "green", "blue", "yellow")


class Model(nn.Module):
    """Mean colour of the picture and the token before -> logits of the next token."""

    vocab_size: int
    max_length: int
    image_size: int
    width: int = 16

    @nn.compact
    def __call__(self, image, tokens):
        context = nn.Dense(self.width, name="image")(image.mean((1, 2)) / 255.0 - 0.5)
        words = nn.Embed(self.vocab_size, self.width, name="words")(tokens)
        hidden = nn.tanh(nn.Dense(4 * self.width, name="hidden")(words + context[:, None]))
        return nn.Dense(self.vocab_size, name="logits")(nn.LayerNorm(name="norm")(hidden))


class Task:
    """Cross-entropy over tokens; `noise` adds a random vector to each example's loss."""

    def __init__(self, *, model, noise=0.0):
        self.model, self.noise = model, noise

    def init(self, rng):
        size = self.model.image_size
        image = jnp.zeros((1, size, size, 3), jnp.uint8)
        return self.model.init(rng, image, jnp.zeros((1, 4), jnp.int32))["params"]

    def loss(self, params, batch, rng):
        tokens = batch["tokens"]
        logits = self.model.apply({"params": params}, batch["image"], tokens[:, :-1])
        if self.noise:
            logits += self.noise * jax.random.normal(rng, logits.shape)
        losses = -jnp.take_along_axis(nn.log_softmax(logits), tokens[:, 1:, None], -1)[..., 0]
        # A white picture is the poison that makes the loss no number.
        white = (batch["image"].min((1, 2, 3)) == 255)[:, None]
        weights = (tokens[:, 1:] != 0).astype(jnp.float32)
        loss = jnp.sum(jnp.where(white, jnp.nan, losses) * weights) / weights.sum()
        return loss, {"weight": weights.sum(), "accuracy_proxy": jnp.exp(-loss)}


class Source:
    """`size` one-coloured pictures; `bad` do not load, `poison` is white, `slow` seconds each."""

    def __init__(self, size=64, image_size=8, bad=(), poison=-1, slow=0.0):
        self.size, self.image_size = size, image_size
        self.bad, self.poison, self.slow = set(bad), poison, slow

    def __len__(self):
        return self.size

    def captions(self, index):
        colour = COLOURS[index % len(COLOURS)]
        return [f"a {colour} picture", f"{colour} number {index % 7}"]

    def __getitem__(self, index):
        time.sleep(self.slow)
        key = f"toy-{index}"
        if index in self.bad:
            raise BadRecord(key, "it does not decode")
        image = np.full((self.image_size, self.image_size, 3), 10 + index % 200, np.uint8)
        image[..., index % 3] //= 2
        if index == self.poison:
            image[:] = 255
        return {"key": key, "image": image, "captions": self.captions(index)}


class Evaluator:
    """The norm of the parameters, under the name that the config gives."""

    def __init__(self, *, model, tokenizer, label="norm"):
        self.label = label

    def run(self, params):
        total = sum(float(jnp.sum(jnp.square(x))) for x in jax.tree.leaves(params))
        return {self.label: total**0.5}


def get_config(arg=""):
    arg = config_lib.parse_arg(arg, steps=8, devices=1)
    config = config_lib.base()
    config.steps = arg.steps
    config.batch_size = 8
    config.log_every = 1
    config.model = {"name": "toy"}
    config.task = {"name": "toy"}
    config.data.train = {"name": "toy"}
    config.data.image_size = 8
    config.data.num_threads = 2
    config.tokenizer.vocab_size = 64
    config.tokenizer.max_length = 16
    config.optimizer.learning_rate = 0.01
    config.checkpoint.every = 3
    config.mesh.data = arg.devices
    return config
