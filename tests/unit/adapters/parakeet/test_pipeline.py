from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from schemas.speech import Word  # noqa: E402  needs torch
from worker.adapters.parakeet.child_process.pipeline import Pipeline  # noqa: E402
from worker.adapters.parakeet.frames import Flow, flow_of  # noqa: E402
from worker.adapters.parakeet.protocol import Batch, Done  # noqa: E402

BATCH_SIZE = 4
DECODED_WINDOWS = 8


@dataclass
class Model:
    """Recognises a window as its length; keeps a record of what it did."""

    windows_ahead: int = 2 * DECODED_WINDOWS
    windows_of_a_chunk: int = 2 * DECODED_WINDOWS
    decoded_windows: int = DECODED_WINDOWS
    did: list[str] = field(default_factory=list)
    encoder_is_full: bool = False
    decoder_is_full: bool = False
    pending: int = 0
    keyterms: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def flow(self) -> Flow:
        return replace(
            flow_of(BATCH_SIZE, aside=True),
            decoded_windows=self.decoded_windows,
            windows_ahead=self.windows_ahead,
            windows_of_a_chunk=self.windows_of_a_chunk,
        )

    def encode(self, windows: Sequence[Any], keyterms: Sequence[tuple[str, ...]] = ()) -> list[int]:
        if self.encoder_is_full:
            raise torch.OutOfMemoryError
        self.did.append(f"encode {len(windows)}")
        self.keyterms += keyterms
        return [len(window) for window in windows]

    def decode(self, batches: Sequence[list[int]]) -> list[tuple[tuple[Word, ...], ...]]:
        self.did.append(f"decode {sum(map(len, batches))}")
        if self.decoder_is_full:
            raise torch.OutOfMemoryError
        return [tuple((Word(str(length), 0.0, 0.1, 1.0),) for length in batch) for batch in batches]

    def idle(self) -> bool:
        if not self.pending:
            return False
        self.pending -= 1
        self.did.append("record")
        return True


def batch(*lengths: int) -> Batch:
    """A full batch; one of fewer windows ends a chunk."""
    return Batch(windows=tuple(np.zeros(length, np.int16) for length in lengths), is_last=len(lengths) < BATCH_SIZE)


def answers(model: Model, batches: Sequence[Batch], *, overlap: bool = True) -> Iterator[Done]:
    waiting = deque(batches)
    return Pipeline(model, overlap=overlap).answers(lambda _: waiting.popleft() if waiting else None)


def texts(recognised: Done) -> list[str]:
    assert recognised.words is not None
    return [word.text for words in recognised.words for word in words]


def test_the_encoder_is_kept_ahead_of_the_decoder_which_takes_several_batches_at_once() -> None:
    model = Model()

    list(answers(model, [batch(*[1] * 4)] * 6))

    assert model.did == ["encode 4"] * 4 + ["decode 8"] + ["encode 4"] * 2 + ["decode 8"] * 2


def test_the_end_of_a_chunk_is_answered_before_the_next_ones_windows_are_encoded() -> None:
    model = Model(windows_of_a_chunk=5)
    chunks = [batch(1, 1, 1, 1), batch(1, 1), batch(1, 1, 1, 1), batch(1, 1, 1)]

    list(answers(model, chunks))

    assert model.did == ["encode 4", "encode 2", "decode 6", "encode 4", "encode 3", "decode 7"]


def test_an_end_of_a_chunk_that_would_leave_most_rows_empty_waits_for_more() -> None:
    model = Model(windows_of_a_chunk=5)

    list(answers(model, [batch(1, 1), batch(1, 1, 1, 1), batch(1)]))

    assert model.did == ["encode 2", "encode 4", "encode 1", "decode 7"]


def test_the_batches_that_are_there_are_answered_before_the_loop_waits() -> None:
    model, waited = Model(), []
    batches: deque[Batch | None] = deque([batch(1), batch(2), None, None, batch(3), None, None, None])

    def take(wait: bool) -> Batch | None:
        waited.append(wait)
        return batches.popleft()

    recognised = list(Pipeline(model).answers(take))

    assert [texts(one) for one in recognised] == [["1"], ["2"], ["3"]]
    assert model.did == ["encode 1", "encode 1", "decode 2", "encode 1", "decode 1"]
    assert waited == [False, False, False, False, True, False, False, True]


