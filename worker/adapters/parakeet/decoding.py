"""Greedy TDT decoding of a batch: every row advances by its own predicted durations.

NeMo 3.0's own eager loop returns durations that depend on the neighbours: seeking the next label of some rows it
overwrites the durations of all. Hence this one; a test holds its tokens to NeMo's, one window at a time.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
import torch
from torch import Tensor

from worker.adapters.parakeet.capture import Capture, Work

log = structlog.get_logger()


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

    @property
    def columns(self) -> tuple[Tensor, ...]:
        """All five."""
        return self.emitted, self.labels, self.frames, self.durations, self.confidences


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """What is decoded: encoder output as the joint network takes it, of whose frames `lengths` count in each row."""

    index: Tensor
    encoded: Tensor
    lengths: Tensor
    last: Tensor
    """Each row's last frame, 0 where it has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """Where every row stands: the frame it looks at, tokens emitted there without advancing, prediction network.

    `state` has two tensors a layer, of shape (rows, features).
    """

    frame: Tensor
    symbols: Tensor
    prediction: Tensor
    state: tuple[Tensor, ...]

    def become(self, other: "_Place") -> None:
        """Take its values, in the memory that is here."""
        mine, others = ((at.frame, at.symbols, at.prediction, *at.state) for at in (self, other))
        for tensor, new in zip(mine, others, strict=True):
            tensor.copy_(new)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recording:
    """A block of steps that is repeated: always of these rows, from this place on."""

    rows: _Rows
    place: _Place
    repeat: Work

    def begin(self, rows: _Rows, place: _Place) -> tuple[_Rows, _Place, Work]:
        """Decode others of this shape."""
        self.rows.encoded.copy_(rows.encoded)
        self.rows.lengths.copy_(rows.lengths)
        self.rows.last.copy_(rows.last)
        self.place.become(place)
        return self.rows, self.place, self._block

    def _block(self) -> tuple[Tensor, ...]:
        return tuple(column.clone() for column in self.repeat())  # its memory is for the next repeat


class GreedyTdt:
    """The decoding loop over a NeMo transducer's prediction and joint networks.

    A step does the same arithmetic whatever the rows hold, and no row looks at another. A block of `block_steps` steps
    runs between two looks at whether all rows are done, since each look makes the host wait for the device.
    """

    def __init__(self, model: Any, *, block_steps: int) -> None:
        self._joint = model.joint
        self._embed, self._lstm = model.decoder.prediction["embed"], model.decoder.prediction["dec_rnn"].lstm
        self._blank: int = model.decoder.blank_idx
        device = next(model.decoder.parameters()).device
        self._durations = torch.tensor(list(model.cfg.decoding.durations), device=device)
        self._max_symbols: int = model.cfg.decoding.greedy.max_symbols
        self._block_steps = block_steps
        self._recording: _Recording | None = None

    @property
    def is_recorded(self) -> bool:
        """Blocks of some shape are repeated."""
        return self._recording is not None

    @torch.inference_mode()
    def __call__(self, encoded: Tensor, lengths: Tensor) -> Steps:
        """Decode encoder output of shape (rows, frames, features), of whose frames `lengths` count in each row."""
        rows, place, block = self._begun(encoded, lengths)
        blocks: list[tuple[Tensor, ...]] = []
        while bool((place.frame < rows.lengths).any()):
            blocks.append(block())
        return _steps(blocks, lengths)

    @torch.inference_mode()
    def record(self, encoded: Tensor, lengths: Tensor, capture: Capture) -> None:
        """From now on repeat a recording of a block for whatever is of this shape.

        It is refused, with a warning, when it fails, or when of this very output it makes other steps than before.
        """
        expected = self(encoded, lengths)
        rows, place = self._start(torch.zeros_like(encoded), torch.zeros_like(lengths))
        try:
            repeat = capture(partial(self._block, rows, place))
            self._recording = _Recording(rows=rows, place=place, repeat=repeat)
            is_right = all(map(torch.equal, self(encoded, lengths).columns, expected.columns))
            reason = "" if is_right else "it does not make the same steps"
        except RuntimeError as exc:
            reason = str(exc) or type(exc).__name__
        if reason:
            self._recording = None
            log.warning("engine.graph_refused", rows=len(lengths), reason=reason)

    def _begun(self, encoded: Tensor, lengths: Tensor) -> tuple[_Rows, _Place, Work]:
        rows, place = self._start(encoded, lengths)
        if self._recording and self._recording.rows.encoded.shape == rows.encoded.shape:
            return self._recording.begin(rows, place)
        return rows, place, partial(self._block, rows, place)

    def _start(self, encoded: Tensor, lengths: Tensor) -> tuple[_Rows, _Place]:
        silence = encoded.new_zeros(len(lengths), self._lstm.hidden_size)
        before = (silence,) * (2 * self._lstm.num_layers)
        prediction, state = self._predict(torch.full_like(lengths, self._blank), before)
        rows = _Rows(
            index=torch.arange(len(lengths), device=lengths.device),
            encoded=self._joint.project_encoder(encoded),
            lengths=lengths,
            last=(lengths - 1).clamp(min=0),
        )
        frame, symbols = torch.zeros_like(lengths), torch.zeros_like(lengths)
        return rows, _Place(frame=frame, symbols=symbols, prediction=prediction, state=state)

    def _block(self, rows: _Rows, start: _Place) -> tuple[Tensor, ...]:
        """Some steps from there on, and the place is then where they ended. Nothing here waits for the device."""
        place, scored = start, []
        for _ in range(self._block_steps):
            place, step = self._step(rows, place)
            scored.append(step)
        *columns, logits = (torch.stack(column) for column in zip(*scored, strict=True))
        start.become(place)
        # Of all steps at once: one by one it takes five times as long.
        return *columns, torch.exp(logits.amax(dim=-1) - logits.logsumexp(dim=-1))

    def _step(self, rows: _Rows, at: _Place) -> tuple[_Place, tuple[Tensor, ...]]:
        labels, durations, logits = self._look(rows, at)
        emitted = (at.frame < rows.lengths) & (labels != self._blank)
        frame, symbols = self._advance(rows, at, emitted, durations)
        prediction, state = self._hear(at, emitted, labels)
        place = _Place(frame=frame, symbols=symbols, prediction=prediction, state=state)
        return place, (emitted, labels, at.frame, durations, logits)

    def _look(self, rows: _Rows, at: _Place) -> tuple[Tensor, Tensor, Tensor]:
        seen = rows.encoded[rows.index, torch.minimum(at.frame, rows.last)]
        logits = self._joint.joint_net(seen + at.prediction).float()
        tokens, durations = logits[:, : self._blank + 1], logits[:, self._blank + 1 :]
        return tokens.argmax(dim=-1), self._durations[durations.argmax(dim=-1)], tokens

    def _advance(self, rows: _Rows, at: _Place, emitted: Tensor, durations: Tensor) -> tuple[Tensor, Tensor]:
        symbols = torch.where(emitted & (durations == 0), at.symbols + 1, 0)
        must_move = ~emitted | (symbols >= self._max_symbols)
        moved = torch.where(must_move, durations.clamp(min=1), durations)
        return torch.minimum(at.frame + moved, rows.lengths), symbols

    def _hear(self, at: _Place, emitted: Tensor, labels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        prediction, state = self._predict(labels, at.state)
        heard = emitted[:, None]
        kept = tuple(torch.where(heard, new, old) for new, old in zip(state, at.state, strict=True))
        return torch.where(heard, prediction, at.prediction), kept

    def _predict(self, labels: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step of the LSTM, cell by cell: its own way, made for sequences, slowed the whole loop by 1.7."""
        following: list[Tensor] = []
        hidden = self._embed(labels)
        for layer, weights in enumerate(self._lstm.all_weights):
            following += torch.lstm_cell(hidden, state[2 * layer : 2 * layer + 2], *weights)
            hidden = following[-2]
        return self._joint.pred(hidden), tuple(following)


def _steps(blocks: list[tuple[Tensor, ...]], lengths: Tensor) -> Steps:
    if not blocks:
        none = lengths.new_zeros((0, len(lengths)))
        return Steps(emitted=none.bool(), labels=none, frames=none, durations=none, confidences=none)
    emitted, labels, frames, durations, confidences = (torch.cat(column) for column in zip(*blocks, strict=True))
    return Steps(emitted=emitted, labels=labels, frames=frames, durations=durations, confidences=confidences)
