"""One speech file in the conditions that accuracy is reported by: clean, with noise, and as the pipeline's MP3."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.audio.speech_bank import Reference, build_long_file, decode, transcode, write_wave
from worker.ports import SAMPLE_RATE_HZ, Pcm

NOISE_DB = (20, 10, 5)
CLEAN, MP3 = "clean", "8 kHz MP3"


def noisy(samples: Pcm, reference: Reference, decibels: float, seed: int) -> Pcm:
    """Add white noise that is `decibels` quieter than the speech; pauses do not count as speech."""
    spoken: list[NDArray[np.float64]] = [
        samples[one.start_sample : one.end_sample].astype(np.float64) for one in reference.utterances
    ]
    power = float(np.mean(np.square(np.concatenate(spoken))))
    noise = np.random.default_rng(seed).standard_normal(len(samples)) * np.sqrt(power / 10 ** (decibels / 10))
    return np.clip(samples + noise, -32768, 32767).astype(np.int16)


def manifest_lines(folder: Path, seed: int, seconds: float, keyterms: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Write the file of that seed in every condition to `folder`; yield its lines for `accuracy --manifest`."""
    clean = folder / f"{seed}-clean.wav"
    reference = build_long_file(seed, seconds, clean)
    files = {CLEAN: clean, MP3: folder / f"{seed}-8khz.mp3"}
    transcode(clean, files[MP3])
    samples = decode(clean)
    for decibels in NOISE_DB:
        files[f"noise {decibels} dB"] = path = folder / f"{seed}-noise-{decibels}.wav"
        write_wave(path, noisy(samples, reference, decibels, seed))
    words = [
        {"word": word, "start": start}
        for one in reference.utterances
        for word, start in zip(one.text.split(), one.word_starts, strict=False)
    ]
    for condition, path in files.items():
        yield {
            "audio_filepath": path.name,
            "duration": len(samples) / SAMPLE_RATE_HZ,
            "text": reference.text,
            "condition": condition,
            "words": words,
            "keyterms": list(keyterms),
        }
