"""The loop of the inference process: take, encode, decode, answer.

The way of a batch, and the files it meets:

    ../scheduler.py     in the worker: packs waiting windows into batches
    ../protocol.py      carries their samples into this process, and the answers back
    serve.py            what surrounds the loop: signals, stderr, the report of its death
    pipeline.py         the loop: `plain_loop` explains it, `overlapped_loop` is what runs
    model.py            opens the model that the loop drives
    ../network/         encodes samples into frames, and decodes frames into words
    ../reference.py     does the same by NeMo, for models that the network does not know
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

import torch

from schemas.speech import Word
from worker.adapters.parakeet.frames import Flow
from worker.adapters.parakeet.protocol import Batch, Done
from worker.ports import Pcm

Words: TypeAlias = tuple[tuple[Word, ...], ...]

Take: TypeAlias = Callable[[bool], Batch | None]
"""Returns the next batch. Where there is none, True waits for one and False returns None; None after True: no more."""

_Encoded = TypeVar("_Encoded")


class TwoStepModel(Protocol[_Encoded]):
    """A model that recognises in two steps, each of its own size.

    Passes of the encoder are as large as suits the device. Decoding is bound by its number of steps, so it takes the
    windows of several passes at once, beside the passes that follow.
    """

    @property
    def flow(self) -> Flow:
        """Windows at each step."""
        ...

    def encode(self, windows: Sequence[Pcm], keyterms: Sequence[tuple[str, ...]] = ()) -> _Encoded:
        """Start a pass, without waiting for a GPU. Raises `torch.OutOfMemoryError`.

        `keyterms` are those of each window, to be preferred when it is decoded; empty: no window has any.
        """
        ...

    def decode(self, batches: Sequence[_Encoded]) -> Sequence[Words]:
        """Return the words of each window of each batch. Raises `torch.OutOfMemoryError`."""
        ...

    def idle(self) -> bool:
        """Do one piece of work that waits for idle time, such as recording a CUDA graph. False: there is none."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class _Started(Generic[_Encoded]):
    """A batch on its way; `encoded` is None where it did not fit into memory."""

    windows: int
    samples: int
    since: float
    encoded: _Encoded | None


class Pipeline(Generic[_Encoded]):
    """Batches through a model, each answered once and in order. Its seconds are divided by length of audio."""

    def __init__(self, model: TwoStepModel[_Encoded], *, overlap: bool = True) -> None:
        self._model, self._overlap = model, overlap
        self._answered_at = 0.0

    def answers(self, take: Take) -> Iterator[Done]:
        """Yield an answer for each batch taken, until no more come."""
        return self.overlapped_loop(take) if self._overlap else self.plain_loop(take)

    def plain_loop(self, take: Take) -> Iterator[Done]:
        """Encode and decode one batch after the other."""
        while (batch := self._take(take)) is not None:
            started = self._encode(batch)
            yield from self._decode([started])

    def overlapped_loop(self, take: Take) -> Iterator[Done]:
        """Give the same answers, with the encoder kept some batches ahead of the decoder.

        A GPU's encoder then has work meanwhile, and the decoder full rows. Where no batch is there, none is waited for.
        """
        started: deque[_Started[_Encoded]] = deque()
        while (batch := take(False) if started else self._take(take)) is not None or started:
            if batch is not None:
                started.append(self._encode(batch))
            if batch is None or self._is_far_enough_ahead(started, batch):
                yield from self._decode(self._next_group(started))

    def _take(self, take: Take) -> Batch | None:
        """Return the next batch. Where none is there, do what waits for idle time, then wait."""
        while (batch := take(False)) is None and self._model.idle():
            pass
        return take(True) if batch is None else batch

    def _encode(self, batch: Batch) -> _Started[_Encoded]:
        since, encoded = time.perf_counter(), None
        with contextlib.suppress(torch.OutOfMemoryError):
            encoded = self._model.encode(batch.windows, batch.keyterms)
        samples = sum(map(len, batch.windows))
        return _Started(windows=len(batch.windows), samples=samples, since=since, encoded=encoded)

    def _is_far_enough_ahead(self, started: Sequence[_Started[_Encoded]], newest: Batch) -> bool:
        """Return True where the oldest batches should be decoded before more are encoded.

        At the end of a chunk that is earlier: the worker then has the next chunk ready before the engine is idle.
        """
        flow = self._model.flow
        enough = flow.windows_of_a_chunk if newest.is_last else flow.windows_ahead
        return sum(one.windows for one in started) >= enough

    def _next_group(self, started: deque[_Started[_Encoded]]) -> list[_Started[_Encoded]]:
        """Remove and return the oldest batches that the decoder takes at once."""
        group, room = [], self._model.flow.decoded_windows
        while started and started[0].windows <= room:
            room -= started[0].windows
            group.append(started.popleft())
        return group

    def _decode(self, group: Sequence[_Started[_Encoded]]) -> Iterator[Done]:
        words = self._words([one.encoded for one in group if one.encoded is not None])
        now = time.perf_counter()
        seconds, self._answered_at = now - max(self._answered_at, group[0].since), now
        samples = sum(one.samples for one in group)
        for one in group:
            recognised = None if one.encoded is None else next(words)
            memory = torch.cuda.max_memory_reserved()  # 0 on a CPU
            yield Done(words=recognised, seconds=seconds * one.samples / samples, device_memory_bytes=memory)

    def _words(self, encoded: Sequence[_Encoded]) -> Iterator[Words | None]:
        with contextlib.suppress(torch.OutOfMemoryError):
            return iter(self._model.decode(encoded) if encoded else ())
        return iter([None] * len(encoded))
