"""Log-mel features of sound, as published models take them.

    whisper       Whisper (Radford et al. 2022, arXiv:2212.04356, section 2.2): 16 kHz
    clap          CLAP (Wu et al. 2022, arXiv:2211.06687) as LAION's checkpoints take it: 48 kHz
    kaldi_fbank   Kaldi's filter bank in torchaudio's default setting, with a Hann window: AST
                  (Gong et al. 2021, arXiv:2104.01778), BEATs and others, 16 kHz; `ast` adds AST's
                  length and normalisation
    log_mel       the parts of the first two, for other settings

Two mel scales: "htk", 2595 log10(1 + f / 700); "slaney" (Auditory Toolbox), linear to 1 kHz and
logarithmic above, whose triangles are here divided by half their width so that all have the same
area, as librosa does. Kaldi's scale is HTK's, but its triangles are straight in mel, not in Hz.

N: samples of a waveform, float32 [N] in [-1, 1]. T: time steps. F = n_fft / 2 + 1 frequencies.
M: mel bands. Rates, frequencies: Hz.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from capjax.errors import UserError

SCALES = ("htk", "slaney")
_FLOOR = 1e-10  # of mel energy, before the logarithm
_KALDI_FLOOR = float(np.finfo(np.float32).eps)
_AST_MEAN, _AST_STD = -4.2677393, 4.5689974  # of AudioSet's fbanks, from AST's repository


def log_mel(
    waveform: np.ndarray,
    rate: int,
    n_fft: int,
    hop: int,
    n_mels: int,
    fmin: float = 0.0,
    fmax: float | None = None,
    scale: str = "slaney",
) -> np.ndarray:
    """float32 [N] -> float32 [T,M] with T = N // hop + 1: log10 of the mel energies, from -10 on.

    Windows (periodic Hann, n_fft long) are centred on the multiples of hop; the waveform is
    reflected at its ends. `fmax` is half the rate unless told.
    """
    if waveform.ndim != 1 or len(waveform) <= n_fft // 2:
        raise UserError(
            f"a waveform of shape {waveform.shape} has no mel features: it must have one axis and "
            f"more than n_fft/2 = {n_fft // 2} samples"
        )
    filters = mel_filters(rate, n_fft, n_mels, fmin, rate / 2 if fmax is None else fmax, scale)
    padded = np.pad(waveform.astype(np.float64), n_fft // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    power = np.abs(np.fft.rfft(windows * hann)) ** 2
    return np.log10(np.maximum(power @ filters, _FLOOR)).astype(np.float32)


def whisper(waveform: np.ndarray, n_mels: int = 80, seconds: float | None = 30.0) -> np.ndarray:
    """float32 [N] at 16 kHz -> float32 [T,M], one step each 10 ms; 128 bands from large-v3 on.

    seconds: silence is added up to this length, or what is beyond it left out; None: neither.
    """
    if seconds is not None:
        waveform = _to_length(waveform, round(seconds * 16_000))
    features = log_mel(waveform, 16_000, 400, 160, n_mels, 0.0, 8000.0, "slaney")[:-1]
    return (np.maximum(features, features.max() - 8) + 4) / 4


def clap(waveform: np.ndarray, scale: str = "slaney", seconds: float | None = 10.0) -> np.ndarray:
    """float32 [N] at 48 kHz -> float32 [T,64] in decibels, one step each 10 ms; 50 to 14,000 Hz.

    scale: "slaney" for the models without fusion, "htk" for those with. seconds: a shorter
    waveform is repeated as often as it fits and then followed by silence; of a longer one, the
    first seconds are taken (in training, LAION's own code takes a random part); None: neither.
    """
    if seconds is not None:
        length = round(seconds * 48_000)
        waveform = _to_length(np.tile(waveform, max(1, length // max(1, len(waveform)))), length)
    return 10 * log_mel(waveform, 48_000, 1024, 480, 64, 50.0, 14_000.0, scale)


def kaldi_fbank(waveform: np.ndarray, rate: int = 16_000, n_mels: int = 128) -> np.ndarray:
    """float32 [N] -> float32 [T,M] with T = 1 + (N - 25 ms) // 10 ms: natural logarithms.

    Windows of 25 ms every 10 ms, none over the end; each without its mean, pre-emphasised by 0.97,
    under a symmetric Hann window, filled with zeros to a power of two.
    """
    size, hop = rate * 25 // 1000, rate * 10 // 1000
    if waveform.ndim != 1 or len(waveform) < size:
        raise UserError(
            f"a waveform of shape {waveform.shape} has no filter bank: it must have one axis and "
            f"at least {size} samples"
        )
    windows = np.lib.stride_tricks.sliding_window_view(waveform.astype(np.float64), size)[::hop]
    windows = windows - windows.mean(1, keepdims=True)
    before = np.concatenate([windows[:, :1], windows[:, :-1]], 1)
    windows = (windows - 0.97 * before) * np.hanning(size)
    n_fft = 1 << (size - 1).bit_length()
    power = np.abs(np.fft.rfft(windows, n_fft)) ** 2
    energies = power @ _kaldi_filters(rate, n_fft, n_mels)
    return np.log(np.maximum(energies, _KALDI_FLOOR)).astype(np.float32)


def ast(waveform: np.ndarray, steps: int = 1024) -> np.ndarray:
    """float32 [N] at 16 kHz -> float32 [steps,128]: AST's input, cut or filled up to its length.

    As Transformers computes it; AST's own code first subtracts the waveform's mean, which changes
    nothing, for each window loses its own.
    """
    features = kaldi_fbank(waveform)[:steps]
    filled = np.zeros((steps, features.shape[1]), np.float32)
    filled[: len(features)] = features
    return (filled - np.float32(_AST_MEAN)) / np.float32(2 * _AST_STD)


@lru_cache(maxsize=16)
def mel_filters(
    rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float, scale: str
) -> np.ndarray:
    """float64 [F,M]: triangles whose corners lie evenly on the mel scale, each over its neighbours.

    Raises `UserError` for another scale and for limits that are no band below half the rate.
    """
    if scale not in SCALES:
        raise UserError(f"unknown mel scale {scale!r}; choose one of {', '.join(SCALES)}")
    if not 0 <= fmin < fmax <= rate / 2:
        raise UserError(
            f"fmin={fmin:g} and fmax={fmax:g} must be a band between 0 and half the rate, "
            f"{rate / 2:g} Hz"
        )
    to_mel, to_hz = (_htk, _htk_hz) if scale == "htk" else (_slaney, _slaney_hz)
    corners = to_hz(np.linspace(to_mel(fmin), to_mel(fmax), n_mels + 2))
    filters = _triangles(np.arange(n_fft // 2 + 1) * rate / n_fft, corners)
    if scale == "slaney":
        filters = filters * (2 / (corners[2:] - corners[:-2]))
    filters.setflags(write=False)
    return filters


@lru_cache(maxsize=4)
def _kaldi_filters(rate: int, n_fft: int, n_mels: int) -> np.ndarray:
    """float64 [F,M], from 20 Hz to half the rate."""
    corners = np.linspace(_htk(20.0), _htk(rate / 2), n_mels + 2)
    filters = _triangles(_htk(np.arange(n_fft // 2 + 1) * rate / n_fft), corners)
    filters.setflags(write=False)
    return filters


def _triangles(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """[F] points under M triangles on M+2 corners: [F,M] heights, 1 at each middle corner."""
    points = points[:, None]
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (points - low) / (middle - low), (high - points) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling))


def _htk(hz: np.ndarray | float) -> np.ndarray:
    return 2595 * np.log10(1 + np.asarray(hz) / 700)


def _htk_hz(mel: np.ndarray) -> np.ndarray:
    return 700 * (10 ** (mel / 2595) - 1)


_SLANEY_STEP = np.log(6.4) / 27  # of the logarithm of Hz, for each mel above 15 (1 kHz)


def _slaney(hz: np.ndarray | float) -> np.ndarray:
    hz = np.asarray(hz, np.float64)
    return np.where(hz < 1000, hz * 3 / 200, 15 + np.log(np.maximum(hz, 1) / 1000) / _SLANEY_STEP)


def _slaney_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * _SLANEY_STEP))


def _to_length(waveform: np.ndarray, length: int) -> np.ndarray:
    return np.pad(waveform[:length], (0, max(0, length - len(waveform))))
