"""The chunk loop: audio in, finished chunks out, each stored as a checkpoint.

    samples -> chunks cut at pauses -> (checkpoint? use it : transcribe -> checkpoint) -> words on one timeline

At most `chunks_in_flight` chunks are held in memory and worked on at once; that is also what a kill can cost.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import structlog

from schemas.codes import Channels
from schemas.speech import Word
from schemas.state import Checkpoint
from worker.core.tasks import finished_within, together
from worker.core.transcript.merging import EngineRun, EngineSpan, WordTimeline, merge_channels
from worker.core.transcript.planning import Chunk, ChunkCutter
from worker.errors import AudioUndecodable, EngineFailure, Retryable, WorkerError
from worker.ports import SAMPLE_RATE_HZ, AudioDecoder, AudioFacts, Pcm, PcmStream, WindowRecogniser
from worker.telemetry.register import CHUNKS
from worker.telemetry.spans import Laps, stage, stage_in_laps

PLANNING_VERSION = 1
"""Part of every checkpoint's key: raised when the same audio would be cut into other windows than before."""

MOST_CHANNELS_APART = 8
"""As in 7.1: each channel takes a decode and an engine's time of its own."""

CANCELLED_SAVE_SECONDS = 1.0
"""For the checkpoint of an answer that is paid for, when the job is cancelled. A stopping worker has 8 s in all."""

log = structlog.get_logger(__name__)


class ChunkCancelled(Retryable):
    """The task of a chunk was cancelled although the job goes on: without this error its words would be missing."""

    def __init__(self, done: int, total: int | None) -> None:
        self.done, self.total = done, total
        super().__init__(f"{done} of {total} chunks were transcribed: a chunk's task was cancelled")


class ChunkStore(Protocol):
    """Store of finished chunks, under one key for the audio, model and settings they depend on."""

    async def load(self, key: str, index: int) -> Checkpoint | None:
        """Return the finished chunk, or None."""
        ...

    async def save(self, key: str, checkpoint: Checkpoint, *, is_last: bool = False) -> None:
        """Keep a finished chunk; durable on return. `is_last`: no other chunk of the job is unfinished."""
        ...


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a job. `chunks_total` is None until the whole file has been decoded."""

    chunks_done: int
    chunks_total: int | None
    audio_seconds_done: float
    engines: Mapping[int, str] = field(default_factory=dict)
    """Chunk index -> engine, of the finished chunks."""
    in_work: frozenset[int] = frozenset()
    """The indices of the chunks that have been started and are not finished."""


@dataclass(frozen=True, kw_only=True)
class Transcribed:
    """A transcribed file."""

    words: tuple[Word, ...]
    chunks: tuple[Checkpoint, ...]
    """The checkpoint of each chunk, without its words."""
    duration_seconds: float
    """Duration of the decoded audio: exact sample count over the rate."""
    truncated: bool
    other_tracks: bool = False
    """The decoder's: the track is silent, and another one is not."""
    channels: tuple[tuple[Word, ...], ...] = ()
    """The words of each channel where channels were transcribed apart; `words` are then these, merged by time."""
    engines: tuple[tuple[EngineRun, ...], ...] = ()
    """The engines of the words of each channel, or of the mix."""

    @property
    def channel_seconds(self) -> float:
        """Audio that engines received: the duration, times the channels that were transcribed apart."""
        return self.duration_seconds * max(1, len(self.channels))


