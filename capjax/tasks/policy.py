"""Captioning by reinforcement: captions are drawn, rewarded, and made more or less likely.

    for each picture, K captions are drawn         policy_sampling: the decoder, inside the step
        -> rewards                                 capjax.rewards: on the devices or on the host
        -> minus KL and plus entropy               kl_weight, entropy_weight
        -> minus a baseline: the advantage         policy_baselines
        -> a loss with the policy's gradient       policy_estimators: REINFORCE, PPO
        + caption_weight * cross-entropy           of the batch's own captions

Exact on-policy: every update is by captions of the very parameters that it changes (with
estimator="ppo" and passes > 1, of those at the first pass; the ratio corrects the others).
Rewards that need strings do not change that: see `capjax.rollout_step`.

The gradient's expectation is that of  E[reward] - kl_weight KL(policy || starting model) +
entropy_weight H(policy), where KL and H are of whole captions: both enter the reward as
log-probabilities of what was drawn, which makes them exact (with `normalise="none"`, end_token=
"scored" and captions drawn from the whole vocabulary). The starting model is a copy of the first
parameters (those of config.init_from), laid out like them and saved with every checkpoint: a run
goes on the same whatever becomes of the run it started from.

Letters: B pictures, b of a microbatch, K captions of each, C = K or, with a greedy one, K + 1, T
positions, L = T + 1, V vocabulary.
Raises `UserError` for options that cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from capjax import special_tokens
from capjax.decode.options import Options
from capjax.errors import UserError
from capjax.models.init import init
from capjax.rewards import captions as captions_lib
from capjax.rewards.weighted import Rewards
from capjax.tasks import policy_baselines, policy_diagnostics, policy_estimators
from capjax.tasks.losses import caption_nll
from capjax.tasks.policy_sampling import (
    Rollout,
    caption_logits,
    chosen,
    draw,
    drawn_from,
    possible,
    softened,
)

Sums = dict[str, jax.Array]


class Judged(NamedTuple):
    """What is known of drawn captions once they are judged; it holds for all passes."""

    advantage: jax.Array  # float32 [b,K]
    log_p: jax.Array  # float32 [b,K,T]: when they were drawn


class Task:
    """See the module's docstring; `capjax.rollout_step` makes a step of it.

    rewards: sections by name, see `capjax.rewards`. They are opened only where the tokenizer is
      given: to train.
    sampling: fields of `decode.Options`: samples (5 unless given), temperature, top_k, top_p,
      max_length, ... `sample=False` learns from greedy captions, which is biased (DiscriTune).
    baseline, estimator, passes, clip, normalise, end_token: see `policy_baselines` and
      `policy_estimators`; passes: updates by the same captions.
    track_kl: keep the starting model also where kl_weight is 0, to log the divergence from it.
    dropout: the model's, in the learning pass; captions are drawn without, so that with it they
      are not exactly the policy's.
    scoring_threads: of the host, for rewards that need strings.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        tokenizer: Any = None,
        rewards: Mapping[str, Mapping[str, Any]],
        sampling: Mapping[str, Any] | None = None,
        baseline: str = "leave_one_out",
        estimator: str = "reinforce",
        passes: int = 1,
        clip: float = 0.2,
        normalise: str = "none",
        end_token: str = "scored",
        policy_weight: float = 1.0,
        caption_weight: float = 0.0,
        kl_weight: float = 0.0,
        entropy_weight: float = 0.0,
        track_kl: bool = True,
        dropout: bool = False,
        scoring_threads: int = 1,
    ):
        policy_estimators.check(estimator, passes, clip, normalise, end_token)
        weights = dict(policy=policy_weight, caption=caption_weight, kl=kl_weight)
        for name, value in {**weights, "entropy": entropy_weight}.items():
            if not (np.isfinite(value) and value >= 0):
                raise UserError(f"{name}_weight={value} must be 0 or more")
        if scoring_threads < 1:
            raise UserError(f"scoring_threads={scoring_threads} must be at least 1")
        if not hasattr(model, "decode_step"):
            raise UserError(
                f"the model {type(model).__module__} writes no captions, so it is no policy: "
                "choose a captioner, such as capjax.models.coca"
            )
        self.model, self._tokenizer = model, tokenizer
        self.options = _options(sampling or {})
        policy_baselines.check(baseline, self.options.samples)
        self.baseline, self.estimator, self.passes, self.clip = baseline, estimator, passes, clip
        self._how = (normalise, end_token)
        self.policy_weight, self.caption_weight = policy_weight, caption_weight
        self.kl_weight, self.entropy_weight = kl_weight, entropy_weight
        self._has_reference = track_kl or kl_weight > 0
        self._dropout, self.scoring_threads = dropout, scoring_threads
        self.rewards = None if tokenizer is None else Rewards(rewards, model, tokenizer)

    def init(self, rng: jax.Array):
        """The model's parameters, a plain nested dict."""
        return init(self.model, rng)

    def carried(self, params: Any) -> dict[str, Any]:
        """What goes from step to step: the running mean of rewards, and the starting model."""
        state = {"running_mean": policy_baselines.first_mean()}
        return state | (
            {"reference": jax.tree.map(jnp.copy, params)} if self._has_reference else {}
        )

    def carried_on(self, carried: Any, sums: Sums) -> dict[str, Any]:
        """The same after a step."""
        mean = sums.get("penalised_reward", sums["reward"]) / sums["captions"]
        return carried | {
            "running_mean": policy_baselines.with_batch(carried["running_mean"], mean)
        }

    def look_up(self, rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What the rewards want to know of a batch of the loader: arrays [B,...]."""
        return self.rewards.look_up(rows["key"], rows["captions"])

    def sample(self, params: Any, part: Any, own: jax.Array, rng: jax.Array) -> Rollout:
        """Captions of a microbatch, the rows `own` [b] of the batch."""
        greedy = self.baseline == "greedy"
        return draw(self.model, params, part["image"], own, rng, self.options, greedy)

    def tell(self, rows: Mapping[str, Any], tokens: np.ndarray) -> dict[str, np.ndarray]:
        """What the host says of captions int32 [b,C,L] of these rows of the batch."""
        texts = [[self._tokenizer.decode(row[1:].tolist()) for row in own] for own in tokens]
        return self.rewards.tell(rows["key"], rows["captions"], texts)

    def prepare(self, arrays: Any, batch: Mapping[str, Any]) -> Any:
        """What the rewards need of the pictures of the whole batch; arrays: `rewards.arrays`."""
        return self.rewards.prepare(arrays, batch)

    def totals(self, tokens: jax.Array, drawn: Sequence[jax.Array]) -> Sums:
        """Over the whole batch: how many tokens its drawn captions [...,C,L] have, as `end_token`
        counts them, and its own captions [B,L]."""
        end = self._how[1]
        each = [self._captions(rows[..., : self.options.samples, :]) for rows in drawn]
        count = sum(policy_estimators.lengths(c.written, c.words, end).sum() for c in each)
        words = special_tokens.of(self.model).to_write(tokens).sum()
        return {"tokens": count, "words": words.astype(jnp.float32)}

    def judge(
        self,
        carried: Any,
        arrays: Any,
        prepared: Any,
        part: Any,
        own: jax.Array,
        rollout: Rollout,
        told: Mapping[str, jax.Array],
    ) -> Callable[[jax.Array, jax.Array], tuple[Judged, Sums]]:
        """A function of the policy's log p [b,K,T] of the drawn tokens, and of its log p [b,K,T,V]
        of the vocabulary at the temperature: (`Judged`, sums for the log)."""
        samples = self.options.samples
        rows = {k.removeprefix("rows/"): x for k, x in told.items() if k.startswith("rows/")}
        values = self.rewards.score(
            arrays, prepared, self._captions(rollout.tokens, own, rows), told
        )
        drawn = rollout.tokens[:, :samples]
        captions, truncated = self._captions(drawn), rollout.truncated[:, :samples]
        reference = None
        if self._has_reference:
            logits = caption_logits(self.model, carried["reference"], part["image"], drawn)
            reference = softened(possible(logits, self.model), self.options)

        def judged(log_p: jax.Array, soft: jax.Array) -> tuple[Judged, Sums]:
            written = captions.written
            sums = policy_diagnostics.sums_of_captions(captions, truncated, self.model.vocab_size)
            sums["entropy"] = jnp.sum(policy_estimators.entropy(soft) * written)
            reward, own_log_p = values[""][:, :samples], chosen(soft, drawn)
            if reference is not None:
                sums["kl"] = jnp.sum(policy_estimators.divergence(soft, reference) * written)
            if self.kl_weight:
                far = jnp.sum((own_log_p - chosen(reference, drawn)) * written, -1)
                reward = reward - self.kl_weight * far
            if self.entropy_weight:
                reward = reward - self.entropy_weight * jnp.sum(own_log_p * written, -1)
            if self.kl_weight or self.entropy_weight:
                sums["penalised_reward"] = reward.sum()
            greedy = values[""][:, samples] if self.baseline == "greedy" else None
            mean = policy_baselines.mean_of(carried["running_mean"])
            advantage = policy_baselines.advantages(self.baseline, reward, greedy, mean)
            sums |= policy_diagnostics.sums_of_rewards(values, advantage, samples)
            return Judged(advantage, log_p), sums

        return judged

    def learn(
        self,
        params: Any,
        part: Any,
        rollout: Rollout,
        judged: Judged | Callable[[jax.Array, jax.Array], tuple[Judged, Sums]],
        totals: Sums,
        microbatches: int,
        rng: jax.Array,
    ) -> tuple[jax.Array, tuple[Sums, Judged]]:
        """(this microbatch's part of the loss, (sums for the log, `Judged`)).

        judged: what `judge` gave, or at the first pass the function that gives it.
        """
        how = {"train": self._dropout, "rngs": {"dropout": rng}}
        drawn = rollout.tokens[:, : self.options.samples]
        captions, sums = self._captions(drawn), {}
        scores = caption_logits(self.model, params, part["image"], drawn, **how)
        scores = possible(scores, self.model)
        log_p = chosen(drawn_from(scores, drawn, self.model, self.options), drawn)
        if callable(judged):
            soft = softened(jax.lax.stop_gradient(scores), self.options)
            judged, sums = judged(jax.lax.stop_gradient(log_p), soft)
        count = judged.advantage.size * microbatches
        weights = policy_estimators.token_weights(
            captions.written, captions.words, count, totals["tokens"], self._how
        )
        if self.estimator == "ppo":
            loss, cut = policy_estimators.ppo(
                log_p, judged.log_p, judged.advantage, weights, self.clip
            )
            sums["ratio_clipped"] = jnp.sum(cut * captions.written)
        else:
            loss = policy_estimators.reinforce(log_p, judged.advantage, weights)
        sums["policy_loss"] = loss
        loss = self.policy_weight * loss
        if self.caption_weight:
            tokens = part["tokens"]
            logits = caption_logits(self.model, params, part["image"], tokens[:, None], **how)
            words = special_tokens.of(self.model).to_write(tokens)
            nll = caption_nll(logits[:, 0], tokens[:, 1:], words).sum()
            sums["caption_loss"] = nll / jnp.maximum(totals["words"], 1)
            loss = loss + self.caption_weight * sums["caption_loss"]
        return loss, (sums, judged)

    def loss(self, params: Any, batch: Any, rng: jax.Array) -> tuple[jax.Array, Sums]:
        """The learning alone, as if the batch's captions had been drawn, each with an advantage of
        1: what the operations of a step are counted from."""
        tokens = jnp.repeat(batch["tokens"][:, None], self.options.samples, 1)
        rollout = Rollout(tokens, jnp.zeros(tokens.shape[:2], bool))
        judged = Judged(jnp.ones(tokens.shape[:2]), jnp.zeros(tokens[..., 1:].shape))
        totals = self.totals(batch["tokens"], [tokens])
        loss, (sums, _) = self.learn(params, batch, rollout, judged, totals, 1, rng)
        return loss, sums

    def metrics(self, sums: Sums) -> Sums:
        """The log's values from sums over all microbatches."""
        return policy_diagnostics.metrics(sums)

    def _captions(
        self, tokens: jax.Array, own: jax.Array | None = None, rows: Any = None
    ) -> captions_lib.Captions:
        return captions_lib.of_tokens(tokens, special_tokens.of(self.model), own, rows)


def _options(sampling: Mapping[str, Any]) -> Options:
    """How captions are drawn; UserError for what is no drawing."""
    known = Options.__dataclass_fields__
    unknown = [name for name in sampling if name not in known]
    if unknown:
        raise UserError(f"config.task.sampling has no field {unknown[0]!r}: see decode.Options")
    given = {"sample": True, **sampling}
    if given["sample"]:
        given = {"samples": 5, **given}
    options = Options(**given)
    for name in ("num_beams", "keep_scores", "guidance_schedule"):
        if getattr(options, name) != known[name].default:
            raise UserError(
                f"config.task.sampling.{name}: a policy's captions are drawn without it"
            )
    return options
