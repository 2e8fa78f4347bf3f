"""Recordings of passes: made when there is time, and dropped all together or not at all."""

from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")

from tests.support.engines.graph_recorder import Recorder  # noqa: E402  needs torch
from worker.adapters.parakeet.network.cuda import BUSY_PASSES, RecordedPasses  # noqa: E402
from worker.adapters.parakeet.network.layout import PassShape  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

    from worker.adapters.parakeet.network.cuda import Capture, Work


def shape_of(frames: int) -> PassShape:
    return PassShape(frames=frames, block=4, slots=2, slot_frames=128, gap=1, factor=8)


SMALL, LARGE = shape_of(4), shape_of(8)


class Encoder:
    """Adds up features and plan; counts the passes that it ran itself."""

    def __init__(self) -> None:
        self.ran = 0

    def __call__(self, shape: PassShape, features: "Tensor", plan: "Tensor") -> "Tensor":
        self.ran += 1
        return features[: shape.frames] * 2 + plan.sum()


class Device:
    """Recordings of an encoder, and what is reported of them."""

    def __init__(self, *captures: "Capture") -> None:
        self.encoder, self.has_room = Encoder(), True
        self.events: list[tuple[str, dict[str, object]]] = []
        self.captures = list(captures)
        self.opened = 0
        self.passes = RecordedPasses(self.encoder, inputs, self._open, lambda: self.has_room, self._report)

    def _open(self) -> "Capture":
        self.opened += 1
        return self.captures[min(self.opened, len(self.captures)) - 1]

    def _report(self, event: str, /, **fields: object) -> None:
        self.events.append((event, fields))

    def run(self, shape: PassShape, value: float = 1.0) -> bool:
        """Run a pass; returns True where the encoder itself ran it."""
        before = self.encoder.ran
        features, plan = torch.full((shape.frames, 3), value), torch.arange(5)

        frames = self.passes(shape, features, plan)

        assert torch.equal(frames, features * 2 + 10)
        return self.encoder.ran > before


def inputs(shape: PassShape) -> "tuple[Tensor, Tensor]":
    return torch.zeros(shape.frames, 3), torch.zeros(5, dtype=torch.int64)


def test_a_pass_is_recorded_in_idle_time_once_its_shape_has_occurred() -> None:
    device = Device(Recorder())

    assert not device.passes.record_pending()
    assert device.run(SMALL)
    assert device.passes.record_pending()
    assert not device.passes.record_pending()

    assert device.passes.recorded == {SMALL}
    assert not device.run(SMALL, 3.0)
    assert not device.run(SMALL, 4.0)
    assert device.run(LARGE)


def test_the_shape_that_occurred_most_is_recorded_first() -> None:
    device = Device(Recorder())
    for shape in (LARGE, SMALL, SMALL):
        device.run(shape)

    device.passes.record_pending()

    assert device.passes.recorded == {SMALL}


def test_without_idle_time_a_pass_is_recorded_after_many_of_its_shape() -> None:
    device = Device(Recorder())

    for _ in range(BUSY_PASSES - 1):
        assert device.run(SMALL)
    assert not device.passes.recorded
    device.run(SMALL)

    assert device.passes.recorded == {SMALL}


def test_frames_of_a_recording_outlive_its_next_repeat() -> None:
    device = Device(Recorder())
    device.run(SMALL)
    device.passes.record_pending()
    plan = torch.arange(5)

    first = device.passes(SMALL, torch.ones(4, 3), plan)
    device.passes(SMALL, torch.zeros(4, 3), plan)

    assert torch.equal(first, torch.full((4, 3), 12.0))


def test_all_recordings_are_dropped_together_and_none_so_large_is_made_again() -> None:
    device = Device(Recorder(), Recorder())
    for shape in (SMALL, LARGE):
        device.run(shape)
        device.passes.record_pending()

    device.passes.forget()

    assert device.events == [("engine.graphs_forgotten", {"graphs": 2})]
    assert not device.passes.recorded
    assert device.run(LARGE)
    assert device.run(SMALL)
    assert device.passes.record_pending()
    assert not device.passes.record_pending()
    assert device.passes.recorded == {SMALL}
    assert device.opened == 2  # what was dropped shared its stream with nothing that is left


def test_forgetting_without_recordings_reports_nothing() -> None:
    device = Device(Recorder())

    device.passes.forget()

    assert device.events == []


def test_a_recording_that_leaves_no_room_is_dropped_with_all_others() -> None:
    device = Device(Recorder(), Recorder())
    device.run(SMALL)
    device.passes.record_pending()
    device.run(LARGE)
    device.has_room = False

    device.passes.record_pending()

    assert [event for event, _ in device.events] == ["engine.graph_refused", "engine.graphs_forgotten"]
    assert not device.passes.recorded
    device.has_room = True
    device.run(SMALL)
    device.run(LARGE)
    assert device.passes.record_pending()
    assert not device.passes.record_pending()
    assert device.passes.recorded == {SMALL}


def out_of_memory(_: "Work") -> "Work":
    raise torch.OutOfMemoryError("2 GiB")


def not_permitted(_: "Work") -> "Work":
    raise RuntimeError("operation not permitted when stream is capturing")


def test_memory_that_runs_out_while_recording_drops_all() -> None:
    device = Device(out_of_memory)
    device.run(SMALL)

    device.passes.record_pending()

    assert device.events[0] == ("engine.graph_refused", {"frames": 4, "reason": "2 GiB"})
    assert not device.passes.recorded
    assert device.run(SMALL)
    assert not device.passes.record_pending()


def test_a_recording_that_fails_leaves_the_others_and_is_not_tried_again() -> None:
    recorder = Recorder()

    def capture(work: "Work") -> "Work":
        return recorder(work) if recorder.recorded == 0 else not_permitted(work)

    device = Device(capture)
    for shape in (SMALL, LARGE):
        device.run(shape)
        device.passes.record_pending()

    assert [fields["reason"] for _, fields in device.events] == ["operation not permitted when stream is capturing"]
    assert device.passes.recorded == {SMALL}
    assert device.run(LARGE)
    assert not device.passes.record_pending()
    assert device.opened == 1