class Transcription:
    """Transcription of one job's audio file; `transcribe` returns the words of a chunk, by any engine.

    Chunks are stored under `key`, which includes Parakeet's model; paid chunks under `paid_key`, which does not, so
    that another model, or a worker without one, does not pay again.

    With `channels` above 1 each channel is decoded, cut and transcribed by itself, one after the other, and the chunks
    are numbered through: those of a channel follow those of the one before. Memory is that of a mix.

    If the job is cancelled, its chunks end at once, except for paid requests in flight: such a request may get its
    answer (`transcribe` then returns although it was cancelled, and `interrupted` is True), and its checkpoint.
    """

    def __init__(
        self,
        *,
        decoder: AudioDecoder,
        transcribe: Callable[[Chunk], Awaitable[Checkpoint]],
        store: ChunkStore,
        key: str,
        paid_key: str,
        chunk_seconds: float,
        chunks_in_flight: int,
        on_progress: Callable[[Progress], object],
        interrupted: Callable[[], bool] = lambda: False,
        channels: int = 1,
    ) -> None:
        self._interrupted = interrupted
        self._decoder, self._transcribe, self._store = decoder, transcribe, store
        self._key, self._paid_key = key, paid_key
        self._chunk_seconds, self._on_progress = chunk_seconds, on_progress
        self._room = asyncio.Semaphore(chunks_in_flight)
        self._done: list[Checkpoint] = []
        self._in_work: set[int] = set()
        self._timelines, self._merging = [WordTimeline() for _ in range(channels)], asyncio.Lock()
        self._unmerged: dict[int, Checkpoint] = {}
        self._admitted_count = 0
        self._merged = 0
        self._resumed = 0
        self._chunks_total: int | None = None
        self._failure: WorkerError | None = None

    @property
    def done(self) -> tuple[Checkpoint, ...]:
        """Chunks finished so far, from checkpoints or transcribed, in the order in which they were finished.

        Without their words, which are in the timeline: for hours of audio they should not be in memory twice.
        """
        return tuple(self._done)

    @property
    def resumed(self) -> int:
        """Number of chunks that were taken from checkpoints."""
        return self._resumed

    @property
    def progress(self) -> Progress:
        """The state of all chunks, as `on_progress` receives it."""
        return Progress(
            chunks_done=len(self._done),
            chunks_total=self._chunks_total,
            audio_seconds_done=sum(chunk.audio_seconds for chunk in self._done),
            engines={chunk.index: chunk.engine for chunk in self._done},
            in_work=frozenset(self._in_work),
        )

    async def run(self, path: Path) -> Transcribed:
        """Transcribe the whole file. Raises the first error of decoder, engine or store; finished chunks stay stored.

        If a chunk fails, the other chunks in flight are finished first, since requests to Deepgram are already paid.
        """
        decoded: list[_Decoded] = []
        async with together() as group:
            for channel in range(len(self._timelines)):
                decoded.append(await self._decode(path, channel, group))
                if self._failure is not None:
                    break
            self._chunks_total = self._admitted_count
        if self._failure is not None:
            raise self._failure
        if len(self._done) != self._chunks_total:  # a task group takes a cancelled task for one that has ended
            raise ChunkCancelled(len(self._done), self._chunks_total)
        with stage("merge"):
            channels = [await asyncio.to_thread(timeline.words) for timeline in self._timelines]
            words = channels[0] if len(channels) == 1 else await asyncio.to_thread(merge_channels, channels)
        return Transcribed(
            words=words,
            chunks=tuple(sorted(self._done, key=lambda chunk: chunk.index)),
            duration_seconds=max(one.samples for one in decoded) / SAMPLE_RATE_HZ,
            truncated=any(one.truncated for one in decoded),
            other_tracks=all(one.other_tracks for one in decoded),
            channels=tuple(channels) if len(channels) > 1 else (),
            engines=tuple(timeline.engines() for timeline in self._timelines),
        )

    async def _decode(self, path: Path, channel: int, group: asyncio.TaskGroup) -> "_Decoded":
        """Decode one channel, or the mix, and start the work on its chunks."""
        cutter = ChunkCutter(chunk_seconds=self._chunk_seconds)
        only = channel if len(self._timelines) > 1 else None
        async with self._decoder.decode(path, channel=only) as stream:
            async for chunk in self._admitted(cutter, stream):
                group.create_task(self._work(chunk, channel))
            return _Decoded(cutter.total_samples, stream.truncated, stream.other_tracks)

    async def _admitted(self, cutter: ChunkCutter, stream: PcmStream) -> AsyncIterator[Chunk]:
        """Chunks as the audio arrives; none is decoded before there is room for it, so that memory stays flat."""
        await self._room.acquire()
        async with aclosing(chunks_of(cutter, stream)) as chunks:
            async for chunk in chunks:
                if self._failure is not None:
                    return
                numbered = replace(chunk, index=self._admitted_count)
                self._admitted_count += 1
                yield numbered
                await self._room.acquire()
        self._room.release()

    async def _work(self, chunk: Chunk, channel: int) -> None:
        self._in_work.add(chunk.index)
        self._report()
        try:
            with stage("chunk", index=chunk.index):
                saved = await self._kept(chunk.index)
                if saved is None:
                    saved = await self._transcribe_chunk(chunk, channel)
                else:
                    self._resumed += 1
                    CHUNKS.add(engine=saved.engine, outcome="resumed")
                    log.info("chunk.resumed", chunk=chunk.index, engine=saved.engine)
            self._finish(saved)
        except WorkerError as exc:
            self._failure = self._failure or exc
        finally:
            self._in_work.discard(chunk.index)
            self._room.release()
        await self._merge_what_is_next()

    async def _merge_what_is_next(self) -> None:
        async with self._merging:  # in the order of the file, while the engine works on later chunks
            while (finished := self._unmerged.pop(self._merged, None)) is not None:
                by_deepgram = [EngineSpan(start, end, "deepgram") for start, end in finished.gaps.deepgram_spans]
                timeline = self._timelines[finished.channel]
                await asyncio.to_thread(timeline.add, finished.windows, finished.engine, by_deepgram)
                self._merged += 1

    async def _kept(self, index: int) -> Checkpoint | None:
        return await self._store.load(self._key, index) or await self._store.load(self._paid_key, index)

    async def _transcribe_chunk(self, chunk: Chunk, channel: int) -> Checkpoint:
        log.debug("chunk.started", chunk=chunk.index)
        try:
            checkpoint = (await self._transcribe(chunk)).model_copy(update={"channel": channel})
        except WorkerError:
            CHUNKS.add(engine="none", outcome="failed")
            raise
        with stage("checkpoint"):
            await self._keep(checkpoint)
        CHUNKS.add(engine=checkpoint.engine, outcome="heard")
        log.info("chunk.done", chunk=chunk.index, windows=len(chunk.windows), engine=checkpoint.engine)
        return checkpoint

    async def _keep(self, checkpoint: Checkpoint) -> None:
        key = self._paid_key if checkpoint.engine == "deepgram" else self._key
        is_last = len(self._done) + 1 == self._chunks_total
        save = self._store.save(key, checkpoint, is_last=is_last)
        if checkpoint.engine != "deepgram" and not checkpoint.gaps.deepgram_requests:
            await save
            return
        if not self._interrupted():
            await finished_within(save, CANCELLED_SAVE_SECONDS)
            return
        try:
            async with asyncio.timeout(CANCELLED_SAVE_SECONDS):
                await save
            log.info("chunk.kept_when_cancelled", chunk=checkpoint.index)
        except TimeoutError:
            log.warning("chunk.not_kept_when_cancelled", chunk=checkpoint.index)
        raise asyncio.CancelledError

    def _finish(self, checkpoint: Checkpoint) -> None:
        self._done.append(checkpoint.without_windows())
        self._unmerged[checkpoint.index] = checkpoint
        self._in_work.discard(checkpoint.index)
        self._report()

    def _report(self) -> None:
        self._on_progress(self.progress)


