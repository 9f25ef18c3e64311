"""Parameters of a captioner, drawn without compiling what makes its first ones."""

import jax
import numpy as np

from capjax.models.init import init


def draw(model, deviation, seed=7):
    """Normal around 1 where the norms scale, around 0 elsewhere: captions differ."""
    shapes = jax.eval_shape(lambda key: init(model, key), jax.random.key(0))
    rng = np.random.default_rng(seed)

    def drawn(path, leaf):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return (centre + rng.normal(0, deviation, leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(drawn, shapes)
