"""Greedy TDT decoding of many windows at once: each advances by the durations that are predicted for it.

A token-and-duration transducer scores, at one encoder frame and after the tokens so far, the next token and how many
frames it lasts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  torch's own custom
from torch import Tensor

from worker.adapters.parakeet.network.boosting import Boost
from worker.adapters.parakeet.network.config import TransducerConfig
from worker.adapters.parakeet.network.cuda import Capture, Work
from worker.adapters.parakeet.network.weights import Weights, linear_of

BLOCK_STEPS = 8
"""Steps between two checks whether all rows are done, each of which makes the host wait for the device. A window of
30 s takes some 130: half a block is wasted on average."""


class Steps(NamedTuple):
    """The outcome of each decoding step for each row, every tensor of shape (steps, rows).

    Only entries where `emitted` is true are tokens; the others are blanks and idle steps of finished rows.
    """

    emitted: Tensor
    labels: Tensor
    frames: Tensor
    """The encoder frame of the window that was scored."""
    durations: Tensor
    confidences: Tensor
    """The probability of the label among labels, without boosts: float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderRows:
    """The windows to decode, one a row."""

    frames: Tensor
    """Projected encoder frames of all windows, (frames, joint size): see `TdtDecoder.project`."""
    starts: Tensor
    """Each row's first frame in `frames`, 0 for a row without a window: int64, (rows,)."""
    lengths: Tensor
    """Each row's number of frames, 0 for a row without a window: int64, (rows,)."""
    boost: Boost | None = None
    """The keyterms of the rows; None where no row has any."""

    def fits(self, other: "DecoderRows") -> bool:
        """Return True where the others are as many rows, of no more frames, and boosted just where these are."""
        if len(other.lengths) != len(self.lengths) or len(other.frames) > len(self.frames):
            return False
        if self.boost is None or other.boost is None:
            return self.boost is other.boost
        return self.boost.fits(other.boost)

    def copy_from(self, other: "DecoderRows") -> None:
        """Take the content of other rows, which fit, in place."""
        self.frames[: len(other.frames)].copy_(other.frames)
        self.starts.copy_(other.starts)
        self.lengths.copy_(other.lengths)
        if self.boost and other.boost:
            self.boost.copy_from(other.boost)


@dataclass(frozen=True, kw_only=True, slots=True)
class _State:
    """The state of every row between two steps. Indices and counts are int64, (rows,)."""

    frame: Tensor
    """The frame to be scored."""
    symbols: Tensor
    """Tokens emitted there so far."""
    prediction: Tensor
    """The prediction network's output as the joint network takes it, (rows, joint size)."""
    cells: tuple[Tensor, ...]
    """Output and cell of each LSTM layer, (rows, prediction size)."""
    terms: tuple[Tensor, ...] = ()
    """The state of each row in the automaton of its keyterms; empty where no row has any."""

    def copy_from(self, other: "_State") -> None:
        """Take the other state's content in place."""
        mine, others = ((one.frame, one.symbols, one.prediction, *one.cells, *one.terms) for one in (self, other))
        for tensor, new in zip(mine, others, strict=True):
            tensor.copy_(new)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recording:
    """A recorded block of steps, and the tensors that it reads and writes."""

    rows: DecoderRows
    state: _State
    repeat: Work

    def start(self, rows: DecoderRows, state: _State) -> tuple[DecoderRows, _State, Work]:
        """Copy the rows and their state to where the recording reads them."""
        self.rows.copy_from(rows)
        self.state.copy_from(state)
        return self.rows, self.state, self._block

    def _block(self) -> tuple[Tensor, ...]:
        return tuple(column.clone() for column in self.repeat())  # the next repeat overwrites them


