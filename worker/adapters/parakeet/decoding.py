"""Greedy TDT decoding of a batch: every row advances by its own predicted durations.

NeMo 3.0's own eager loop returns durations that depend on the neighbours: seeking the next label of some rows it
overwrites the durations of all. Hence this one; a test holds its tokens to NeMo's, one window at a time.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """What each decoding step gave to each row, every tensor of shape (steps, rows).

    Only entries where `emitted` is true are tokens; the others are blanks and idle steps of finished rows.
    """

    emitted: Tensor
    labels: Tensor
    frames: Tensor
    durations: Tensor
    confidences: Tensor


@dataclass(kw_only=True, slots=True)
class _Rows:
    """Where every row stands: the frame it looks at, tokens emitted there without advancing, prediction network.

    `state` has two tensors a layer, of shape (rows, features).
    """

    index: Tensor
    encoded: Tensor
    lengths: Tensor
    last: Tensor
    frame: Tensor
    symbols: Tensor
    prediction: Tensor
    state: list[Tensor]


_STEPS_PER_BLOCK = 32
"""After so many steps their scores give way to confidences: all at once is five times as fast, and holds all scores."""


class GreedyTdt:
    """The decoding loop over a NeMo transducer's prediction and joint networks.

    A step does the same arithmetic whatever the rows hold, and no row looks at another. `steps_per_poll` steps run
    between two looks at whether all rows are done, since each look makes the host wait for the device.
    """

    def __init__(self, model: Any, *, steps_per_poll: int) -> None:
        self._joint = model.joint
        self._embed, self._lstm = model.decoder.prediction["embed"], model.decoder.prediction["dec_rnn"].lstm
        self._blank: int = model.decoder.blank_idx
        device = next(model.decoder.parameters()).device
        self._durations = torch.tensor(list(model.cfg.decoding.durations), device=device)
        self._max_symbols: int = model.cfg.decoding.greedy.max_symbols
        self._steps_per_poll = steps_per_poll

    def __call__(self, encoded: Tensor, lengths: Tensor) -> Steps:
        """Decode encoder output of shape (rows, frames, features), of whose frames `lengths` count in each row."""
        rows = self._start(encoded, lengths)
        blocks: list[tuple[Tensor, ...]] = []
        scored: list[tuple[Tensor, ...]] = []
        while bool((rows.frame < rows.lengths).any()):
            scored += [self._step(rows) for _ in range(self._steps_per_poll)]
            if len(scored) >= _STEPS_PER_BLOCK:
                blocks.append(_block(scored))
                scored = []
        return _steps([*blocks, _block(scored)] if scored else blocks, lengths)

    def _start(self, encoded: Tensor, lengths: Tensor) -> _Rows:
        silence = encoded.new_zeros(len(lengths), self._lstm.hidden_size)
        before = [silence] * (2 * self._lstm.num_layers)
        prediction, state = self._predict(torch.full_like(lengths, self._blank), before)
        nothing = torch.zeros_like(lengths)
        return _Rows(
            index=torch.arange(len(lengths), device=lengths.device),
            encoded=self._joint.project_encoder(encoded),
            lengths=lengths,
            last=(lengths - 1).clamp(min=0),
            frame=nothing,
            symbols=nothing,
            prediction=prediction,
            state=state,
        )

    def _step(self, rows: _Rows) -> tuple[Tensor, ...]:
        labels, durations, logits = self._look(rows)
        emitted = (rows.frame < rows.lengths) & (labels != self._blank)
        step = (emitted, labels, rows.frame, durations, logits)
        self._advance(rows, emitted, durations)
        self._hear(rows, emitted, labels)
        return step

    def _look(self, rows: _Rows) -> tuple[Tensor, Tensor, Tensor]:
        seen = rows.encoded[rows.index, torch.minimum(rows.frame, rows.last)]
        logits = self._joint.joint_net(seen + rows.prediction).float()
        tokens, durations = logits[:, : self._blank + 1], logits[:, self._blank + 1 :]
        return tokens.argmax(dim=-1), self._durations[durations.argmax(dim=-1)], tokens

    def _advance(self, rows: _Rows, emitted: Tensor, durations: Tensor) -> None:
        rows.symbols = torch.where(emitted & (durations == 0), rows.symbols + 1, 0)
        must_move = ~emitted | (rows.symbols >= self._max_symbols)
        moved = torch.where(must_move, durations.clamp(min=1), durations)
        rows.frame = torch.minimum(rows.frame + moved, rows.lengths)

    def _hear(self, rows: _Rows, emitted: Tensor, labels: Tensor) -> None:
        prediction, state = self._predict(labels, rows.state)
        heard = emitted[:, None]
        rows.prediction = torch.where(heard, prediction, rows.prediction)
        rows.state = [torch.where(heard, new, old) for new, old in zip(state, rows.state, strict=True)]

    def _predict(self, labels: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """One step of the LSTM, cell by cell: its own way, made for sequences, slowed the whole loop by 1.7."""
        following: list[Tensor] = []
        hidden = self._embed(labels)
        for layer, weights in enumerate(self._lstm.all_weights):
            following += torch.lstm_cell(hidden, state[2 * layer : 2 * layer + 2], *weights)
            hidden = following[-2]
        return self._joint.pred(hidden), following


def _block(scored: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    *columns, logits = (torch.stack(column) for column in zip(*scored, strict=True))
    return *columns, torch.exp(logits.amax(dim=-1) - logits.logsumexp(dim=-1))


def _steps(blocks: list[tuple[Tensor, ...]], lengths: Tensor) -> Steps:
    if not blocks:
        none = lengths.new_zeros((0, len(lengths)))
        return Steps(emitted=none.bool(), labels=none, frames=none, durations=none, confidences=none)
    emitted, labels, frames, durations, confidences = (torch.cat(column) for column in zip(*blocks, strict=True))
    return Steps(emitted=emitted, labels=labels, frames=frames, durations=durations, confidences=confidences)
