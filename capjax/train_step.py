"""One step of training as a pure function of (state, batch), and the state it starts from.

The state is a plain dict, so that what is on disk is that dict:

    step       int32 [], steps taken
    params     the task's parameters, a nested dict of arrays
    opt_state  the optimiser's
    ema        moving average of `params`, only with ema_decay > 0
    task       what the task carries from step to step, only if it offers `carried`

Randomness is folded from (seed, purpose, step): no key is carried along, and a resumed run draws
what an undisturbed one would. The numbers do not depend on the mesh beyond the order of sums.

Letters: B examples of the global batch, K microbatches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from capjax.errors import UserError
from capjax.models import batch_norm
from capjax.parallel.activations import pinned
from capjax.parallel.mesh import BATCH_AXES, batch_sharding
from capjax.parallel.sharding import Rules, state_shardings

State = dict[str, Any]
Step = Callable[[State, dict[str, jax.Array]], tuple[State, dict[str, jax.Array]]]

_PURPOSES = ("init", "loss")


def _init(task: Any) -> Callable[[jax.Array], Any]:
    """`task.init`, jitted: traced once by those who call it, however they lay it out."""
    return jax.jit(task.init)


def rng_for(seed: int, purpose: str) -> jax.Array:
    """The key for one purpose; fold the step into it where it is used."""
    return jax.random.fold_in(jax.random.key(seed), _PURPOSES.index(purpose))


def first_state(
    params: Any, tx: optax.GradientTransformation, ema_decay: float, task: Any = None
) -> State:
    """The state before the first step with these parameters; to be called under `jit`."""
    state = {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "opt_state": tx.init(params),
    }
    if ema_decay:
        state["ema"] = jax.tree.map(jnp.copy, params)
    if hasattr(task, "carried"):
        state["task"] = task.carried(params)
    return state


def abstract_state(
    task: Any, tx: optax.GradientTransformation, ema_decay: float, rules: Rules, mesh: Mesh
) -> State:
    """The state's shapes, each with its sharding: what to restore into, and how to initialise."""

    shapes = jax.eval_shape(
        lambda: first_state(_init(task)(rng_for(0, "init")), tx, ema_decay, task)
    )
    shardings = state_shardings(rules, shapes, shapes["params"], mesh)
    return jax.tree.map(
        lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def first_params(task: Any, abstract: State, seed: int) -> Any:
    """The task's own first parameters, laid out like those of `abstract`."""
    shardings = jax.tree.map(lambda s: s.sharding, abstract["params"])
    # It runs once, and without this XLA for CPUs spends as long on it as on the step itself.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    init = jax.jit(_init(task), out_shardings=shardings, compiler_options=options)
    return init(rng_for(seed, "init"))


def init_state(
    task: Any,
    tx: optax.GradientTransformation,
    ema_decay: float,
    abstract: State,
    seed: int,
    params: Any = None,
) -> State:
    """The first state, laid out like `abstract`; `params` replace the task's own if given."""
    shardings = jax.tree.map(lambda s: s.sharding, abstract)
    if params is None:
        params = first_params(task, abstract, seed)
    return jax.jit(
        lambda p: first_state(p, tx, ema_decay, task), out_shardings=shardings, donate_argnums=0
    )(params)


def make_step(
    task: Any,
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    seed: int,
    accumulate_steps: int,
    ema_decay: float,
    abstract: State,
    mesh: Mesh,
    frozen: Any = None,
) -> Step:
    """The compiled step: (state, batch) -> (state, metrics). The given state's buffers are reused.

    metrics: loss, learning_rate, grad_norm (before clipping), param_norm (after the update) and
    whatever the task reports, all float32 scalars. What it reports as `batch_stats` is a part of
    the tree of parameters that takes its new values from there (`models.batch_norm`).

    `frozen`, a tree like the parameters, is True for those that stay; no gradient is computed for
    them, and BatchNorm's statistics among them stay too.
    """
    rng = rng_for(seed, "loss")
    if frozen is not None and any(jax.tree.leaves(frozen)):
        task = _Frozen(task, frozen)

    def step(state: State, batch: dict[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        step_rng = jax.random.fold_in(rng, state["step"])
        with pinned(abstract["params"]):
            loss, metrics, grads = loss_and_grads(
                task, state["params"], batch, step_rng, accumulate_steps
            )
        return updated(state, loss, metrics, grads, tx, schedule, ema_decay, frozen)

    shardings = jax.tree.map(lambda s: s.sharding, abstract)
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, whole),
    )


def updated(
    state: State,
    loss: jax.Array,
    metrics: dict[str, Any],
    grads: Any,
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    ema_decay: float,
    frozen: Any,
) -> tuple[State, dict[str, jax.Array]]:
    """(the state after one update by these gradients, all metrics of the step)."""
    statistics = metrics.pop(batch_norm.COLLECTION, {})
    updates, opt_state = tx.update(grads, state["opt_state"], state["params"])
    params = batch_norm.merge(optax.apply_updates(state["params"], updates), statistics)
    if frozen is not None:
        params = jax.tree.map(lambda f, x, y: x if f else y, frozen, state["params"], params)
    new = {"step": state["step"] + 1, "params": params, "opt_state": opt_state}
    if ema_decay:
        new["ema"] = optax.incremental_update(params, state["ema"], 1 - ema_decay)
    if "task" in state:
        new["task"] = state["task"]
    metrics = metrics | {
        "loss": loss,
        "learning_rate": schedule(state["step"]),
        "grad_norm": optax.global_norm(grads),
        "param_norm": optax.global_norm(params),
    }
    return new, {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}


def stopped(frozen: Any, params: Any) -> Any:
    """The parameters, of which no gradient is computed where `frozen` is True."""
    return jax.tree.map(lambda f, p: jax.lax.stop_gradient(p) if f else p, frozen, params)


class _Frozen:
    """A task whose loss does not depend on some parameters, as far as gradients know."""

    def __init__(self, task: Any, frozen: Any):
        self.task, self.frozen = task, frozen
        if hasattr(task, "accumulate"):
            self.accumulate = self._accumulate

    def loss(self, params, batch, rng: jax.Array):
        return self.task.loss(stopped(self.frozen, params), batch, rng)

    def _accumulate(self, params, batch, microbatches, rng: jax.Array):
        loss, metrics, grads = self.task.accumulate(params, batch, microbatches, rng)
        zero = jax.tree.map(lambda f, g: jnp.zeros_like(g) if f else g, self.frozen, grads)
        return loss, metrics, zero


def loss_and_grads(
    task: Any, params: Any, batch: dict[str, jax.Array], rng: jax.Array, accumulate_steps: int = 1
) -> tuple[jax.Array, dict[str, jax.Array], Any]:
    """(loss, metrics, gradients) of the batch, computed in `accumulate_steps` microbatches.

    A task that reports `weight` (the number of tokens its mean was taken over) has its
    microbatches averaged by it, which gives the mean over the whole batch. Exact for losses that
    are means over examples or tokens, but for random masks, drawn for each microbatch anew. A
    task whose loss is none (a contrastive one compares the examples with each other) offers
    `accumulate(params, batch, microbatches, rng) -> (loss, metrics, gradients)`; without it, such
    a loss sees its microbatch only.
    """
    grad_fn = jax.value_and_grad(task.loss, has_aux=True)
    if accumulate_steps == 1:
        (loss, metrics), grads = grad_fn(params, batch, rng)
        return loss, metrics, grads
    microbatches = jax.tree.map(lambda x: split_rows(x, accumulate_steps), batch)
    if hasattr(task, "accumulate"):
        return task.accumulate(params, batch, microbatches, rng)

    def one(carry: Any, inputs: tuple[jax.Array, dict[str, jax.Array]]) -> tuple[Any, None]:
        index, microbatch = inputs
        (loss, metrics), grads = grad_fn(params, microbatch, jax.random.fold_in(rng, index))
        weight = jnp.asarray(metrics.get("weight", 1.0), jnp.float32)
        weighted = jax.tree.map(lambda x: x * weight, (loss, metrics, grads))
        return jax.tree.map(jnp.add, carry, (weight, weighted)), None

    first = jax.tree.map(lambda x: x[0], microbatches)
    (loss, metrics), grads = jax.eval_shape(grad_fn, params, first, rng)
    zeros = jax.tree.map(
        lambda s: jnp.zeros(s.shape, jnp.promote_types(s.dtype, jnp.float32)),
        (jax.ShapeDtypeStruct((), jnp.float32), (loss, metrics, grads)),
    )
    indices = jnp.arange(accumulate_steps)
    (total, sums), _ = jax.lax.scan(one, zeros, (indices, microbatches))
    loss, metrics, grads = jax.tree.map(lambda x: x / total, sums)
    if "weight" in metrics:
        metrics["weight"] = total
    return loss, metrics, grads


def split_rows(x: jax.Array, count: int) -> jax.Array:
    """[B,...] -> [K,B/K,...]: microbatch k takes rows k, k+K, ... so that no row changes device."""
    if x.shape[0] % count:
        raise UserError(
            f"accumulate_steps={count} does not divide a batch of {x.shape[0]}: make "
            f"config.batch_size a multiple of {count}"
        )
    x = x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(None, BATCH_AXES))
