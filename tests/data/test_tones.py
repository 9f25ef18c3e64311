"""Generated recordings: captions against what can be measured in the waveform, and determinism."""

import pickle
import re

import numpy as np
import pytest

from capjax.config import instantiate
from capjax.data.scenes.vocabulary import NUMBERS
from capjax.data.tone_synthesis import HZ, KINDS, LENGTHS, LOUDNESS, PITCHES, RATE
from capjax.data.tones import GAP, REGISTERS, Source
from capjax.errors import UserError

WORDS = {**dict.fromkeys(LOUDNESS, 0), **dict.fromkeys(LENGTHS, 1), **dict.fromkeys(PITCHES, 2)}


def told(caption):
    """[(loudness, length, pitch, kind)] in the order of time; None for what is not said."""
    phrases = re.split(r", then |(?: and)? followed by | and then | and finally ", caption)
    if " after " in caption:
        phrases = caption.split(" after ")[::-1]
    result = []
    for phrase in phrases:
        words = phrase.removeprefix("first ").split()[1:]
        kind = next(kind for kind in KINDS if " ".join(words).endswith(kind))
        said = [None, None, None]
        for word in words[: -len(kind.split())]:
            said[WORDS[word]] = word
        result.append((*said, kind))
    return result


def heard(audio):
    """[(begin, end)] in samples of the stretches that are not silent."""
    loud = np.concatenate([[False], np.abs(audio) > 1e-6, [False]])
    loud = np.convolve(loud, np.ones(201), "same") > 0  # crossings of zero are no silence
    edges = np.nonzero(np.diff(loud.astype(int)))[0]
    return [(b + 100, e - 100) for b, e in edges.reshape(-1, 2)]


def spectrum(part):
    """(frequencies, share of the power at each)."""
    count = 2 * RATE
    power = np.abs(np.fft.rfft(part * np.hanning(len(part)), count)) ** 2
    return np.fft.rfftfreq(count, 1 / RATE), power / power.sum()


def peak(part):
    """The strongest frequency, in Hz."""
    hz, power = spectrum(part)
    return hz[np.argmax(power)]


def measured(part):
    """(loudness, length, pitch, kind) of one sound, by its waveform alone."""
    loudness = "loud" if np.sqrt(np.mean(part**2)) > 0.05 else "quiet"
    length = "long" if len(part) / RATE > 0.4 else "short"
    hz, power = spectrum(part)
    top, middle = peak(part), (power * hz).sum()
    if power[np.abs(hz - top) < 30].sum() > 0.6:  # one frequency, of which a buzz has the triple
        buzz = power[np.abs(hz - 3 * top) < 30].sum() > 0.05
        low = top < (250 if buzz else 1000)
        return loudness, length, "low" if low else "high", "buzz" if buzz else "beep"
    pitch = "low" if middle < 1000 else "high"
    peaks = [peak(piece) for piece in np.array_split(part, 8)]
    slope = np.corrcoef(np.arange(8), peaks)[0, 1]
    if abs(slope) > 0.97:
        return loudness, length, pitch, "rising sweep" if slope > 0 else "falling sweep"
    return loudness, length, pitch, "hiss"


def test_captions_are_true_of_the_waveform():
    source = Source(seed=1, captions=("detailed", "human", "short"), captions_per_recording=6)
    met = set()
    for i in range(120):
        record = source[i]
        parts = heard(record["audio"])
        truth = [measured(record["audio"][b:e].astype(np.float64)) for b, e in parts]
        met |= set(truth)
        for caption in record["captions"]:
            said = told(caption)
            assert len(said) == len(truth)
            for claimed, true in zip(said, truth, strict=True):
                assert all(a in (None, b) for a, b in zip(claimed, true, strict=True)), caption
    assert len(met) == len(KINDS) * 8


def test_the_graph_is_where_and_what_the_sounds_are():
    source = Source(seed=2, captions_per_recording=1)
    for i in range(60):
        record = source[i]
        audio, sounds = record["audio"], record["graph"].sounds
        parts = heard(audio)
        assert np.abs(np.array([(s.begin, s.end) for s in sounds]) - parts).max() <= 16
        for sound in sounds:
            middle = audio[sound.begin + 160 : sound.end - 160].astype(np.float64)
            assert np.sqrt(np.mean(middle**2)) == pytest.approx(sound.rms, rel=0.12)
            if sound.kind == "beep":
                assert peak(middle) == pytest.approx(sound.hz[0], abs=1)
            if sound.kind == "hiss":
                power = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))) ** 2
                hz = np.fft.rfftfreq(len(middle), 1 / RATE)
                inside = (hz > sound.hz[0] - 20) & (hz < sound.hz[1] + 20)
                assert power[inside].sum() > 0.98 * power.sum()
        gaps = np.diff([0, *(edge for s in sounds for edge in (s.begin, s.end)), len(audio)])[::2]
        assert min(gaps) >= round(GAP * RATE)
        assert np.abs(audio).max() < 1


