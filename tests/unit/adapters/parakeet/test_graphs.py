from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

torch = pytest.importorskip("torch")

from tests.support.engines.graph_recorder import Recorder  # noqa: E402  needs torch
from worker.adapters.parakeet.capture import Capture, Work  # noqa: E402
from worker.adapters.parakeet.graphs import RecordedEncoder  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

SHORT, LONG = 80, 640
ROWS = 4
BOTH = {SHORT: ROWS, LONG: ROWS}
BANDS = 3


def encode(features: "Tensor", frames: "Tensor") -> "tuple[Tensor, Tensor]":
    """Like the real one: what is beyond a row's valid frames does not count, and two frames become one."""
    valid = torch.arange(features.shape[-1]) < frames[:, None]
    return (features * valid[:, None])[..., ::2] * 2 + 1, frames // 2


def inputs(samples: int, rows: int) -> "tuple[Tensor, Tensor]":
    frames = samples // 10
    features = torch.rand(rows, BANDS, frames, generator=torch.Generator().manual_seed(samples))
    return features, frames - torch.arange(rows)


def record(encoder: RecordedEncoder, capture: Capture, *, rows_of: Mapping[int, int] = BOTH, room: bool = True) -> None:
    encoder.record(rows_of, inputs, capture, lambda: room)


@contextmanager
def refusals() -> Iterator[list[dict[str, Any]]]:
    refused: list[dict[str, Any]] = []
    with capture_logs() as events:
        yield refused
    assert {event["event"] for event in events} <= {"engine.graph_refused"}
    refused += [{key: event[key] for key in ("samples", "rows", "reason", "log_level")} for event in events]


def test_what_is_recorded_is_repeated_and_gives_what_the_encoder_gives() -> None:
    encoder, recorder = RecordedEncoder(encode), Recorder()
    record(encoder, recorder)
    before = recorder.repeated
    features, frames = inputs(SHORT, ROWS)

    encoded, lengths = encoder(SHORT, features + 1, frames - 1)

    assert recorder.repeated == before + 1
    expected = encode(features + 1, frames - 1)
    assert torch.equal(encoded, expected[0])
    assert torch.equal(lengths, expected[1])


