"""Generated clips: captions read back against pixels, held-out combinations, determinism."""

import pickle
import re

import numpy as np
import pytest

from capjax.config import instantiate
from capjax.data.clip_captions import ORDERS, REGISTERS
from capjax.data.clip_graph import EVENTS, MOVES, Clip, Event
from capjax.data.clips import Source
from capjax.data.scenes.graph import SceneObject
from capjax.data.scenes.vocabulary import COLOURS
from capjax.errors import UserError

VERBS = {
    **{f"moves {kind}": kind for kind in MOVES},
    "appears": "appear",
    "disappears": "disappear",
    "stays still": "still",
}
PHRASE = re.compile(r"^(?:an?) (\w+) (\w+) (.*)$")


def told(caption):
    """[(colour, shape, verb)] in the order in which a short caption says that things happen."""
    caption, _, still = caption.partition(" while ")
    caption = caption.removesuffix(",")
    if match := re.fullmatch(r"after (.*), (.*)", caption):
        clauses = list(match.groups())
    elif " after " in caption:
        clauses = caption.split(" after ")[::-1]
        if clauses[0].startswith("it "):  # "B after it A": the subject is B's
            subject = " ".join(clauses[1].split()[:3])
            clauses[0] = clauses[0].replace("it", subject, 1)
    else:
        clauses = re.split(r", then | before ", caption.removeprefix("first "))
    result = []
    for clause in [*clauses, *filter(None, [still])]:
        match = PHRASE.match(clause)
        if match:
            subject, verb = match.groups()[:2], match[3]
        else:
            verb = clause.removeprefix("it ")
        result.append((*subject, verb))
    return result


def seen(video, colour):
    """Where a colour is in each frame: (x, y) in sides, None where it is not."""
    near = np.abs(video.astype(int) - COLOURS[colour]).max(-1) <= 12
    result = []
    for mask in near:
        y, x = np.nonzero(mask)
        result.append((x.mean() / len(mask), y.mean() / len(mask)) if len(x) > 8 else None)
    return result


def change_frames(track, verb):
    """The frames from which to which a colour does what a verb says; fails where it does not."""
    there = [place is not None for place in track]
    if verb == "appears":
        begin = there.index(True)
        assert begin > 0
        assert all(there[begin:])
        return begin, begin
    if verb == "disappears":
        begin = there.index(False)
        assert begin > 0
        assert not any(there[begin:])
        return begin, begin
    if verb.startswith("turns"):
        begin = there.index(False)
        return begin, begin
    places = np.array([place for place in track if place is not None])
    steps = np.diff(places, axis=0)
    if verb == "stays still":
        assert np.abs(steps).max() < 0.01
        return None
    axis = 0 if verb in ("moves left", "moves right") else 1
    sign = 1 if verb in ("moves right", "moves down") else -1
    assert np.abs(steps[:, 1 - axis]).max() < 0.01
    assert sign * (places[-1] - places[0])[axis] > 0.28
    assert (sign * steps[:, axis] > -0.01).all()
    moving = np.nonzero(np.abs(steps[:, axis]) > 0.02)[0] + there.index(True)
    return moving[0], moving[-1] + 1


def test_captions_are_true_of_the_pixels():
    """Only clips in which each colour names one object, to which at most one thing happens."""
    source = Source(seed=1, image_size=48, captions_per_clip=3)
    verbs, ordered = set(), 0
    for i in range(220):
        record = source[i]
        for caption in record["captions"]:
            events = told(caption) if "stay still" not in caption else []
            colours = [colour for colour, _, _ in events]
            colours += [verb.split()[-1] for _, _, verb in events if verb.startswith("turns")]
            if len(set(colours)) < len(colours):
                continue
            times = [change_frames(seen(record["video"], c), verb) for c, _, verb in events]
            times = [time for time in times if time]
            verbs |= {verb.split()[0] if "turns" in verb else verb for _, _, verb in events}
            if len(times) == 2:
                assert times[0][1] < times[1][0] or times[0][1] == times[1][0] == 4
                ordered += 1
    assert verbs == {*VERBS, "turns"}
    assert ordered > 60


