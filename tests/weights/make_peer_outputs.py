"""Writes peer_outputs/*.json: what the public implementations compute from drawn weights.

Run it in an environment that has them; the tests themselves need none of it:

    pip install torch transformers open_clip_torch timm
    PYTHONPATH=tests python tests/weights/make_peer_outputs.py [FAMILY ...]

A family is a module of `peers/` with `cases()`, a list of dicts; see `peer_weights.py`.
"""

import importlib
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent


def main(families):
    """Writes the outputs of these families, or of all."""
    sys.path.insert(0, str(HERE))
    families = families or sorted(path.stem for path in (HERE / "peers").glob("[a-z]*.py"))
    (HERE / "peer_outputs").mkdir(exist_ok=True)
    for family in families:
        module = importlib.import_module(f"peers.{family}")
        text = json.dumps({"made_with": module.MADE_WITH, "cases": module.cases()})
        (HERE / "peer_outputs" / f"{family}.json").write_text(text + "\n")
        print(f"{family}: {len(text) / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
