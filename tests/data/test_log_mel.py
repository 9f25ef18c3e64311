"""Mel features against frozen outputs of the libraries whose models take them.

audio_front_ends.json holds some time steps of each, of the waveform below: Transformers 5.23
(whisper80 and 128, with and without padding; ast, in its NumPy form; clap_slaney and clap_htk, with
frequency_min=50), torchaudio 2.11 (kaldi: compliance.kaldi.fbank, Hann window, 128 bins, no dither)
and librosa 0.11 (melspectrogram, reflected ends, then log10).
"""

import json
from pathlib import Path

import numpy as np
import pytest

from capjax.data import log_mel
from capjax.errors import UserError

FROZEN = json.loads((Path(__file__).parent / "audio_front_ends.json").read_text())


def waveform(rate, seconds=1.5):
    """A rising sweep, from the middle on a second tone, and noise: float32 [N]."""
    count = round(rate * seconds)
    time = np.arange(count) / rate
    tones = 0.3 * np.sin(2 * np.pi * (200 * time + 600 * time * time))
    tones += 0.1 * np.sin(2 * np.pi * 3000 * time) * (time > seconds / 2)
    noise = ((np.arange(count, dtype=np.int64) * 1103515245 + 12345) % 65536) / 65536 - 0.5
    return (tones + 0.02 * noise).astype(np.float32)


def few_bands(scale):
    return log_mel.log_mel(waveform(16_000), 16_000, 512, 128, 40, 60, 7000, scale)


# (features, largest difference allowed): 5e-6 is the rounding of the frozen values. Torchaudio and
# Whisper's padded form compute in float32, which shows where a band is nearly silent.
FRONT_ENDS = {
    "whisper80": (lambda: log_mel.whisper(waveform(16_000)), 1e-4),
    "whisper80_unpadded": (lambda: log_mel.whisper(waveform(16_000), seconds=None), 1e-5),
    "whisper128": (lambda: log_mel.whisper(waveform(16_000), 128), 1e-4),
    "ast": (lambda: log_mel.ast(waveform(16_000)), 1e-5),
    "kaldi": (lambda: log_mel.kaldi_fbank(waveform(16_000)), 5e-3),
    "clap_slaney": (lambda: log_mel.clap(waveform(48_000)), 5e-5),
    "clap_htk": (lambda: log_mel.clap(waveform(48_000), "htk"), 5e-5),
    "librosa_slaney": (lambda: few_bands("slaney"), 1e-5),
    "librosa_htk": (lambda: few_bands("htk"), 1e-5),
}


def test_every_frozen_front_end_is_compared():
    assert set(FRONT_ENDS) == set(FROZEN)


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_features_are_those_of_the_published_front_end(name):
    compute, allowed = FRONT_ENDS[name]
    features = compute()
    assert features.dtype == np.float32
    expected = np.array(FROZEN[name]["values"])
    assert expected.std() > 0.05  # not a comparison of silence with silence
    np.testing.assert_allclose(features[FROZEN[name]["rows"]], expected, rtol=0, atol=allowed)


def test_lengths():
    assert log_mel.whisper(waveform(16_000)).shape == (3000, 80)
    assert log_mel.whisper(waveform(16_000, 31)).shape == (3000, 80)
    assert log_mel.whisper(waveform(16_000), seconds=None).shape == (150, 80)
    assert log_mel.ast(waveform(16_000)).shape == (1024, 128)
    assert log_mel.ast(waveform(16_000), steps=100).shape == (100, 128)
    assert log_mel.clap(waveform(48_000, 10.5)).shape == (1001, 64)
    assert log_mel.kaldi_fbank(waveform(16_000)[:400]).shape == (1, 128)


def test_a_tone_is_loudest_in_the_band_around_it():
    time = np.arange(16_000) / 16_000
    centres = {  # of 40 bands up to 8 kHz, by hand from the two scales' formulas
        "htk": 700 * (10 ** (np.arange(1, 41) / 41 * 2840.0230 / 2595) - 1),
        "slaney": [
            m * 200 / 3 if m < 15 else 1000 * 6.4 ** ((m - 15) / 27)
            for m in np.arange(1, 41) / 41 * 45.2455
        ],
    }
    for scale, hz in centres.items():
        for band in (5, 17, 30):
            tone = np.sin(2 * np.pi * hz[band] * time).astype(np.float32)
            features = log_mel.log_mel(tone, 16_000, 1024, 160, 40, scale=scale)
            assert np.argmax(features[50]) == band


def test_wrong_arguments():
    silence = np.zeros(1000, np.float32)
    with pytest.raises(UserError, match="unknown mel scale 'bark'; choose one of htk, slaney"):
        log_mel.log_mel(silence, 16_000, 400, 160, 80, scale="bark")
    for fmin, fmax in ((0, 9000), (300, 200), (-1, 100)):
        with pytest.raises(UserError, match="must be a band between 0 and half the rate, 8000 Hz"):
            log_mel.log_mel(silence, 16_000, 400, 160, 80, fmin, fmax)
    with pytest.raises(UserError, match=r"shape \(100,\) has no mel features.*more than .* 200"):
        log_mel.log_mel(silence[:100], 16_000, 400, 160, 80)
    with pytest.raises(UserError, match="at least 400 samples"):
        log_mel.kaldi_fbank(silence[:399])