def test_captions_say_what_the_graph_says():
    source = Source(seed=2, captions_per_clip=8)
    orders = set()
    for i in range(150):
        clip = source.graph(i)
        for caption in source.captions(i):
            if len(clip.objects) == 2 and not clip.events:
                assert caption.endswith("stay still")
                continue
            named = [
                (
                    clip.objects[e.object].colour,
                    clip.objects[e.object].shape,
                    f"turns {e.colour}" if e.kind == "recolour" else VERBS_OF[e.kind],
                )
                for e in clip.events
            ]
            named += [
                (clip.objects[i].colour, clip.objects[i].shape, "stays still") for i in clip.still
            ]
            assert told(caption) == named
            if len(clip.events) == 2:
                assert clip.before == ((0, 1),)
                orders.add(
                    next(
                        at
                        for at, word in enumerate(("first", "before", "after", " after ", "then"))
                        if caption.startswith(word) or (at in (1, 3, 4) and word in caption)
                    )
                )
    assert len(orders) == len(ORDERS)


VERBS_OF = {kind: verb for verb, kind in VERBS.items()}


def test_a_clip_by_hand():
    circle = SceneObject("circle", "red", "small", "solid", x=0.2, y=0.5, radius=0.1)
    square = SceneObject("square", "blue", "large", "solid", x=0.7, y=0.2, radius=0.15)
    events = (
        Event(0, "right", 0, 2, travel=0.4),
        Event(1, "appear", 3, 4),
        Event(0, "recolour", 4, 5, colour="green"),
    )
    clip = Clip((circle, square), events, "plain", "grey", 6)
    assert [list(clip.shown(t)) for t in range(6)] == [[0], [0], [0], [0], [0, 1], [0, 1]]
    assert [round(clip.shown(t)[0].x, 3) for t in range(6)] == [0.2, 0.4, 0.6, 0.6, 0.6, 0.6]
    assert [clip.shown(t)[0].colour for t in range(6)] == ["red"] * 5 + ["green"]
    assert clip.before == ((0, 1), (0, 2), (1, 2))
    assert clip.still == ()


def test_objects_stay_inside_and_apart():
    source = Source(seed=3, captions_per_clip=1)
    for i in range(300):
        clip = source.graph(i)
        for t in range(clip.frames):
            items = list(clip.shown(t).values())
            for item in items:
                assert item.radius < item.x < 1 - item.radius
                assert item.radius < item.y < 1 - item.radius
            if len(items) == 2:
                a, b = items
                assert np.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius


def test_boxes_are_tight_around_what_is_shown():
    record = Source(seed=4, frames=6, image_size=40)[3]
    assert record["boxes"].shape == (6, len(record["graph"].objects), 4)
    for t in range(6):
        for i in range(len(record["graph"].objects)):
            box = record["boxes"][t, i]
            shown = record["graph"].shown(t)
            assert bool(box.any()) == (i in shown)
            if i in shown:
                assert box[0] < shown[i].x < box[2]
                assert box[1] < shown[i].y < box[3]


def pairs(source, count=400):
    """All (colour, shape, event) that objects have, or get by turning, in some clips."""
    result = []
    for i in range(count):
        clip = source.graph(i)
        first = {}
        for at, item in enumerate(clip.objects):
            colour = item.colour
            kinds = [(e.kind, e.colour) for e in clip.events if e.object == at] or [("still", None)]
            first[at] = (colour, item.shape, kinds[0][0])
            for kind, new in kinds:
                result.append((i, (colour, item.shape, kind)))
                if new:
                    colour = new
                    result.append((i, (colour, item.shape, kind)))
    return result


def firsts(source, count=200):
    for i in range(count):
        clip = source.graph(i)
        for at, item in enumerate(clip.objects):
            kinds = [event.kind for event in clip.events if event.object == at] or ["still"]
            yield {item.colour, item.shape, kinds[0]}


@pytest.mark.parametrize(
    "held", [[("red", "circle")], [("star", "up"), ("blue", "appear")], [("still",)]]
)
def test_held_out_combinations_are_only_in_test(held):
    for split in ("train", "val"):
        drawn = pairs(Source(seed=5, split=split, hold_out=held))
        assert not any(set(values) >= set(entry) for _, values in drawn for entry in held)
    test = list(firsts(Source(seed=5, split="test", hold_out=held)))
    assert all(any(values >= set(entry) for entry in held) for values in test)
    usual = pairs(Source(seed=5))
    assert all(any(set(values) >= set(entry) for _, values in usual) for entry in held)


