"""The small world of CLIP: what is held out stays out, captions fit unless permuted."""

import numpy as np

from experiments.clip.shapes import CLASSES, HELD_OUT, Source


def test_training_never_shows_the_pairs_that_the_test_asks_for():
    held_out = {f"{colour} {shape}" for colour, shape in HELD_OUT}
    assert len(held_out) == 12
    assert held_out < set(CLASSES)
    assert len(CLASSES) == 48
    train, val, test = (Source(split, 400) for split in ("train", "val", "test"))
    seen = {train[i]["label"] for i in range(400)} | {val[i]["label"] for i in range(400)}
    asked = {test[i]["label"] for i in range(400)}
    assert asked == held_out
    assert seen == set(CLASSES) - held_out
    captions = " ".join(train.captions(i)[0] for i in range(400))
    assert not any(name in captions for name in held_out)


def test_captions_name_the_label_unless_they_are_permuted():
    true, permuted = Source("train", 300), Source("train", 300, permuted=True)
    fits = [[s[i]["label"] in s[i]["captions"][0] for i in range(300)] for s in (true, permuted)]
    assert all(fits[0])
    assert np.mean(fits[1]) < 0.1
    assert sorted(true.captions(i)[0] for i in range(300)) == sorted(
        permuted.captions(i)[0] for i in range(300)
    )
    assert np.array_equal(true[7]["image"], permuted[7]["image"])