@dataclass(frozen=True, slots=True)
class _Decoded:
    samples: int
    truncated: bool
    other_tracks: bool


async def chunks_of(cutter: ChunkCutter, stream: PcmStream) -> AsyncGenerator[Chunk]:
    """Cut a running decode into chunks; the arithmetic runs in a thread, since it takes a tenth of a second a chunk."""
    with stage_in_laps("decode") as decode, stage_in_laps("plan") as plan:
        blocks = aiter(stream)
        while (block := await _next_of(blocks, decode)) is not None:
            with plan.lap():
                small = len(block) < cutter.room
                chunks = cutter.push(block) if small else await asyncio.to_thread(cutter.push, block)
            for chunk in chunks:
                yield chunk
        with plan.lap():
            chunks = await asyncio.to_thread(cutter.finish)
        for chunk in chunks:
            yield chunk


async def _next_of(blocks: AsyncIterator[Pcm], decode: Laps) -> Pcm | None:
    with decode.lap():
        return await anext(blocks, None)


def channels_apart(wanted: Channels, facts: AudioFacts) -> int:
    """Return how many channels are transcribed apart; 1 for the mix. Raises `AudioUndecodable` for too many."""
    if wanted is Channels.MIX:
        return 1
    if facts.channels > MOST_CHANNELS_APART:
        raise AudioUndecodable(
            f"channels: must be 'mix' for audio of more than {MOST_CHANNELS_APART} channels; it is 'apart', "
            f"and the audio has {facts.channels}"
        )
    return max(1, facts.channels)


async def recognise_sample(decoder: AudioDecoder, recogniser: WindowRecogniser, path: Path) -> None:
    """Decode and cut a known sample, and recognise its first window.

    Raises what decoder and recogniser raise, and `EngineFailure` where there are no words.
    """
    async with decoder.decode(path) as stream, aclosing(chunks_of(ChunkCutter(chunk_seconds=60), stream)) as chunks:
        async for chunk in chunks:
            for span in chunk.windows[:1]:
                if (await recogniser.recognise(chunk.samples_of(span), "self-test")).words:
                    return
            break
    raise EngineFailure(recogniser.facts.model_name, f"no words in {path.name}")
