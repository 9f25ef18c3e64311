"""Single sounds with exact truth, and how they become a waveform: float32 at 16 kHz.

    beep            a sine
    buzz            its odd harmonics, too, as in a square wave (those below half the rate)
    hiss            noise between two frequencies
    rising sweep    a sine whose frequency grows (or falls) linearly from one to the other
    falling sweep

N: samples of a recording. Frequencies in Hz, `begin` and `end` in samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RATE = 16_000
PITCHES = ("low", "high")
# kind -> pitch -> the range from which a beep or buzz draws its frequency; or the two ends of the
# band or way of a hiss or sweep. Between low and high lies more than an octave.
HZ = {
    "beep": {"low": (250.0, 400.0), "high": (1500.0, 2400.0)},
    "buzz": {"low": (90.0, 150.0), "high": (400.0, 600.0)},
    "hiss": {"low": (100.0, 700.0), "high": (2500.0, 6000.0)},
    "rising sweep": {"low": (200.0, 600.0), "high": (1500.0, 4500.0)},
    "falling sweep": {"low": (600.0, 200.0), "high": (4500.0, 1500.0)},
}
KINDS = tuple(HZ)
# Root mean squares, 17 dB or more apart; the loudest noise stays within [-1, 1].
LOUDNESS = {"quiet": (0.01, 0.015), "loud": (0.1, 0.15)}
LENGTHS = {"short": (0.15, 0.25), "long": (0.6, 0.8)}  # seconds
_FADE = 160  # samples at each end: a sudden end would be a click, heard as a sound of its own


@dataclass(frozen=True, slots=True)
class Sound:
    """One sound. `hz` are its first and last frequency, of a hiss the ends of its band; `rms` is
    its root mean square before it is faded in and out."""

    kind: str
    pitch: str
    loudness: str
    length: str
    begin: int
    end: int
    hz: tuple[float, float]
    rms: float


@dataclass(frozen=True, slots=True)
class Recording:
    """Sounds in their order, none over another, in silence."""

    sounds: tuple[Sound, ...]
    samples: int


def waveform(recording: Recording, noise_seed: int) -> np.ndarray:
    """float32 [N]."""
    result = np.zeros(recording.samples, np.float64)
    for number, sound in enumerate(recording.sounds):
        result[sound.begin : sound.end] = _synthesised(sound, noise_seed ^ number)
    return result.astype(np.float32)


def _synthesised(sound: Sound, noise_seed: int) -> np.ndarray:
    count = sound.end - sound.begin
    time = np.arange(count) / RATE
    first, last = sound.hz
    if sound.kind == "hiss":
        wave = _noise(count, first, last, noise_seed)
    elif sound.kind == "buzz":
        harmonics = range(1, int(RATE / 2 / first) + 1, 2)
        wave = sum(np.sin(2 * np.pi * first * k * time) / k for k in harmonics)
    else:  # the phase is the integral of the frequency
        wave = np.sin(2 * np.pi * (first * time + (last - first) * time**2 / (2 * count / RATE)))
    wave = wave * (sound.rms / np.sqrt(np.mean(wave**2)))
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(_FADE) + 0.5) / _FADE)
    wave[:_FADE] *= ramp
    wave[-_FADE:] *= ramp[::-1]
    return wave


def _noise(count: int, low: float, high: float, seed: int) -> np.ndarray:
    # NumPy promises that a bit generator's raw stream never changes, unlike Generator's methods.
    raw = np.random.Philox(key=seed).random_raw(count)
    spectrum = np.fft.rfft(raw / 2.0**63 - 1)
    hz = np.fft.rfftfreq(count, 1 / RATE)
    return np.fft.irfft(np.where((hz >= low) & (hz <= high), spectrum, 0), count)
