"""capjax: captioners steered by classifier-free guidance, and contrastive encoders, in JAX."""

__version__ = "0.1.0"
