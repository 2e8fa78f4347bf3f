"""The order of things in the inference process: what is there is encoded first, what is encoded is decoded together."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

import torch

from schemas.speech import Word
from worker.adapters.parakeet.protocol import Batch
from worker.ports import Pcm

Words: TypeAlias = tuple[tuple[Word, ...], ...]

Take: TypeAlias = Callable[[bool], Batch | None]
"""The next batch; with True it is waited for. None: none is there, or none will come."""


_Encoded = TypeVar("_Encoded")


class TwoSteps(Protocol[_Encoded]):
    """A model that hears in two steps: see `worker.adapters.parakeet.inference`."""

    @property
    def batch_size(self) -> int:
        """How many windows a full batch has."""
        ...

    @property
    def decoded_windows(self) -> int:
        """How many windows are decoded at once, at most."""
        ...

    @property
    def windows_ahead(self) -> int:
        """So many should be on their way before the first of them are decoded."""
        ...

    @property
    def windows_of_a_chunk(self) -> int:
        """So many are enough where a chunk ends with them."""
        ...

    def encode(self, windows: Sequence[Pcm]) -> _Encoded:
        """Begin a batch. Raises `torch.OutOfMemoryError`."""
        ...

    def decode(self, batches: Sequence[_Encoded]) -> Sequence[Words]:
        """End some. Raises `torch.OutOfMemoryError`."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """What became of a batch."""

    words: Words | None
    """Of each of its windows; None: they do not fit into memory."""
    seconds: float
    """Its share, by length of audio, of the time that the engine was busy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Begun(Generic[_Encoded]):
    windows: int
    samples: int
    since: float
    encoded: _Encoded | None


class Ahead(Generic[_Encoded]):
    """Hears batches in the order they come, the encoder always some of them ahead of the decoder."""

    def __init__(self, model: TwoSteps[_Encoded]) -> None:
        self._model = model
        self._begun: deque[_Begun[_Encoded]] = deque()
        self._answered_at = 0.0

    def answers(self, take: Take) -> Iterator[Heard]:
        """One for each batch taken, until no more will come.

        Begins what is there, as far ahead as the model likes, before it decodes the first: the encoder has work
        meanwhile, and what is decoded are full rows. Where nothing more is there, nothing is waited for.
        """
        while (batch := take(not self._begun)) is not None or self._begun:
            if batch is not None:
                self._begun.append(self._begin(batch))
            if batch is None or self._is_enough(batch):
                yield from self._finish(list(self._next_group()))

    def _is_enough(self, newest: Batch) -> bool:
        """A batch that is not full ends what waited, as a chunk does.

        Told of it early, the worker has the next chunk ready before the engine has heard the others.
        """
        ends_a_chunk = len(newest.windows) < self._model.batch_size
        enough = self._model.windows_of_a_chunk if ends_a_chunk else self._model.windows_ahead
        return sum(one.windows for one in self._begun) >= enough

    def _begin(self, batch: Batch) -> _Begun[_Encoded]:
        since, encoded = time.perf_counter(), None
        with contextlib.suppress(torch.OutOfMemoryError):
            encoded = self._model.encode(batch.windows)
        samples = sum(map(len, batch.windows))
        return _Begun(windows=len(batch.windows), samples=samples, since=since, encoded=encoded)

    def _next_group(self) -> Iterator[_Begun[_Encoded]]:
        room = self._model.decoded_windows
        while self._begun and self._begun[0].windows <= room:
            room -= self._begun[0].windows
            yield self._begun.popleft()

    def _finish(self, group: Sequence[_Begun[_Encoded]]) -> Iterator[Heard]:
        words = self._decode([one.encoded for one in group if one.encoded is not None])
        now = time.perf_counter()
        seconds, self._answered_at = now - max(self._answered_at, group[0].since), now
        samples = sum(one.samples for one in group)
        for one in group:
            heard = None if one.encoded is None else next(words)
            yield Heard(words=heard, seconds=seconds * one.samples / samples)

    def _decode(self, encoded: Sequence[_Encoded]) -> Iterator[Words | None]:
        with contextlib.suppress(torch.OutOfMemoryError):
            return iter(self._model.decode(encoded) if encoded else ())
        return iter([None] * len(encoded))