def test_the_longest_windows_are_recorded_first() -> None:
    recorded: list[int] = []

    def capture(work: Work) -> Work:
        recorded.append(work()[0].shape[-1])
        return work

    record(RecordedEncoder(encode), capture)

    assert recorded == [LONG // 20, SHORT // 20]


@pytest.mark.parametrize(("samples", "rows"), [(SHORT, ROWS // 2), (LONG // 2, ROWS)])
def test_rows_and_lengths_without_a_recording_go_to_the_encoder_itself(samples: int, rows: int) -> None:
    encoder, recorder = RecordedEncoder(encode), Recorder()
    record(encoder, recorder)
    before = recorder.repeated

    encoded, _ = encoder(samples, *inputs(samples, rows))

    assert recorder.repeated == before
    assert torch.equal(encoded, encode(*inputs(samples, rows))[0])


def test_before_anything_is_recorded_the_encoder_itself_answers() -> None:
    encoded, _ = RecordedEncoder(encode)(SHORT, *inputs(SHORT, ROWS))

    assert torch.equal(encoded, encode(*inputs(SHORT, ROWS))[0])


def takes_inputs_for_constants(work: Work) -> Work:
    outputs = work()
    return lambda: outputs


def with_outputs(changed: "Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]") -> Capture:
    """Records as it should, and then gives other outputs."""

    def capture(work: Work) -> Work:
        repeat = Recorder()(work)
        return lambda: changed(*repeat())

    return capture


def wrong_in_the_last_bit(encoded: "Tensor", lengths: "Tensor") -> "tuple[Tensor, Tensor]":
    wrong = encoded.clone()
    wrong[-1, -1, 0] = torch.nextafter(wrong[-1, -1, 0], torch.tensor(10.0))
    return wrong, lengths


def wrong_in_a_length(encoded: "Tensor", lengths: "Tensor") -> "tuple[Tensor, Tensor]":
    return encoded, lengths + 1


def no_numbers(encoded: "Tensor", lengths: "Tensor") -> "tuple[Tensor, Tensor]":
    return torch.full_like(encoded, torch.nan), lengths


@pytest.mark.parametrize(
    "capture",
    [
        takes_inputs_for_constants,
        with_outputs(wrong_in_the_last_bit),
        with_outputs(wrong_in_a_length),
        with_outputs(no_numbers),
    ],
)
def test_a_recording_that_is_not_to_the_last_bit_the_encoder_is_refused(capture: Capture) -> None:
    encoder = RecordedEncoder(encode)

    with refusals() as refused:
        record(encoder, capture, rows_of={SHORT: ROWS})

    reason = "it is not to the last bit what the encoder gives"
    assert refused == [{"samples": SHORT, "rows": ROWS, "reason": reason, "log_level": "warning"}]
    assert torch.equal(encoder(SHORT, *inputs(SHORT, ROWS))[0], encode(*inputs(SHORT, ROWS))[0])


class SpoiltByLater(Recorder):
    """The memory of an earlier recording is written over by a later one."""

    def __call__(self, work: Work) -> Work:
        repeat = super().__call__(work)
        number = self.recorded

        def spoilt() -> "tuple[Tensor, ...]":
            encoded, lengths = repeat()
            return encoded + (self.recorded > number), lengths

        return spoilt


def test_a_recording_that_a_later_one_spoils_is_refused() -> None:
    encoder = RecordedEncoder(encode)

    with refusals() as refused:
        record(encoder, SpoiltByLater())

    assert [one["samples"] for one in refused] == [LONG]
    assert encoder.recorded == {(SHORT, ROWS)}


@pytest.mark.parametrize(
    "error", [RuntimeError("operation not permitted when stream is capturing"), torch.OutOfMemoryError("2 GiB")]
)
def test_a_length_that_cannot_be_recorded_leaves_the_others_their_recordings(error: RuntimeError) -> None:
    class FailsAtLong(Recorder):
        def __call__(self, work: Work) -> Work:
            if work()[0].shape[-1] == LONG // 20:
                raise error
            return super().__call__(work)

    encoder = RecordedEncoder(encode)

    with refusals() as refused:
        record(encoder, FailsAtLong())

    assert [(one["samples"], one["reason"]) for one in refused] == [(LONG, str(error))]
    assert encoder.recorded == {(SHORT, ROWS)}
    assert torch.equal(encoder(LONG, *inputs(LONG, ROWS))[0], encode(*inputs(LONG, ROWS))[0])


def test_a_recording_that_leaves_too_little_memory_is_given_up() -> None:
    encoder = RecordedEncoder(encode)

    with refusals() as refused:
        record(encoder, Recorder(), room=False)

    assert [one["reason"] for one in refused] == ["it leaves too little memory"] * 2
    assert not encoder.recorded


def test_room_is_looked_for_while_the_recording_holds_its_memory() -> None:
    encoder, seen = RecordedEncoder(encode), []

    encoder.record({SHORT: ROWS}, inputs, Recorder(), lambda: bool(seen.append(encoder.recorded)) or True)

    assert seen == [{(SHORT, ROWS)}]


def test_what_is_forgotten_is_told_once_and_goes_to_the_encoder_itself() -> None:
    encoder, recorder = RecordedEncoder(encode), Recorder()
    record(encoder, recorder)
    before = recorder.repeated

    with capture_logs() as events:
        encoder.forget()
        encoder.forget()

    assert events == [{"event": "engine.graphs_forgotten", "graphs": 2, "log_level": "warning"}]
    assert not encoder.recorded
    assert torch.equal(encoder(LONG, *inputs(LONG, ROWS))[0], encode(*inputs(LONG, ROWS))[0])
    assert recorder.repeated == before
