"""Accuracy of a model on a corpus: word error rate by kind of voice, and delay of word starts.

    python evaluate.py MODEL.nemo CORPUS

Words are compared as written, with case and punctuation.
"""

import argparse
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import jiwer
import nemo.collections.asr as nemo_asr
import numpy as np
import torch
from batches import SpokenClip, load
from nemo.collections.asr.parts.utils.timestamp_utils import process_timestamp_outputs
from nemo.utils import logging
from omegaconf import open_dict
from torch.nn.utils.rnn import pad_sequence

BATCH_CLIPS = 32


@dataclass(frozen=True)
class Heard:
    """The model's words of a clip."""

    text: str
    word_starts: tuple[float, ...]


def summary(model: Any, corpus: Path) -> str:
    """Word error rates in per cent by kind of voice, and of the word starts' errors the median and the 90 % bound."""
    clips = load(corpus)
    heard = hear(model, clips)
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for clip, one in zip(clips, heard, strict=True):
        groups[clip.recording.group].append((clip.recording.text, one.text))
        groups["all"].append((clip.recording.text, one.text))
    rates = ", ".join(f"{group} {_word_error_rate(pairs):.1f}" for group, pairs in groups.items())
    return f"word error rate: {rates}; word starts: {_start_errors(clips, heard)}"


def hear(model: Any, clips: Sequence[SpokenClip]) -> list[Heard]:
    """Return the model's words for each clip; leave the model ready for training."""
    training = model.training
    model.eval()
    _with_timestamps(model)
    order = sorted(range(len(clips)), key=lambda n: len(clips[n].wide))
    heard: dict[int, Heard] = {}
    for first in range(0, len(order), BATCH_CLIPS):
        numbers = order[first : first + BATCH_CLIPS]
        heard |= zip(numbers, _hear_batch(model, [clips[n] for n in numbers]), strict=True)
    model.train(training)
    return [heard[n] for n in range(len(clips))]


def _with_timestamps(model: Any) -> None:
    decoding = model.cfg.decoding.copy()
    with open_dict(decoding):
        decoding.compute_timestamps = True
    model.change_decoding_strategy(decoding, verbose=False)


@torch.inference_mode()
def _hear_batch(model: Any, clips: Sequence[SpokenClip]) -> list[Heard]:
    audio = [torch.from_numpy(clip.wide.astype(np.float32) / 32768) for clip in clips]
    lengths = torch.tensor([len(one) for one in audio])
    encoded, frames = model.forward(input_signal=pad_sequence(audio, batch_first=True), input_signal_length=lengths)
    found = model.decoding.rnnt_decoder_predictions_tensor(encoded, frames, return_hypotheses=True)
    timed = process_timestamp_outputs(found, model.encoder.subsampling_factor, model.cfg.preprocessor.window_stride)
    return [Heard(one.text, tuple(word["start"] for word in one.timestamp["word"])) for one in timed]


def _word_error_rate(pairs: Sequence[tuple[str, str]]) -> float:
    said, heard = zip(*pairs, strict=True)
    return 100 * float(jiwer.wer(list(said), list(heard)))


def _start_errors(clips: Sequence[SpokenClip], heard: Sequence[Heard]) -> str:
    """Delays of correctly recognised words whose true start espeak-ng gives."""
    errors = [
        guess - start
        for clip, one in zip(clips, heard, strict=True)
        if one.text == clip.recording.text and len(clip.recording.word_starts) == len(one.word_starts)
        for guess, (_, start) in zip(one.word_starts, clip.recording.word_starts, strict=True)
    ]
    if not errors:
        return "none to compare"
    bound = np.percentile(np.abs(errors), 90)
    return f"median {median(errors):+.3f} s, 90 % within {bound:.3f} s ({len(errors)} words)"


def main() -> None:
    """Evaluate one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("corpus", type=Path)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.setLevel(logging.ERROR)
    model = nemo_asr.models.ASRModel.restore_from(str(arguments.model), map_location="cpu")
    print(summary(model, arguments.corpus))


if __name__ == "__main__":
    main()
