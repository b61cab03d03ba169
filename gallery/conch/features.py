"""What whisper hears of a sound: its log-mel spectrogram, in the numbers that faster-whisper's extractor gives."""

from functools import cache

import numpy as np
import torch
from faster_whisper.feature_extractor import FeatureExtractor
from torch import Tensor

from gallery.conch.speaking import Samples

MELS = 80
HOP = 160
FFT = 400


def features(samples: Samples) -> Tensor:
    """[MELS, length // HOP] of samples at 16 kHz."""
    padded = torch.from_numpy(np.pad(samples, (0, HOP)))
    filters, window = _filters()
    spectrum = torch.stft(padded, FFT, HOP, window=window, center=True, pad_mode="reflect", return_complex=True)
    mel = filters @ spectrum[:, :-1].abs().square()
    log = mel.clamp_min(1e-10).log10()
    log = torch.maximum(log, log.max() - 8.0)
    return ((log + 4.0) / 4.0)[:, :-1]


@cache
def _filters() -> tuple[Tensor, Tensor]:
    filters = FeatureExtractor.get_mel_filters(16_000, FFT, n_mels=MELS).astype("float32")
    return torch.from_numpy(filters), torch.from_numpy(np.hanning(FFT + 1)[:-1].astype("float32"))
