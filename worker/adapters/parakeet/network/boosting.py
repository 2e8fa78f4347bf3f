"""Boosting of keyterms in the decoder's step: tables on the device, a row for each window.

A step with keyterms adds a few operations of fixed shape to the step without, reads no value on the host and has no
branch, so it can be recorded. The step without keyterms is left as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  torch's own custom
from numpy.typing import NDArray
from torch import Tensor

from worker.adapters.parakeet.network.keyterm_automaton import Vocabulary
from worker.adapters.parakeet.network.layout import SLOT_FRAMES

BOOSTING_VERSION = "2"
"""Raised when a change of ours can give the same audio and keyterms other words."""

RECORDED_STATES, RECORDED_ARCS = 16_384, 64
"""Sizes of the tables that a recording reads, 21 MB. A hundred names have about 1,000 states with up to 30 arcs."""

_AUTOMATA, _STACKS = 64, 16
"""Kept for the next windows of the same jobs: as many automata as a worker has job slots."""

_BY_ROW = ("root_targets", "root_boosts", "speech")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WindowTerms:
    """The keyterms of a window."""

    terms: tuple[str, ...]
    speech: NDArray[np.bool_]
    """True for each encoder frame with speech energy: no other frame is boosted."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Tables:
    """Automata one after the other, each with the states that follow on those of the last: see `Automaton`.

    Targets and labels are int64, boosts float32. The first root, of rows without terms, is all 0.
    """

    root_targets: Tensor
    """(automata, labels), as are the boosts."""
    root_boosts: Tensor
    labels: Tensor
    """(states, arcs) of all automata, as are targets and boosts."""
    targets: Tensor
    boosts: Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Boost(_Tables):
    """The boosts of the decoder's rows, with a root for each row; a row without keyterms stays in state 0."""

    speech: Tensor
    """1 for each frame of each row that is boosted, 0 for the others: float32, (rows, frames)."""

    def choose(self, logits: Tensor, states: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best label of each row, boosts added to all but the blank, and the state after it.

        That state is of no use after a blank.
        """
        speech = self.speech.gather(1, frames[:, None])
        arcs, boosts, targets = (table.index_select(0, states) for table in (self.labels, self.boosts, self.targets))
        scores = torch.addcmul(logits, self.root_boosts, speech).scatter_add_(1, arcs, boosts.mul_(speech))
        labels = scores.argmax(dim=-1, keepdim=True)
        own = targets.mul_(arcs == labels).amax(dim=-1, keepdim=True)
        return labels[:, 0], torch.where(own > 0, own, self.root_targets.gather(1, labels))[:, 0]

    def fits(self, other: "Boost") -> bool:
        """Return True where the other boosts have no more states and arcs."""
        return all(theirs <= ours for theirs, ours in zip(other.labels.shape, self.labels.shape, strict=True))

    def copy_from(self, other: "Boost") -> None:
        """Take the content of other boosts, which fit, in place."""
        states, arcs = other.labels.shape
        self.labels.fill_(self.root_boosts.shape[1] - 1)
        self.boosts.zero_()  # an arc that is left from wider tables would boost the blank
        for name in _BY_ROW:
            getattr(self, name).copy_(getattr(other, name))
        for name in ("labels", "targets", "boosts"):
            getattr(self, name)[:states, :arcs].copy_(getattr(other, name))

    def room(self) -> "Boost":
        """Return boosts of nothing, with room for any that a recording takes."""
        shape = RECORDED_STATES, RECORDED_ARCS
        return Boost(
            **{name: torch.zeros_like(getattr(self, name)) for name in _BY_ROW},
            labels=self.labels.new_full(shape, self.root_boosts.shape[1] - 1),
            targets=self.targets.new_zeros(shape),
            boosts=self.boosts.new_zeros(shape),
        )


def window_terms(
    windows: Sequence[NDArray[np.int16]], keyterms: Sequence[tuple[str, ...]], frame_samples: int
) -> list[WindowTerms | None]:
    """Return the keyterms of each window with its speech, None for a window without; no `keyterms`: none has any."""
    return [
        WindowTerms(terms=terms, speech=frames_with_speech(window, frame_samples)) if terms else None
        for window, terms in zip(windows, keyterms or [()] * len(windows), strict=True)
    ]


class Keyterms:
    """The boosts of windows. A list of terms becomes an automaton once, for all windows of its job."""

    def __init__(self, pieces: Sequence[str], weight: float, device: torch.device) -> None:
        self._vocabulary, self._weight, self._device = Vocabulary(pieces), weight, device
        self._n_labels = len(pieces) + 1
        self._tables_of = lru_cache(_AUTOMATA)(self._tables)
        self._stack_of = lru_cache(_STACKS)(self._stack)

    @torch.inference_mode()
    def rows(self, windows: Sequence[WindowTerms | None], rows: int) -> Boost | None:
        """Return the boosts of `rows` rows, those of the windows first; None where no window has keyterms."""
        lists = sorted({window.terms for window in windows if window and window.terms}) if self._weight else []
        if not lists:
            return None
        tables = self._stack_of(tuple(lists))
        places, speech = [0] * rows, np.zeros((rows, SLOT_FRAMES[-1]), np.float32)
        for row, window in enumerate(windows):
            if window and window.terms:
                places[row] = 1 + lists.index(window.terms)
                speech[row, : len(window.speech)] = window.speech
        on_gpu = self._device.type == "cuda"
        index, spoken = torch.tensor(places, pin_memory=on_gpu), torch.from_numpy(speech)
        index = index.to(self._device, non_blocking=on_gpu)
        return Boost(
            root_targets=tables.root_targets[index],
            root_boosts=tables.root_boosts[index],
            speech=(spoken.pin_memory() if on_gpu else spoken).to(self._device, non_blocking=on_gpu),
            labels=tables.labels,
            targets=tables.targets,
            boosts=tables.boosts,
        )

    def _stack(self, lists: tuple[tuple[str, ...], ...]) -> _Tables:
        """Put automata one after the other, the widest of which gives the width."""
        each = [self._tables_of(terms) for terms in lists]
        width = max(one.labels.shape[1] for one in each)
        none = torch.zeros(1, self._n_labels, device=self._device)
        roots, boosts, labels, targets, weights, states = [none.long()], [none], [], [], [], 0
        for one in each:
            room = (0, width - one.labels.shape[1])
            roots.append(torch.where(one.root_targets > 0, one.root_targets + states, 0))
            boosts.append(one.root_boosts)
            labels.append(F.pad(one.labels, room, value=self._n_labels - 1))
            targets.append(F.pad(one.targets + states, room))
            weights.append(F.pad(one.boosts, room))
            states += len(one.labels)
        return _Tables(
            root_targets=torch.cat(roots),
            root_boosts=torch.cat(boosts),
            labels=torch.cat(labels),
            targets=torch.cat(targets),
            boosts=torch.cat(weights),
        )

    def _tables(self, terms: tuple[str, ...]) -> _Tables:
        made = self._vocabulary.automaton(terms, self._weight)
        arrays = {one.name: torch.from_numpy(getattr(made, one.name)).to(self._device) for one in fields(made)}
        return _Tables(**{name: array[None] if name.startswith("root_") else array for name, array in arrays.items()})


FULL_SCALE = 32_768

_SILENCE_RMS = FULL_SCALE * 10 ** (-60 / 20)
_FLOOR_PERCENTILE = 10
_OVER_FLOOR = 2.0
"""In power: speech as strong as the noise behind it. Steady noise stays within 1.5 of its own floor."""
_EVERY = 4
"""One sample in four is used: 320 of a frame give its power within 0.3 dB."""
_MARGIN_FRAMES = 3
"""A token may be emitted this far from its sound."""


def frames_with_speech(samples: NDArray[np.int16], frame_samples: int) -> NDArray[np.bool_]:
    """Return True for each frame, the last one perhaps in part, that is near sound above the window's noise floor."""
    frames = -(-len(samples) // frame_samples)
    if not frames:
        return np.zeros(0, np.bool_)
    some = samples[::_EVERY]
    padded = np.zeros((frames, frame_samples // _EVERY), np.float32)
    padded.reshape(-1)[: len(some)] = some[: padded.size]
    power = np.einsum("ij,ij->i", padded, padded) / padded.shape[1]
    floor = np.percentile(power, _FLOOR_PERCENTILE)
    loud = power > max(_SILENCE_RMS**2, floor * _OVER_FLOOR)
    near = np.convolve(loud, np.ones(2 * _MARGIN_FRAMES + 1), mode="full")[_MARGIN_FRAMES : _MARGIN_FRAMES + frames]
    return near > 0