class TdtDecoder:
    """The prediction network, the joint network and the decoding loop; one block of steps can be recorded.

    A step does the same arithmetic whatever the rows hold, and no row looks at another.
    """

    def __init__(self, weights: Weights, config: TransducerConfig) -> None:
        size, joint = config.d_prediction, config.d_joint
        self._embedding = weights.placed("decoder.prediction.embed.weight", config.n_labels, size)
        self._lstm = [
            [
                weights.placed(f"decoder.prediction.dec_rnn.lstm.{part}_{side}_l{layer}", *shape)
                for part, shape in (("weight", (4 * size, size)), ("bias", (4 * size,)))
                for side in ("ih", "hh")
            ]
            for layer in range(config.n_prediction_layers)
        ]
        self._project_encoder = linear_of(weights, "joint.enc", joint, config.d_encoder)
        self._project_prediction = linear_of(weights, "joint.pred", joint, size)
        last, outputs = f"joint.joint_net.{1 + config.joint_dropout}", config.n_labels + len(config.durations)
        self._joint = weights.placed(f"{last}.weight", outputs, joint).t()
        self._joint_bias = weights.take(f"{last}.bias", outputs)
        self._durations: Tensor | None = None  # those of published models are their places: 0, 1, 2, ...
        if config.durations != tuple(range(len(config.durations))):
            self._durations = torch.tensor(config.durations, device=weights.device)
        self._config = config
        self._recordings: list[_Recording] = []

    @property
    def joint_size(self) -> int:
        """Width of projected frames."""
        return self._config.d_joint

    def project(self, encoded: Tensor, block: int) -> Tensor:
        """Return encoder frames, (frames, width), as the joint network takes them: (frames, joint size)."""
        return self._project_encoder(encoded, block)

    @torch.inference_mode()
    def __call__(self, rows: DecoderRows) -> Steps:
        """Decode the rows, waiting for the device after each block."""
        rows, state, block = self._started(rows)
        blocks: list[tuple[Tensor, ...]] = []
        while bool((state.frame < rows.lengths).any()):
            blocks.append(block())
        if blocks:
            return Steps(*map(torch.cat, zip(*blocks, strict=True)))
        none = rows.lengths.new_zeros((0, len(rows.lengths)))
        return Steps(none.bool(), none, none, none, none.float())

    @torch.inference_mode()
    def record(self, rows: DecoderRows, capture: Capture, refused: Callable[[str], object]) -> None:
        """From now on repeat a recording of a block for as many rows as these, with at most as many frames.

        Rows with keyterms and rows without have a recording each, to be made one after the other. `refused` receives
        the reason where a recording fails, or does not give the same steps as the loop for these rows.
        """
        expected = self(rows)
        blank = DecoderRows(
            frames=torch.zeros_like(rows.frames),
            starts=torch.zeros_like(rows.starts),
            lengths=torch.zeros_like(rows.lengths),
            boost=rows.boost and rows.boost.room(),
        )
        state = self._first_state(blank)
        try:
            repeat = capture(partial(self._block, blank, state))
            self._recordings.append(_Recording(rows=blank, state=state, repeat=repeat))
            is_right = all(map(torch.equal, self(rows), expected))
            reason = "" if is_right else "it does not give the same steps"
        except RuntimeError as exc:
            reason = str(exc) or type(exc).__name__
        if reason:
            self._recordings = [one for one in self._recordings if one.rows is not blank]
            refused(reason)

    def _started(self, rows: DecoderRows) -> tuple[DecoderRows, _State, Work]:
        state = self._first_state(rows)
        for recording in self._recordings:
            if recording.rows.fits(rows):
                return recording.start(rows, state)
        return rows, state, partial(self._block, rows, state)

    def _first_state(self, rows: DecoderRows) -> _State:
        silence = self._embedding.new_zeros(len(rows.lengths), self._config.d_prediction)
        blanks = torch.full_like(rows.lengths, self._config.blank)
        prediction, cells = self._predict(blanks, (silence,) * (2 * len(self._lstm)))
        first = torch.zeros_like(rows.lengths)
        terms = (first.clone(),) if rows.boost else ()
        return _State(frame=first, symbols=first.clone(), prediction=prediction, cells=cells, terms=terms)

    def _block(self, rows: DecoderRows, state: _State) -> tuple[Tensor, ...]:
        """Run a block of steps from `state` on, which then holds the state after them. Never waits for the device."""
        now, scored, last = state, [], (rows.lengths - 1).clamp_(min=0)
        for _ in range(BLOCK_STEPS):
            now, step = self._step(rows, last, now)
            scored.append(step)
        emitted, labels, *columns, logits = (torch.stack(column) for column in zip(*scored, strict=True))
        state.copy_from(now)
        # The confidences of all steps at once: step by step they take five times as long.
        chosen = logits.gather(2, labels[:, :, None])[:, :, 0] if rows.boost else logits.amax(dim=-1)
        return emitted, labels, *columns, torch.exp(chosen - logits.logsumexp(dim=-1))

    def _step(self, rows: DecoderRows, last: Tensor, at: _State) -> tuple[_State, tuple[Tensor, ...]]:
        labels, durations, terms, logits = self._score(rows, torch.minimum(at.frame, last), at)
        emitted = (at.frame < rows.lengths) & (labels != self._config.blank)
        frame, symbols = self._advance(rows, at, emitted, durations)
        prediction, cells = self._predict(labels, at.cells)
        is_new = emitted[:, None]
        state = _State(
            frame=frame,
            symbols=symbols,
            prediction=torch.where(is_new, prediction, at.prediction),
            cells=tuple(torch.where(is_new, new, old) for new, old in zip(cells, at.cells, strict=True)),
            terms=tuple(torch.where(emitted, new, old) for new, old in zip(terms, at.terms, strict=True)),
        )
        return state, (emitted, labels, at.frame, durations, logits)

    def _score(self, rows: DecoderRows, place: Tensor, at: _State) -> tuple[Tensor, Tensor, tuple[Tensor, ...], Tensor]:
        """Return the best label and duration of each row at its place, its keyterms' state, and float32 logits.

        Keyterms change the label alone: neither the logits, of which confidences are made, nor the durations.
        """
        frames = rows.frames[rows.starts + place]
        logits = self._in_float32(F.relu(frames + at.prediction))
        labels, durations = torch.split(logits, [self._config.n_labels, len(self._config.durations)], dim=1)
        best, *terms = rows.boost.choose(labels, at.terms[0], place) if rows.boost else (labels.argmax(dim=-1),)
        duration = durations.argmax(dim=-1)
        return best, duration if self._durations is None else self._durations[duration], tuple(terms), labels

    def _in_float32(self, hidden: Tensor) -> Tensor:
        """Return the joint network's logits without rounding them to the network's precision.

        In bfloat16 logits of 8 to 16 are 0.06 apart: enough to change a confidence by 6 %, or a token.
        """
        if hidden.is_cpu or hidden.dtype == torch.float32:
            return torch.addmm(self._joint_bias, hidden.float(), self._joint.float())
        return torch.mm(hidden, self._joint, out_dtype=torch.float32) + self._joint_bias

    def _advance(self, rows: DecoderRows, at: _State, emitted: Tensor, durations: Tensor) -> tuple[Tensor, Tensor]:
        """Return each row's next frame and the tokens emitted there; blanks, and too many tokens, move on by one."""
        symbols = at.symbols + 1
        stays = emitted & (durations == 0) & (symbols < self._config.max_symbols)
        moved = torch.maximum(durations, ~stays)
        return torch.minimum(at.frame + moved, rows.lengths), symbols.mul_(stays)

    def _predict(self, labels: Tensor, cells: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Advance the LSTM by a step, cell by cell: torch's LSTM, made for sequences, is slower by 1.7."""
        following: list[Tensor] = []
        hidden = F.embedding(labels, self._embedding)
        for layer, weights in enumerate(self._lstm):
            following += torch.lstm_cell(hidden, list(cells[2 * layer : 2 * layer + 2]), *weights)
            hidden = following[-2]
        return self._project_prediction(hidden, len(hidden)), tuple(following)
