"""Artefacts of the worker with the tiny model, read by pandas, Deepgram's SDK and a caption parser."""

import asyncio
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pandas as pd
import pytest
import pytest_asyncio
import webvtt
from deepgram.types import ListenV1Response

from tests.support.audio.accuracy import word_error_rate
from tests.support.workers.cloud import Cloud, cloud_in
from tests.support.workers.pipeline import Pipeline
from worker.adapters.parakeet.engine import ParakeetEngine
from worker.embedded.samples import samples
from worker.ports import EngineFacts, Pcm, Recognition, WindowRecogniser

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(900)]

JOBS = {sample.path.stem: sample for sample in samples()}
WINDOW_SECONDS, HOP_SECONDS = 60, 30


@dataclass
class Witness:
    """An engine that remembers how many jobs had windows in it at once."""

    engine: WindowRecogniser
    most_jobs: int = 0
    _hearing: list[str] = field(default_factory=list)

    @property
    def facts(self) -> EngineFacts:
        return self.engine.facts

    def unspeakable(self, keyterms: Sequence[str]) -> tuple[str, ...]:
        return self.engine.unspeakable(keyterms)

    async def recognise(
        self, samples: Pcm, job_id: str, *, keyterms: tuple[str, ...] = (), team_id: str = ""
    ) -> Recognition:
        self._hearing.append(job_id)
        self.most_jobs = max(self.most_jobs, len(set(self._hearing)))
        try:
            return await self.engine.recognise(samples, job_id, keyterms=keyterms, team_id=team_id)
        finally:
            self._hearing.remove(job_id)


@dataclass(frozen=True, kw_only=True)
class Made:
    """The jobs of all samples, done at the same time."""

    cloud: Cloud
    most_jobs: int
    artefacts: dict[str, dict[str, bytes]]

    def file(self, job_id: str, ending: str) -> bytes:
        return self.artefacts[job_id][f"audio_vod-{job_id}{ending}"]

    def table(self, job_id: str, ending: str) -> pd.DataFrame:
        return pd.read_csv(io.BytesIO(self.file(job_id, ending)))


async def submit(pipeline: Pipeline, job_id: str) -> None:
    await pipeline.submit(f"gs://local-audio/{job_id}", job_id, outputs=["srt", "vtt"])


@pytest.fixture(scope="module")
def shared_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud_in(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def made(shared_cloud: Cloud, parakeet: ParakeetEngine) -> Made:
    witness = Witness(parakeet)
    async with shared_cloud.working(witness, chunk_duration_minutes=1) as pipeline:
        for job_id, sample in JOBS.items():
            await pipeline.upload(sample.path, job_id)
        await asyncio.gather(*(submit(pipeline, job_id) for job_id in JOBS))
        endings = {job_id: await pipeline.ending(job_id) for job_id in JOBS}
        artefacts = {job_id: await pipeline.artefacts(ending.completed) for job_id, ending in endings.items()}
    return Made(cloud=shared_cloud, most_jobs=witness.most_jobs, artefacts=artefacts)


@pytest.mark.parametrize("job_id", JOBS)
async def test_pandas_reads_the_tables_and_60_second_windows_hold_all_words(made: Made, job_id: str) -> None:
    words, paragraphs = made.table(job_id, "_words.csv"), made.table(job_id, "_paragraphs.csv")

    seen = [words_of_window(words, start) for start in window_starts(words)]

    assert list(words.columns) == ["start_time", "end_time", "word"]
    assert list(paragraphs.columns) == ["start_time", "end_time", "text"]
    assert words.notna().all(axis=None)
    assert paragraphs.notna().all(axis=None)
    assert set().union(*seen) == set(words.index)
    assert [word for text in paragraphs["text"] for word in text.split()] != []
    assert sum(len(text.split()) for text in paragraphs["text"]) == len(words)


@pytest.mark.parametrize("job_id", JOBS)
async def test_words_are_in_order_and_within_the_audio(made: Made, job_id: str) -> None:
    words, paragraphs = made.table(job_id, "_words.csv"), made.table(job_id, "_paragraphs.csv")

    rows = list(words.itertuples())

    assert all(row.start_time < row.end_time for row in rows)
    assert all(row.start_time < later.start_time and row.end_time <= later.start_time for row, later in pairwise(rows))
    assert rows[-1].end_time <= JOBS[job_id].seconds
    assert (paragraphs["end_time"] - paragraphs["start_time"]).max() <= WINDOW_SECONDS


@pytest.mark.parametrize("job_id", JOBS)
async def test_deepgrams_response_model_reads_the_transcript(made: Made, job_id: str) -> None:
    response = ListenV1Response.model_validate_json(made.file(job_id, "_transcript.json"))

    (alternative,) = response.results.channels[0].alternatives
    words = made.table(job_id, "_words.csv")
    assert [word.word for word in alternative.words] == list(words["word"])
    assert [word.start for word in alternative.words] == list(words["start_time"])
    assert len(alternative.paragraphs.paragraphs) == len(made.table(job_id, "_paragraphs.csv"))
    assert word_error_rate([JOBS[job_id].text], [alternative.transcript]).spoken < 20  # it knows the words


@pytest.mark.parametrize("job_id", JOBS)
@pytest.mark.parametrize("kind", ["srt", "vtt"])
async def test_a_caption_parser_reads_every_word_of_the_captions(made: Made, job_id: str, kind: str) -> None:
    captions = webvtt.from_buffer(io.BytesIO(made.file(job_id, f".{kind}")), format=kind)

    said = " ".join(caption.text for caption in captions).split()

    assert said == " ".join(made.table(job_id, "_paragraphs.csv")["text"]).split()
    assert all(one.start_in_seconds <= later.start_in_seconds for one, later in pairwise(captions))


async def test_a_job_done_alone_leaves_the_bytes_it_left_in_company(made: Made, parakeet: ParakeetEngine) -> None:
    alone = {}

    async with made.cloud.working(parakeet, chunk_duration_minutes=1, max_concurrent_jobs=1) as pipeline:
        for job_id in JOBS:
            await pipeline.forget(job_id)
            await submit(pipeline, job_id)
            completed = (await pipeline.ending(job_id)).completed
            alone[job_id] = await pipeline.artefacts(completed)

    assert made.most_jobs == len(JOBS)
    assert alone == made.artefacts


def window_starts(words: pd.DataFrame) -> range:
    return range(0, int(words["end_time"].max()) + 1, HOP_SECONDS)


def words_of_window(words: pd.DataFrame, start: int) -> set[int]:
    """As the pipeline takes them: those that lie whole in the window."""
    inside = (words["start_time"] >= start) & (words["end_time"] <= start + WINDOW_SECONDS)
    return set(words.index[inside])