def test_shape_and_rate():
    record = Source(seconds=5.5)[0]
    assert (record["audio"].shape, record["audio"].dtype) == ((88_000,), np.float32)
    assert record["rate"] == 16_000
    assert record["graph"].samples == 88_000


@pytest.mark.parametrize("held", [[("low", "beep")], [("rising sweep",), ("quiet", "high")]])
def test_held_out_combinations_are_only_in_test(held):
    def sounds(split, hold_out):
        source = Source(seed=5, split=split, hold_out=hold_out, max_sounds=1)
        for i in range(300):
            sound = source.graph(i).sounds[0]
            yield {sound.kind, sound.pitch, sound.loudness, sound.length}

    for split in ("train", "val"):
        drawn = list(sounds(split, held))
        assert not any(values >= set(entry) for values in drawn for entry in held)
    assert all(any(v >= set(entry) for entry in held) for v in sounds("test", held))
    usual = list(sounds("train", ()))
    assert all(any(values >= set(entry) for values in usual) for entry in held)


def test_records_follow_seed_split_and_index_alone():
    source = Source(seed=6, size=50)
    again = pickle.loads(pickle.dumps(Source(seed=6, size=9_000)))
    for i in (7, 3, 49):
        np.testing.assert_array_equal(source[i]["audio"], again[i]["audio"])
        assert source[i]["captions"] == again[i]["captions"] == source.captions(i)
        assert source[i]["graph"] == source.graph(i)
    assert source[-1]["key"] == "tones-6-train-00000049"
    others = [Source(seed=7), Source(seed=6, split="val"), Source(seed=6, split="test")]
    assert len({repr(s.graph(0)) for s in [source, *others]}) == 4
    with pytest.raises(IndexError, match="tones: index 50 of 50 records"):
        source[50]


def test_the_frozen_captions():
    """Papers compare runs over years: what a seed draws must not change."""
    source = Source(captions=("detailed",))
    assert [source.captions(i)[0] for i in range(3)] == FROZEN


FROZEN = [
    "a loud short high buzz, then a loud long low falling sweep, then a loud long low hiss",
    "a quiet short low falling sweep",
    "a quiet long low hiss, then a quiet long low rising sweep",
]


def test_registers_differ_in_what_they_tell():
    source = Source(captions=REGISTERS, captions_per_recording=12)
    for i in range(30):
        record = source[i]
        count = len(record["graph"].sounds)
        for caption, register in zip(record["captions"], record["registers"], strict=True):
            if register == "generic":
                assert caption == ("a sound" if count == 1 else f"{NUMBERS[count - 1]} sounds")
                continue
            given = [[word is not None for word in said] for said in told(caption)]
            if register == "short":
                assert given == [[False, False, True, True]] * count
            if register == "detailed":
                assert given == [[True] * 4] * count


def test_pitches_are_an_octave_apart():
    for pitches in HZ.values():
        assert min(pitches["high"]) >= 2 * max(pitches["low"])


def test_a_config_names_it():
    section = {"name": "capjax.data.tones", "kinds": ("beep",), "max_sounds": 2}
    assert {s.kind for s in instantiate(section, "Source").graph(0).sounds} == {"beep"}


def test_wrong_arguments():
    for arguments, reason in {
        ("kinds", ("bark",)): "tones: kinds has no 'bark'; choose from beep, buzz",
        ("captions", ("alt_text",)): "tones: captions has no 'alt_text'",
        ("max_sounds", 4): "tones: max_sounds=4 must be an integer from 1 to 3",
        ("seconds", 2.0): "tones: seconds=2.0 must be a number from 2.88 to 600",
        ("hold_out", ("beep",)): "tones: hold_out entry 'beep' must be a tuple",
        ("seed", -1): "tones: seed=-1 must be an integer",
    }.items():
        with pytest.raises(UserError, match=reason):
            Source(**{arguments[0]: arguments[1]})
    with pytest.raises(UserError, match="min_sounds=3 is larger than max_sounds=2"):
        Source(min_sounds=3, max_sounds=2)
    with pytest.raises(UserError, match="fewer than max_sounds=3 different sounds in this split"):
        Source(kinds=("beep",))
