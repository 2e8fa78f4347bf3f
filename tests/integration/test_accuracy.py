"""A few minutes of the hours that `make bench` measures: cutting and merging cost no accuracy."""

import asyncio
from collections.abc import Sequence
from itertools import starmap

import pytest

from schemas.speech import WindowSpan, WindowTranscript, Word
from tests.support.audio.accuracy import SAMPLE_TEXT, HeardWord, median_start_error, start_errors, word_error_rate
from tests.support.audio.speech_bank import Reference, build_long_file, decode
from worker.adapters.parakeet.engine import ParakeetEngine
from worker.app.sample import SPEECH
from worker.core.transcript.merging import merge
from worker.core.transcript.planning import Chunk, ChunkCutter
from worker.core.transcript.quality import failed_gates
from worker.ports import Pcm

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="session")]

SEED, SECONDS, CHUNK_SECONDS = 4, 300, 120


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reference, Pcm]:
    path = tmp_path_factory.mktemp("speech") / "long.wav"
    return build_long_file(SEED, SECONDS, path), decode(path)


async def heard(engine: ParakeetEngine, samples: Pcm, spans: Sequence[WindowSpan]) -> tuple[Word, ...]:
    windows = [samples[span.start_sample : span.end_sample] for span in spans]
    found = await asyncio.gather(*(engine.recognise(window, "long") for window in windows))
    return merge(starmap(WindowTranscript, zip(spans, (one.words for one in found), strict=True)))


def chunks_of(samples: Pcm) -> tuple[Chunk, ...]:
    cutter = ChunkCutter(CHUNK_SECONDS)
    return (*cutter.push(samples), *cutter.finish())


def planned(samples: Pcm) -> list[WindowSpan]:
    return [span for chunk in chunks_of(samples) for span in chunk.windows]


async def test_windows_cost_little_over_single_utterances(
    parakeet: ParakeetEngine, long_file: tuple[Reference, Pcm]
) -> None:
    reference, samples = long_file
    alone = [WindowSpan(one.start_sample, one.end_sample) for one in reference.utterances]

    by_utterance = await heard(parakeet, samples, alone)
    by_window = await heard(parakeet, samples, planned(samples))

    rates = [
        word_error_rate([reference.text], [" ".join(word.text for word in words)]).spoken
        for words in (by_utterance, by_window)
    ]
    assert rates[0] < 15
    assert rates[1] < rates[0] + 3  # a few hundred words; the bench has thousands, and asks for 1


async def test_word_starts_match_the_audio_and_do_not_drift(
    parakeet: ParakeetEngine, long_file: tuple[Reference, Pcm]
) -> None:
    reference, samples = long_file

    words = await heard(parakeet, samples, planned(samples))

    errors = start_errors(reference, [HeardWord(word.text, word.start_seconds) for word in words])
    first = median_start_error(errors, 0, reference.seconds / 2)
    last = median_start_error(errors, reference.seconds / 2, reference.seconds)
    assert abs(first) < 0.08
    assert abs(last - first) < 0.05


async def test_the_built_in_sample_is_recognised_by_its_words(parakeet: ParakeetEngine) -> None:
    samples = decode(SPEECH)

    words = await heard(parakeet, samples, planned(samples))

    assert word_error_rate([SAMPLE_TEXT], [" ".join(word.text for word in words)]).spoken < 15


async def test_no_gate_rejects_the_models_words_of_clean_speech(
    parakeet: ParakeetEngine, long_file: tuple[Reference, Pcm]
) -> None:
    _, samples = long_file
    windows = [(chunk, span) for chunk in chunks_of(samples) for span in chunk.windows]

    found = await asyncio.gather(*(parakeet.recognise(chunk.samples_of(span), "long") for chunk, span in windows))

    failed = [
        failed_gates(chunk, WindowTranscript(span, one.words))
        for (chunk, span), one in zip(windows, found, strict=True)
    ]
    assert len(failed) > 10
    assert not any(failed)