@pytest.mark.parametrize("overlap", [True, False])
def test_work_for_idle_times_is_done_while_no_batch_is_there(overlap: bool) -> None:
    model = Model(pending=3)
    batches: deque[Batch | None] = deque([None, None, batch(1), None, None, None, None, batch(1)])

    def take(wait: bool) -> Batch | None:
        model.did += ["wait"] * wait
        while wait and batches and batches[0] is None:
            batches.popleft()
        return batches.popleft() if batches else None

    list(Pipeline(model, overlap=overlap).answers(take))

    recognised = ["encode 1", "decode 1"]
    assert model.did == ["record", "record", *recognised, "record", "wait", *recognised, "wait"]


@given(
    sizes=st.lists(st.integers(1, DECODED_WINDOWS), max_size=40),
    ahead=st.sampled_from([5, 8, 16]),
    of_a_chunk=st.sampled_from([1, 5, 16]),
)
def test_every_batch_is_answered_once_in_order_and_never_too_many_at_a_time(
    sizes: list[int], ahead: int, of_a_chunk: int
) -> None:
    model = Model(windows_ahead=ahead, windows_of_a_chunk=of_a_chunk)
    batches = [batch(*[number + 1] * size) for number, size in enumerate(sizes)]

    heard = list(answers(model, batches))

    assert [texts(one) for one in heard] == [[str(number + 1)] * size for number, size in enumerate(sizes)]
    assert all(int(did.split()[1]) <= DECODED_WINDOWS for did in model.did)


@given(sizes=st.lists(st.integers(1, DECODED_WINDOWS), max_size=40), ahead=st.sampled_from([5, 8, 16]))
def test_the_plain_loop_gives_the_same_answers_one_batch_at_a_time(sizes: list[int], ahead: int) -> None:
    model, plain = Model(windows_ahead=ahead), Model(windows_ahead=ahead)
    batches = [batch(*[number + 1] * size) for number, size in enumerate(sizes)]

    overlapped = [one.words for one in answers(model, batches)]
    one_by_one = [one.words for one in answers(plain, batches, overlap=False)]

    assert overlapped == one_by_one
    assert plain.did == [f"{step} {size}" for size in sizes for step in ("encode", "decode")]


@pytest.mark.parametrize("overlap", [True, False])
def test_keyterms_go_with_their_windows(overlap: bool) -> None:
    model = Model()
    terms = (("Arlo", "Finch"), (), ("Zoe",))

    list(answers(model, [batch(1), replace(batch(1, 2, 3), keyterms=terms)], overlap=overlap))

    assert model.keyterms == list(terms)


def test_the_plain_loop_refuses_what_does_not_fit() -> None:
    assert [one.words for one in answers(Model(decoder_is_full=True), [batch(1)], overlap=False)] == [None]
    assert [one.words for one in answers(Model(encoder_is_full=True), [batch(1)], overlap=False)] == [None]


def test_a_batch_that_does_not_fit_into_the_encoder_is_refused_in_its_turn() -> None:
    model = Model()
    batches = iter([batch(1), batch(2), batch(3)])

    def take(_: bool) -> Batch | None:
        taken = next(batches, None)
        model.encoder_is_full = taken is not None and len(taken.windows[0]) == 2
        return taken

    first, second, third = Pipeline(model).answers(take)

    assert second.words is None
    assert [texts(first), texts(third)] == [["1"], ["3"]]


def test_batches_that_do_not_fit_into_the_decoder_are_refused() -> None:
    heard = list(answers(Model(decoder_is_full=True), [batch(1), batch(2, 3)]))

    assert [one.words for one in heard] == [None, None]


def test_time_is_shared_by_length_of_audio_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, now = Model(windows_ahead=3, decoded_windows=2), 100.0

    def at_work(one: Any) -> Any:
        def work(*args: Any) -> Any:
            nonlocal now
            now += 1
            return one(*args)

        return work

    monkeypatch.setattr("worker.adapters.parakeet.child_process.pipeline.time.perf_counter", lambda: now)
    monkeypatch.setattr(model, "encode", at_work(model.encode))
    monkeypatch.setattr(model, "decode", at_work(model.decode))

    seconds = [one.seconds for one in answers(model, [batch(100), batch(300), batch(500)])]

    # Three passes and one of decoding for the first two; the third was begun meanwhile.
    assert seconds == pytest.approx([1.0, 3.0, 1.0])