def test_nothing_turns_into_what_is_held_out():
    few = dict(seed=5, shapes=("circle", "square"), colours=("red", "blue"))
    drawn = {values for _, values in pairs(Source(**few, hold_out=[("red", "circle")]))}
    assert ("blue", "square", "recolour") in drawn
    assert not any(set(values) >= {"red", "circle"} for values in drawn)
    moved = {values for _, values in pairs(Source(**few, hold_out=[("red", "up")]))}
    assert ("red", "square", "recolour") in moved
    assert not any(set(values) >= {"red", "up"} for values in moved)


def test_records_follow_seed_split_and_index_alone():
    source = Source(seed=6, size=50)
    again = pickle.loads(pickle.dumps(Source(seed=6, size=9_000)))
    for i in (7, 3, 49):
        first, second = source[i], again[i]
        np.testing.assert_array_equal(first["video"], second["video"])
        assert first["captions"] == second["captions"] == source.captions(i)
        assert first["graph"] == second["graph"] == source.graph(i)
        assert first["key"] == second["key"]
    assert source[-1]["key"] == source[49]["key"] == "clips-6-train-00000049"
    others = [Source(seed=7), Source(seed=6, split="val"), Source(seed=6, split="test")]
    assert len({repr(s.graph(0)) for s in [source, *others]}) == 4
    assert Source(seed=6, image_size=32).graph(5) == source.graph(5)
    assert Source(seed=6, captions=("detailed",)).graph(5) == source.graph(5)
    with pytest.raises(IndexError, match="clips: index 50 of 50 records"):
        source[50]


def test_the_frozen_captions():
    """Papers compare runs over years: what a seed draws must not change."""
    assert [Source().captions(i)[0] for i in range(4)] == FROZEN


FROZEN = [
    "a purple square moves up",
    "a purple moon moves up, then moves right",
    "after a red triangle disappears, a purple star moves left",
    "a black triangle moves right while a blue circle stays still",
]


def test_registers_differ_in_what_they_tell():
    source = Source(captions=REGISTERS, captions_per_clip=12)
    for i in range(40):
        record = source[i]
        item = record["graph"].objects[0]
        for caption, register in zip(record["captions"], record["registers"], strict=True):
            assert (item.shape in caption) == (register != "generic")
            assert (item.texture in caption) == (register == "detailed")
            if register == "generic":
                assert not set(caption.split()) & {*COLOURS, "left", "right", "up", "down"}


def test_arguments_narrow_what_happens():
    source = Source(events=("left", "recolour"), max_objects=1, frames=12, colours=("red", "blue"))
    kinds = {event.kind for i in range(60) for event in source.graph(i).events}
    assert kinds == {"left", "recolour"}
    assert source[0]["video"].shape == (12, 64, 64, 3)
    quiet = Source(max_events=0)
    assert not any(quiet.graph(i).events for i in range(20))
    section = {"name": "capjax.data.clips", "image_size": 16, "captions_per_clip": 2}
    assert len(instantiate(section, "Source").captions(0)) == 2


def test_wrong_arguments():
    for arguments, reason in {
        ("frames", 3): "clips: frames=3 must be an integer from 4 to 256",
        ("max_objects", 3): "clips: max_objects=3 must be an integer from 1 to 2",
        ("events", ("jump",)): f"clips: events has no 'jump'; choose from {', '.join(EVENTS)}",
        ("captions", ("human",)): "clips: captions has no 'human'; choose from generic, short",
        ("captions", "short"): "clips: captions='short' must be a list",
        ("split", "dev"): "clips: split has no 'dev'",
        ("hold_out", (("red", "jump"),)): "clips: hold_out has 'jump'",
    }.items():
        with pytest.raises(UserError, match=reason):
            Source(**{arguments[0]: arguments[1]})
    with pytest.raises(UserError, match="leave nothing that can happen"):
        Source(max_events=0, events=("left",))
    with pytest.raises(UserError, match="leave no clip to draw in this split"):
        Source(colours=("red",), events=("recolour",), max_objects=1)
