"""Passes of the encoder as CUDA graphs, one for each shape of pass that occurs, recorded when there is time."""

from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from worker.adapters.parakeet.network.cuda import Capture, Work
from worker.adapters.parakeet.network.layout import PassShape

RunPass: TypeAlias = Callable[[PassShape, Tensor, Tensor], Tensor]
"""Features, (spectrogram rows, bands), and a plan, for passes of the shape, to projected frames, (frames, joint)."""

Report: TypeAlias = Callable[..., object]
"""Receives an event with its fields, as structlog's loggers do."""

BUSY_PASSES = 32
"""Passes of a shape after which its recording is made although windows are waiting."""


def ignore(event: str, /, **fields: object) -> None:
    """Receive an event and do nothing."""


class RecordedPasses:
    """Runs passes: from a recording where there is one of the pass's shape, otherwise by `run_pass` itself.

    Recordings are made one at a time, when `record_pending` is called, so that a start does not wait for them. They are
    dropped all together (see `CudaCapture`): where one leaves no room for a pass that is not recorded, and where memory
    runs out. Shapes of as many frames are not recorded again then. One caller at a time.
    """

    def __init__(
        self,
        run_pass: RunPass,
        new_inputs: Callable[[PassShape], tuple[Tensor, Tensor]],
        new_capture: Callable[[], Capture],
        leaves_room: Callable[[], bool],
        report: Report,
    ) -> None:
        self._run_pass, self._new_inputs, self._new_capture = run_pass, new_inputs, new_capture
        self._leaves_room, self._report = leaves_room, report
        self._capture: Capture | None = None
        self._recordings: dict[PassShape, RunPass] = {}
        self._pending: Counter[PassShape] = Counter()
        self._refused: set[PassShape] = set()
        self._frames_refused: int | None = None

    @property
    def recorded(self) -> frozenset[PassShape]:
        """The shapes that are repeated from a recording."""
        return frozenset(self._recordings)

    @torch.inference_mode()
    def __call__(self, shape: PassShape, features: Tensor, plan: Tensor) -> Tensor:
        """Return the projected frames of a pass, (frames, joint size)."""
        if recording := self._recordings.get(shape):
            return recording(shape, features, plan)
        if self._may_record(shape):
            self._pending[shape] += 1
            if self._pending[shape] >= BUSY_PASSES:
                self._record(shape)
        return self._run_pass(shape, features, plan)

    def record_pending(self) -> bool:
        """Record the shape that occurred most of those that are not recorded. Returns False where there is none."""
        if not self._pending:
            return False
        self._record(self._pending.most_common(1)[0][0])
        return True

    def forget(self) -> None:
        """Drop all recordings: their memory is needed for more than speed."""
        if self._recordings:
            frames = max(shape.frames for shape in self._recordings)
            self._report("engine.graphs_forgotten", graphs=len(self._recordings))
            self._refuse_from(frames)
        self._recordings.clear()
        self._capture = None

    def _may_record(self, shape: PassShape) -> bool:
        return shape not in self._refused and (self._frames_refused is None or shape.frames < self._frames_refused)

    @torch.inference_mode()
    def _record(self, shape: PassShape) -> None:
        del self._pending[shape]
        self._capture = self._capture or self._new_capture()
        try:
            self._recordings[shape] = _recorded(self._run_pass, shape, self._new_inputs(shape), self._capture)
            reason = "" if self._leaves_room() else "it leaves too little memory"
        except torch.OutOfMemoryError as exc:
            reason = str(exc) or "out of memory"
            self._recordings.setdefault(shape, self._run_pass)  # so that `forget` drops what it holds
        except RuntimeError as exc:
            self._refused.add(shape)
            self._report("engine.graph_refused", frames=shape.frames, reason=str(exc))
            return
        if reason:
            self._report("engine.graph_refused", frames=shape.frames, reason=reason)
            self.forget()
            self._refuse_from(shape.frames)

    def _refuse_from(self, frames: int) -> None:
        self._frames_refused = min(frames, self._frames_refused or frames)
        self._pending = Counter({shape: count for shape, count in self._pending.items() if self._may_record(shape)})


def _recorded(run_pass: RunPass, shape: PassShape, inputs: tuple[Tensor, Tensor], capture: Capture) -> RunPass:
    """Return a recording of the pass, which reads these inputs from now on."""

    def work() -> tuple[Tensor, ...]:
        return (run_pass(shape, *inputs),)

    repeat: Work = capture(work)

    def replay(_: PassShape, features: Tensor, plan: Tensor) -> Tensor:
        for mine, new in zip(inputs, (features, plan), strict=True):
            mine.copy_(new)
        return repeat()[0].clone()  # the next repeat overwrites it

    return replay
