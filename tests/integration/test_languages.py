"""A model of 25 languages keeps their jobs: none of them goes to Deepgram."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engines.network import tiny_transcriber
from tests.support.engines.safetensors_models import tiny_model_as_v3
from tests.support.services.deepgram import hear
from tests.support.workers.cloud import Cloud
from worker.adapters.parakeet.engine import ParakeetEngine, Patience
from worker.adapters.parakeet.protocol import EngineOptions
from worker.app.sample import SPEECH
from worker.embedded.deepgram import EmbeddedDeepgram
from worker.embedded.own_thread import in_thread
from worker.ports import Pcm

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def v3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with v3's vocabulary, in transformers' format."""
    folder = tmp_path_factory.mktemp("v3-shaped")
    tiny_model_as_v3(folder)
    return folder


@pytest.fixture
def deepgram() -> Iterator[EmbeddedDeepgram]:
    with in_thread(EmbeddedDeepgram(hear)) as server:
        yield server


async def test_a_german_job_of_a_v3_shaped_model_is_not_sent_to_deepgram(
    cloud: Cloud, v3: Path, deepgram: EmbeddedDeepgram
) -> None:
    paid = {"DEEPGRAM_API_KEY": deepgram.api_key, "DEEPGRAM_BASE_URL": deepgram.url}
    async with (
        ParakeetEngine(
            EngineOptions(model_name=str(v3), device="cpu", batch_size=4, memory_limit_gib=4),
            patience=Patience(silence_seconds=60),
        ) as engine,
        cloud.working(engine, **paid) as pipeline,
    ):
        uri = await pipeline.upload(SPEECH)
        await pipeline.submit(uri, "german", language="de-DE")
        await pipeline.submit(uri, "any", language="auto")
        await pipeline.submit(uri, "japanese", language="ja")
        german, either, japanese = [(await pipeline.ending(job)).completed for job in ("german", "any", "japanese")]

    assert len(engine.facts.languages) == 25
    for done in (german, either):
        assert done.transcription_metadata.method_used == "parakeet"
        assert done.transcription_metadata.routing_reason == "cost_optimization"
        assert done.transcription_metadata.words_count > 40
    assert japanese.transcription_metadata.routing_reason == "language_not_in_model"
    assert len(deepgram.receipts) == 1


def test_the_tiny_model_gives_the_same_tokens_from_either_format(v3: Path, speech_windows: tuple[Pcm, ...]) -> None:
    import torch  # noqa: PLC0415

    from worker.adapters.parakeet.loading.model_files import open_model_files  # noqa: PLC0415
    from worker.adapters.parakeet.network.transcriber import Transcriber  # noqa: PLC0415

    theirs = Transcriber(open_model_files(v3), torch.device("cpu"), torch.float32).tokens(speech_windows[:2])

    ours = tiny_transcriber().tokens(speech_windows[:2])
    assert [[(one.piece, one.frame, one.frames) for one in tokens] for tokens in theirs] == [
        [(one.piece, one.frame, one.frames) for one in tokens] for tokens in ours
    ]
