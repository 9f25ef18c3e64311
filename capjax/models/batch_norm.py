"""BatchNorm whose running statistics lie among the parameters (Ioffe and Szegedy, 1502.03167).

`mean` and `var` are leaves of "params" beside `scale` and `bias`, so that whatever holds, saves,
averages or imports parameters holds them too, and a model is applied to its parameters alone. They
have no gradient: no optimiser moves them. What moves them is training itself: with `train=True` the
batch is normalised by its own statistics, and the running ones, moved towards those, are handed
back in the collection `batch_stats`, a part of the tree of parameters with the new values:

    embeddings, state = model.apply({"params": params}, ..., train=True, mutable=[COLLECTION])
    params = merge(params, state.get(COLLECTION, {}))     # after the optimiser's update

Letters: B batch, C channels, G groups.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from capjax.errors import UserError

COLLECTION = "batch_stats"


class BatchNorm(nn.Module):
    """(x - mean) / sqrt(var + epsilon) * scale + bias over all but the last axis; [B,...,C].

    `group`: in training, every so many rows that follow each other are normalised by themselves, as
    on devices that do not exchange statistics (ALIGN, arXiv 2102.05918: 16); 0: the whole batch.
    The running statistics are those of the groups, averaged. `momentum` is the share that is kept.

    Raises UserError for a batch that is no multiple of `group`, and for training whose caller does
    not take the new statistics: they would stay what they were, and evaluation be wrong.
    """

    epsilon: float
    momentum: float
    group: int = 0
    dtype: jnp.dtype = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        channels = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        mean = self.param("mean", nn.initializers.zeros, channels)
        var = self.param("var", nn.initializers.ones, channels)
        y = x.astype(jnp.float32)
        if train:
            y = y.reshape(self._groups(len(x)), -1, *x.shape[1:])
            axes = tuple(range(1, y.ndim - 1))
            batch_mean = jnp.mean(y, axes, keepdims=True)
            batch_var = jnp.mean(jnp.square(y - batch_mean), axes, keepdims=True)
            self._hand_back("mean", mean, batch_mean)
            self._hand_back("var", var, batch_var)
            mean, var = batch_mean, batch_var
        y = (y - mean) * (jax.lax.rsqrt(var + self.epsilon) * scale) + bias
        return y.reshape(x.shape).astype(self.dtype)

    def _groups(self, batch: int) -> int:
        if not self.group:
            return 1
        if batch % self.group:
            raise UserError(
                f"BatchNorm in groups of {self.group} needs a batch that is a multiple of it, not "
                f"{batch}: change config.batch_size, or the model's batch_norm_group"
            )
        return batch // self.group

    def _hand_back(self, name: str, running: jax.Array, batch: jax.Array) -> None:
        if self.is_initializing():
            return
        if not self.is_mutable_collection(COLLECTION):
            raise UserError(
                "this model has BatchNorm, whose statistics training must keep: apply it with "
                f"mutable=[{COLLECTION!r}] and put what comes back into the parameters (merge)"
            )
        batch = jax.lax.stop_gradient(jnp.mean(batch.reshape(-1, batch.shape[-1]), 0))
        moved = self.momentum * jax.lax.stop_gradient(running) + (1 - self.momentum) * batch
        self.sow(COLLECTION, name, moved, reduce_fn=lambda _, new: new, init_fn=lambda: None)


def merge(params: Any, statistics: Any) -> Any:
    """`params` with the leaves of `statistics`, a part of their tree, in place of their own."""
    if not isinstance(statistics, dict):
        return statistics
    return {
        name: merge(value, statistics[name]) if name in statistics else value
        for name, value in params.items()
    }
