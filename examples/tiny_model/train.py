"""Train the tiny model, stage by stage, on a CPU.

    python train.py FOLDER        reads train1, train2, eval and tokenizer/ there, writes STAGE.pt after each stage

A stage begins with the weights of the one before it; `--from` begins with those of a packed .nemo file instead.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import evaluate
import nemo.collections.asr as nemo_asr
import tokenizer
import torch
from batches import Batch, Batches, SpokenClip, load
from model_config import model_config
from nemo.utils import logging
from stages import STAGES, Stage
from tdt_loss import tdt_loss
from torch import Tensor, nn
from torch.nn.functional import ctc_loss

TRAINING_CORPORA = ("train1", "train2")
REPORT_STEPS = 50


class Trainer:
    """The model, the CTC head that helps it along, and their optimiser."""

    def __init__(self, folder: Path, stage: Stage) -> None:
        self.model: Any = nemo_asr.models.EncDecRNNTBPEModel(model_config(folder / "tokenizer"))
        self.model.joint.log_softmax = False  # the loss normalises
        self.model.preprocessor.featurizer.dither = 0.0  # digital silence is to stay silent
        self.blank: int = self.model.tokenizer.vocab_size
        self.ctc_head = nn.Linear(self.model.cfg.encoder.d_model, self.blank + 1)
        self.stage = stage
        self._parameters = [*self.model.parameters(), *self.ctc_head.parameters()]
        self._optimiser = torch.optim.AdamW(
            self._parameters, lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=1e-3
        )
        self._masks = self.model.spec_augmentation

    def restore(self, weights: Path) -> None:
        """Take the weights of a stage's .pt or of a .nemo, whose CTC head is not known."""
        if weights.suffix == ".nemo":
            packed = nemo_asr.models.ASRModel.restore_from(str(weights), map_location="cpu")
            self.model.load_state_dict(packed.state_dict())
        else:
            saved = torch.load(weights, weights_only=True)
            self.model.load_state_dict(saved["model"])
            self.ctc_head.load_state_dict(saved["ctc_head"])

    def save(self, weights: Path) -> None:
        """Write the weights for the next stage."""
        torch.save({"model": self.model.state_dict(), "ctc_head": self.ctc_head.state_dict()}, weights)

    def step(self, batch: Batch, learning_rate: float, *, ctc_only: bool) -> tuple[float, float]:
        """Learn from one batch; the transducer's and the CTC loss per token, the end counted as one."""
        self.model.spec_augmentation = None if ctc_only else self._masks
        encoded, lengths = self.model.forward(input_signal=batch.audio, input_signal_length=batch.audio_lengths)
        nothing = torch.zeros(())
        transducer = nothing if ctc_only else self._transducer_loss(encoded, lengths, batch)
        weight = 1.0 if ctc_only else self.stage.ctc_weight
        ctc = self._ctc_loss(encoded, lengths, batch) if weight else nothing
        self._descend(transducer + weight * ctc, learning_rate)
        return transducer.item(), ctc.item()

    def _transducer_loss(self, encoded: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
        predicted, _, _ = self.model.decoder(targets=batch.tokens, target_length=batch.token_lengths)
        logits = self.model.joint(encoder_outputs=encoded, decoder_outputs=predicted)
        windows = batch.windows if self.stage.aligned else None
        loss = tdt_loss(logits, batch.tokens, lengths, batch.token_lengths, windows=windows)
        return loss.sum() / _outputs(batch)

    def _ctc_loss(self, encoded: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
        scores = torch.log_softmax(self.ctc_head(encoded.transpose(1, 2)), dim=-1).transpose(0, 1)
        loss = ctc_loss(
            scores, batch.tokens, lengths, batch.token_lengths, blank=self.blank, zero_infinity=True, reduction="sum"
        )
        return loss / _outputs(batch)

    def _descend(self, loss: Tensor, learning_rate: float) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if torch.isfinite(nn.utils.clip_grad_norm_(self._parameters, 1.0)):
            self._optimiser.step()


def _outputs(batch: Batch) -> Tensor:
    """Tokens and ends: a batch of silences has none but ends."""
    return batch.token_lengths.sum() + len(batch.token_lengths)


def run(trainer: Trainer, batches: Batches, clock: Callable[[], float] = time.monotonic) -> None:
    """Train for the minutes of the stage, and say how it goes."""
    stage, clean, full = trainer.stage, batches.clean(), batches.full()
    start = clock()
    losses: list[tuple[float, float]] = []
    trainer.model.train()
    for step in count():
        done = (clock() - start) / (60 * stage.minutes)
        if losses and (done >= 1 or len(losses) == REPORT_STEPS):
            print(f"{stage.name} step {step} {min(done, 1):.0%} {_means(losses)}", flush=True)
            losses.clear()
        if done >= 1:
            return
        ctc_only = done < stage.ctc_only
        batch = next(clean if ctc_only else full)
        losses.append(trainer.step(batch, learning_rate(stage, step, done), ctc_only=ctc_only))


def learning_rate(stage: Stage, step: int, done: float) -> float:
    """Up in a line, down in half a wave."""
    falling: float = (0.5 * (1 + math.cos(math.pi * done))) ** 0.8
    return stage.learning_rate * min(1, (step + 1) / stage.warmup_steps) * falling + 1e-6


def _means(losses: Sequence[tuple[float, float]]) -> str:
    transducer, ctc = (sum(column) / len(losses) for column in zip(*losses, strict=True))
    return f"loss per token: transducer {transducer:.3f}, ctc {ctc:.3f}"


def _stages(names: Sequence[str], minutes_scale: float) -> Iterator[Stage]:
    for stage in STAGES:
        if not names or stage.name in names:
            yield replace(stage, minutes=stage.minutes * minutes_scale)


def _train(folder: Path, stage: Stage, clips: Sequence[SpokenClip], seed: int, weights: Path | None) -> Path:
    torch.manual_seed(seed)
    trainer = Trainer(folder, stage)
    if weights:
        trainer.restore(weights)
    run(trainer, Batches(clips, tokenizer.load(folder / "tokenizer"), stage, seed))
    trainer.save(folder / f"{stage.name}.pt")
    print(f"{stage.name}: {evaluate.summary(trainer.model, folder / 'eval')}", flush=True)
    return folder / f"{stage.name}.pt"


def main() -> None:
    """Train all stages or some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stage", action="append", default=[], help="only this one; may be repeated")
    parser.add_argument("--from", dest="weights", type=Path, help="weights to begin with, .pt or .nemo")
    parser.add_argument("--minutes-scale", type=float, default=1.0, help="shorten or lengthen every stage")
    arguments = parser.parse_args()
    logging.setLevel(logging.ERROR)
    clips = [clip for name in TRAINING_CORPORA for clip in load(arguments.folder / name)]
    weights = arguments.weights
    for seed, stage in enumerate(_stages(arguments.stage, arguments.minutes_scale)):
        weights = _train(arguments.folder, stage, clips, seed, weights)


if __name__ == "__main__":
    main()
