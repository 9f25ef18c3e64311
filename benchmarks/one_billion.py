"""A captioner of a billion parameters: the config whose fit is measured, never trained here.

  python -m capjax.fits --config benchmarks/one_billion.py --devices 64 --memory 80

CoCa-Large (arXiv 2205.01917, table 1) with deeper text halves, pretrained as configs/guiding/
pretrain.py is, on a mesh of 64 with the state over all of them, and 4,096 pictures a step.
"""

from pathlib import Path

from capjax.config import load


def get_config():
    config = load(str(Path(__file__).parents[1] / "configs/guiding/pretrain.py"))
    with config.unlocked():
        config.model.size = "large"
        config.model.size_overrides = dict(unimodal_layers=18, multimodal_layers=20)
    config.batch_size = 4096
    config.mesh.data, config.mesh.fsdp = 1, 64
    config.optimizer.name = "adamw"
    return config
