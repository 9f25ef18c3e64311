"""`Source`: generated recordings of beeps, buzzes, hisses and sweeps, and captions that tell them.

A record is drawn from (seed, split, index) alone, on any worker the same (to the last bit on one
machine; sines of different processors may differ in it). Captions, all true, in a register:

    generic    "two sounds"                              how many, and nothing of them
    short      "a low beep, then a high rising sweep"    pitch and kind
    human      "a low beep, then a loud rising sweep"    the kind, and of the rest what one notices
    detailed   "a quiet short low beep, then a loud long high rising sweep"

N: samples of a recording, at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Iterable

from capjax.data.generated import Records, combinations, speaking_for
from capjax.data.scenes import arguments
from capjax.data.scenes.draws import Chooser, Draws
from capjax.data.scenes.grammar import noun_phrase
from capjax.data.tone_synthesis import (
    HZ,
    KINDS,
    LENGTHS,
    LOUDNESS,
    PITCHES,
    RATE,
    Recording,
    Sound,
    waveform,
)
from capjax.errors import UserError

REGISTERS = ("generic", "short", "human", "detailed")
MAX_SOUNDS = 3
GAP = 0.12  # least silence around a sound, in seconds
# How the sounds are told, by their number; only the last of two turns their order round.
ORDERS = {
    1: ("{0}",),
    2: ("{0}, then {1}", "first {0}, then {1}", "{0} followed by {1}", "{1} after {0}"),
    3: (
        "{0}, then {1}, then {2}",
        "first {0}, then {1} and finally {2}",
        "{0} followed by {1} and then {2}",
    ),
}
_RECORDING, _CAPTIONS, _NOISE = range(3)  # separate streams of randomness


class Source:
    """Generated recordings; see `__init__` for what can be drawn, `__getitem__` for a record."""

    def __init__(
        self,
        seed: int = 0,
        size: int = 10_000,
        split: str = "train",
        seconds: float = 4.0,
        min_sounds: int = 1,
        max_sounds: int = MAX_SOUNDS,
        kinds: Iterable[str] = KINDS,
        pitches: Iterable[str] = PITCHES,
        loudness: Iterable[str] = tuple(LOUDNESS),
        lengths: Iterable[str] = tuple(LENGTHS),
        captions: Iterable[str] = ("human",),
        captions_per_recording: int = 5,
        hold_out: Iterable[Iterable[str]] = (),
    ):
        """Checks every argument; raises `UserError` naming the argument and what is allowed.

        Args:
          seed, size, split: as in `scenes.Source`.
          seconds: length of every recording; there must be room for `max_sounds` long ones.
          min_sounds, max_sounds: per recording, 1 to 3; every number between is as likely. Sounds
            of one recording differ in kind or pitch.
          kinds, pitches, loudness, lengths: allowed values, see `tone_synthesis`.
          captions: registers, of which each caption draws one.
          captions_per_recording: how many captions a recording has.
          hold_out: combinations such as ("low", "beep"). No sound of train and val has one; every
            sound of test has one.
        """
        self._records = Records("tones", seed, split, size)
        with speaking_for("tones"):
            self._min = arguments.integer("min_sounds", min_sounds, 1, MAX_SOUNDS)
            self._max = arguments.integer("max_sounds", max_sounds, 1, MAX_SOUNDS)
            self.vocabulary = {
                "loudness": arguments.choices("loudness", loudness, tuple(LOUDNESS)),
                "length": arguments.choices("lengths", lengths, tuple(LENGTHS)),
                "pitch": arguments.choices("pitches", pitches, PITCHES),
                "kind": arguments.choices("kinds", kinds, KINDS),
            }
            self._registers = arguments.choices("captions", captions, REGISTERS)
            self.captions_per_recording = arguments.integer(
                "captions_per_recording", captions_per_recording, 1, 1000
            )
            held = arguments.hold_out(hold_out, self.vocabulary)
        if self._min > self._max:
            raise UserError(
                f"tones: min_sounds={min_sounds} is larger than max_sounds={max_sounds}"
            )
        longest = (
            self._max * (max(LENGTHS[name][1] for name in self.vocabulary["length"]) + GAP) + GAP
        )
        if not isinstance(seconds, int | float) or not longest <= seconds <= 600:
            raise UserError(
                f"tones: seconds={seconds!r} must be a number from {longest:.2f} to 600"
            )
        self.samples = round(seconds * RATE)
        self._looks = combinations(self.vocabulary, held, self._records.split)
        if len({look[2:] for look in self._looks}) < self._max:
            raise UserError(
                f"tones: hold_out, kinds and pitches leave fewer than max_sounds={self._max} "
                "different sounds in this split; lower it, or allow more"
            )

    def __len__(self) -> int:
        return self._records.size

    def __getitem__(self, index: int) -> dict:
        """The record at `index` (negative ones count from the end); IndexError beyond the end.

        Returns a dict:
          key: str, unique within (seed, split).
          audio: float32 [N] in [-1, 1]; rate: 16,000.
          captions: list of str; registers: list of str, the register of each.
          graph: `tone_synthesis.Recording`.
        """
        position = self._records.checked(index)
        recording = self._recording(position)
        captions, registers = self._captioned(position, recording)
        return {
            "key": self._records.key(position),
            "audio": waveform(recording, self._records.state(_NOISE, position)),
            "rate": RATE,
            "captions": captions,
            "registers": registers,
            "graph": recording,
        }

    def graph(self, index: int) -> Recording:
        """The graph of a record, without its waveform."""
        return self._recording(self._records.checked(index))

    def captions(self, index: int) -> list[str]:
        """The captions of a record, without its waveform."""
        position = self._records.checked(index)
        return self._captioned(position, self._recording(position))[0]

    def _captioned(self, position: int, recording: Recording) -> tuple[list[str], list[str]]:
        draws = self._records.draws(_CAPTIONS, position)
        registers = [draws.pick(self._registers) for _ in range(self.captions_per_recording)]
        return [write(recording, register, draws) for register in registers], registers

    def _recording(self, position: int) -> Recording:
        draws = self._records.draws(_RECORDING, position)
        count = self._min + draws.below(self._max - self._min + 1)
        looks: list[tuple[str, ...]] = []
        while len(looks) < count:  # ends: there are at least as many different ones
            look = draws.pick(self._looks)
            if all(look[2:] != other[2:] for other in looks):
                looks.append(look)
        lengths = [round(_between(draws, LENGTHS[look[1]]) * RATE) for look in looks]
        gap = round(GAP * RATE)
        spare = self.samples - sum(lengths) - gap * (count + 1)
        cuts = sorted(draws.below(spare + 1) for _ in range(count))
        sounds, at = [], 0
        for look, length, cut, before in zip(looks, lengths, cuts, [0, *cuts], strict=False):
            begin = at + gap + cut - before
            at = begin + length
            loudness, length_name, pitch, kind = look
            hz = HZ[kind][pitch]
            if kind in ("beep", "buzz"):
                hz = (_between(draws, hz),) * 2
            rms = _between(draws, LOUDNESS[loudness])
            sounds.append(Sound(kind, pitch, loudness, length_name, begin, at, hz, rms))
        return Recording(tuple(sounds), self.samples)


def write(recording: Recording, register: str, chooser: Chooser) -> str:
    """One caption in a register."""
    count = len(recording.sounds)
    if register == "generic":
        return noun_phrase([], "sound", count)
    said = []
    for sound in recording.sounds:
        words = [sound.loudness, sound.length, sound.pitch]
        if register == "short":
            words = [sound.pitch]
        elif register == "human":
            words = [word for word in words if chooser.chance(0.5)]
        said.append(noun_phrase(words, sound.kind))
    return chooser.pick(ORDERS[count]).format(*said)


def _between(draws: Draws, limits: tuple[float, float]) -> float:
    return limits[0] + (limits[1] - limits[0]) * draws.uniform()
