"""Generated scenes: coloured shapes with exact graphs, masks, boxes and captions from a grammar.

`Source` draws them; `parse` (a module) reads captions back and computes what they tell apart.
"""

from capjax.data.scenes.grammar import REGISTERS
from capjax.data.scenes.graph import Scene, SceneObject
from capjax.data.scenes.source import Source, caption_distribution

__all__ = ["REGISTERS", "Scene", "SceneObject", "Source", "caption_distribution"]
