"""Scene-graph parsers, one a module, each offering `Parser` (see `capjax.metrics.scene_graph`).

- `spacy`: English captions, by the dependency parse of a spaCy model.
- `scenes`: captions of the generated scenes, by their own grammar.
- `toy`: nouns and verbs of a short word list, for tests alone.
"""
