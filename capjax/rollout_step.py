"""The step of a task that acts before it learns: captions are drawn, judged, and learned from.

A task with `sample` (`capjax.tasks.policy`) has this step instead of that of `capjax.train_step`:

    prepare    what rewards need of the pictures, of the whole batch
    sample     each microbatch
    judge      rewards, advantages; the divergence from the starting model
    learn      gradients, added up over the microbatches: those of the whole batch
    update     once; `passes` times learn and update, where the task says so

With rewards that are JAX functions all of this is one program. Rewards that need strings would make
the devices wait for the host, so that these steps are a sequence of programs, which the devices
work off while the host scores in threads:

    devices    sample 1 | sample 2 | ... | sample K | learn 1 | learn 2 | ... | learn K | update
    host                | score 1    score 2   ...               score K

Captions of microbatch k are read once they are drawn, and `learn k` is handed to the devices once
they are scored; meanwhile the devices draw those of the next ones or learn from those before. All
of a step's captions are drawn by the parameters that the step begins with: nothing is stale, and
the numbers are those of one program. How much is hidden depends on K, config.accumulate_steps: with
1 nothing is, with 2 or more all but what takes longer than drawing and learning of the others.

With several processes each scores the rows that it holds.

Letters: B pictures of the batch, K microbatches, b = B / K pictures of each, C captions of each.
Raises `UserError` for what cannot be together with such a task.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from capjax import flops
from capjax.errors import UserError
from capjax.parallel.activations import pinned
from capjax.parallel.mesh import batch_sharding, put_batch
from capjax.train_step import State, rng_for, split_rows, stopped, updated


def acts(task: Any) -> bool:
    """Whether the task draws what it learns from."""
    return hasattr(task, "sample")


def per_step(schedule: optax.Schedule, task: Any) -> optax.Schedule:
    """The schedule as the optimiser asks for it, by updates, of which a step may have several."""
    passes = getattr(task, "passes", 1)
    return schedule if passes == 1 else lambda count: schedule(count // passes)


def check_acting(task: Any, config: ConfigDict) -> None:
    """Raises UserError for what a task that acts cannot have."""
    if acts(task) and config.spikes.window and config.spikes.action == "skip":
        raise UserError(
            "config.spikes.action='skip' is not for tasks that draw what they learn from: choose "
            "'log' or 'stop'"
        )


class RolloutStep:
    """(state, batch, rows) -> (state, metrics); the given state's buffers are reused.

    rows: the batch as the loader gave it, for its keys and captions; for a task whose `look_up` is
    empty and whose rewards need no strings they may be left out.
    """

    def __init__(
        self,
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
    ):
        self._task, self._tx, self._schedule = task, tx, schedule
        self._rng, self._count = rng_for(seed, "loss"), accumulate_steps
        self._ema_decay, self._frozen, self._abstract = ema_decay, frozen, abstract
        self._mesh, self._rows = mesh, batch_sharding(mesh)
        whole = NamedSharding(mesh, PartitionSpec())
        shardings = jax.tree.map(lambda s: s.sharding, abstract)
        # Arguments of the programs, not constants in them; a copy on every device.
        self._arrays = jax.tree.map(lambda x: _everywhere(x, whole), task.rewards.arrays)
        self._whole = jax.jit(
            self._step,
            donate_argnums=0,
            in_shardings=(shardings, self._rows, whole),
            out_shardings=(shardings, whole),
        )
        if task.rewards.reads_texts:
            params = shardings["params"]
            self._split = jax.jit(lambda batch: _unstacked(self._parts(batch), self._count))
            self._prepare = jax.jit(task.prepare)
            self._sample = jax.jit(self._draw, out_shardings=self._rows)
            self._totals = jax.jit(task.totals)
            self._no_grads = jax.jit(_zeros, out_shardings=params)
            self._learn = jax.jit(
                self._learn_part, donate_argnums=0, out_shardings=(params, None, None)
            )
            self._update = jax.jit(
                self._updated,
                donate_argnums=0,
                static_argnums=3,
                out_shardings=(shardings, whole, whole),
            )
            self._threads = ThreadPoolExecutor(task.scoring_threads, "scoring")

    def __call__(
        self, state: State, batch: dict[str, jax.Array], rows: Mapping[str, Any] | None = None
    ) -> tuple[State, dict[str, jax.Array]]:
        looked_up = self._task.look_up(rows) if rows is not None else {}
        batch = batch | put_batch(looked_up, self._rows)
        if not self._task.rewards.reads_texts:
            return self._whole(state, batch, self._arrays)
        return self._with_host(state, batch, rows)

    def flops(self, state: State, batch: dict[str, jax.Array]) -> flops.Flops:
        """By formula, of the learning alone: three times its forward pass, for each pass."""
        forward = jax.make_jaxpr(self._task.loss)(state["params"], batch, self._rng)
        return flops.Flops(
            formula=3.0 * self._task.passes * flops.products(forward.jaxpr),
            program=0.0,
            peak=flops.peak_flops(jax.devices()[0]) * self._mesh.size,
        )

    def _step(self, state: State, batch: dict[str, jax.Array], arrays: Any):
        """All of it as one function, for rewards that are JAX functions."""
        task, count, params = self._task, self._count, state["params"]
        parts, numbers = self._parts(batch), jnp.arange(count)
        prepared = task.prepare(arrays, batch)
        _, rollouts = _each(
            lambda _, x: ((), self._draw(params, x[0], state["step"], x[1])), (), (parts, numbers)
        )
        totals = task.totals(batch["tokens"], [rollouts.tokens])
        judged, before = None, {}
        for number in range(task.passes):
            known = (state["params"], state["task"], state["step"], arrays, prepared, totals)

            def learn(grads, x, known=known):
                part, rollout, judged, k = x
                grads, sums, judged = self._learn_part(grads, known, part, rollout, {}, judged, k)
                return grads, (sums, judged)

            inputs = (parts, rollouts, judged, numbers)
            grads, (sums, judged) = _each(learn, _zeros(state["params"]), inputs)
            sums = before | jax.tree.map(lambda x: x.sum(0), sums)
            state, metrics, before = self._updated(state, grads, [sums], number + 1 == task.passes)
        return state, metrics

    def _with_host(self, state: State, batch: dict[str, jax.Array], rows: Mapping[str, Any]):
        """The same as a sequence of programs, with the host's part in between."""
        task, count = self._task, self._count
        parts = self._split(batch)
        prepared = self._prepare(self._arrays, batch)
        rollouts, told = [], []
        for k, part in enumerate(parts):
            rollouts.append(self._sample(state["params"], part, state["step"], np.int32(k)))
            told.append(self._threads.submit(self._tell, rows, rollouts[k].tokens, k))
        try:
            totals = self._totals(batch["tokens"], [rollout.tokens for rollout in rollouts])
            judged, before = [None] * count, {}
            for number in range(task.passes):
                known = (state["params"], state["task"], state["step"])
                known += (self._arrays, prepared, totals)
                grads, sums = self._no_grads(state["params"]), []
                for k in range(count):
                    scored = put_batch(told[k].result(), self._rows) if number == 0 else {}
                    grads, own, judged[k] = self._learn(
                        grads, known, parts[k], rollouts[k], scored, judged[k], np.int32(k)
                    )
                    sums.append(own)
                sums[0] = before | sums[0]
                last = number + 1 == task.passes
                state, metrics, before = self._update(state, grads, sums, last)
        finally:
            for each in told:
                each.cancel()
        return state, metrics

    def _parts(self, batch: Any) -> Any:
        """[B,...] -> [K,b,...]."""
        return jax.tree.map(lambda x: split_rows(x, self._count), batch)

    def _draw(self, params: Any, part: Any, step: jax.Array, k: jax.Array) -> Any:
        rng = jax.random.fold_in(jax.random.fold_in(self._rng, step), 0)
        return self._task.sample(params, part, self._own(part, k), rng)

    def _own(self, part: Any, k: jax.Array) -> jax.Array:
        """int32 [b]: the rows of the batch that microbatch k has."""
        return jnp.arange(len(part["tokens"])) * self._count + k

    def _learn_part(self, grads: Any, known: Any, part, rollout, told, judged, k: jax.Array):
        """(gradients with this microbatch's, its sums for the log, what `judge` found)."""
        params, carried, step, arrays, prepared, totals = known
        task = self._task
        rng = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(self._rng, step), 1), k)
        with pinned(self._abstract["params"]):
            if judged is None:
                own = self._own(part, k)
                judged = task.judge(carried, arrays, prepared, part, own, rollout, told)

            def loss(params: Any):
                if self._frozen is not None:
                    params = stopped(self._frozen, params)
                return task.learn(params, part, rollout, judged, totals, self._count, rng)

            (value, (sums, judged)), own_grads = jax.value_and_grad(loss, has_aux=True)(params)
        return jax.tree.map(jnp.add, grads, own_grads), sums | {"loss": value}, judged

    def _updated(self, state: State, grads: Any, sums: list[Any], last: bool):
        """(state, metrics, sums of the whole batch) after a pass; metrics come with the last.

        sums: of the microbatches; those that only the first has are of an earlier pass.
        """
        total = {name: sum(own[name] for own in sums if name in own) for name in sums[0]}
        metrics = {}
        if last:
            metrics = self._task.metrics({n: x for n, x in total.items() if n != "loss"})
        new, metrics = updated(
            state,
            total["loss"],
            metrics,
            grads,
            self._tx,
            self._schedule,
            self._ema_decay,
            self._frozen,
        )
        if not last:
            return new | {"step": state["step"]}, {}, total
        new["task"] = self._task.carried_on(state["task"], total)
        return new, metrics, {}

    def _tell(self, rows: Mapping[str, Any], tokens: jax.Array, k: int) -> dict[str, np.ndarray]:
        """What the host says of this process's captions of microbatch k; waits for them."""
        own = {name: rows[name][k :: self._count] for name in ("key", "captions")}
        return self._task.tell(own, _here(tokens))


def _each(function: Any, carry: Any, inputs: Any) -> Any:
    """`lax.scan`, or the function itself where there is one microbatch: that compiles sooner."""
    if len(jax.tree.leaves(inputs)[0]) > 1:
        return jax.lax.scan(function, carry, inputs)
    carry, found = function(carry, jax.tree.map(lambda x: x[0], inputs))
    return carry, jax.tree.map(lambda x: x[None], found)


def _zeros(params: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, params)


def _unstacked(parts: Any, count: int) -> tuple[Any, ...]:
    return tuple(jax.tree.map(lambda x, k=k: x[k], parts) for k in range(count))


def _everywhere(array: Any, whole: NamedSharding) -> jax.Array:
    """A copy on every device; each process must hold the same array."""
    here = np.asarray(array)
    return jax.make_array_from_callback(here.shape, whole, lambda index: here[index])


def _here(tokens: jax.Array) -> np.ndarray:
    """This process's rows of an array [b,...] that is split as batches are, in their order."""
    shards = {shard.index[0].start or 0: shard.data for shard in tokens.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])
