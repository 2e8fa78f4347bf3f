"""The engine of a model: the network where it knows the model, NeMo otherwise, or as PARAKEET_ENGINE says."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
import yaml

from schemas.speech import Word
from tests.support.engines.network import tiny_transcriber
from tests.support.engines.parakeet import TINY_OPTIONS, quiet
from worker.adapters.parakeet.protocol import Batch, EngineKind
from worker.embedded.samples import tiny_model
from worker.errors import ModelLoadingError
from worker.ports import Pcm

torch = pytest.importorskip("torch")

from worker.adapters.parakeet.child_process.model import ServedModel, open_engine  # noqa: E402  needs torch

pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # NeMo's are not ours to mend
]


@pytest.fixture
def with_local_attention(tmp_path: Path) -> Path:
    """The tiny model, which looks 64 frames far in either direction: the network does not know that."""
    path = tmp_path / "local.nemo"
    with tarfile.open(tiny_model()) as tar, tarfile.open(path, "w") as changed:
        for member in tar:
            content = tar.extractfile(member).read() if member.isfile() else b""  # type: ignore[union-attr]
            if PurePosixPath(member.name).name == "model_config.yaml":
                config = yaml.safe_load(content)
                config["encoder"] |= {"self_attention_model": "rel_pos_local_attn", "att_context_size": [64, 64]}
                content = yaml.safe_dump(config).encode()
                member.size = len(content)
            changed.addfile(member, io.BytesIO(content))
    return path


def opened(model: Path, engine: EngineKind) -> ServedModel:
    with quiet():
        return open_engine(replace(TINY_OPTIONS, model_name=str(model), engine=engine))


def words_of(model: ServedModel, windows: tuple[Pcm, ...]) -> tuple[tuple[Word, ...], ...]:
    batches = iter([Batch(windows=windows, is_last=True)])
    (done,) = model.answers(lambda _: next(batches, None))
    assert done.words is not None
    return done.words


def texts(words: tuple[tuple[Word, ...], ...]) -> list[list[tuple[str, float, float]]]:
    return [[(word.text, word.start_seconds, word.end_seconds) for word in window] for window in words]


def test_nemo_gives_the_words_and_times_of_the_network_where_it_is_asked_for(speech_windows: tuple[Pcm, ...]) -> None:
    nemo, native = opened(tiny_model(), "nemo"), opened(tiny_model(), "native")

    assert texts(words_of(nemo, speech_windows[:3])) == texts(tiny_transcriber()(speech_windows[:3]))
    assert nemo.ready().facts.model_fingerprint != native.ready().facts.model_fingerprint
    assert nemo.ready().facts.languages == native.ready().facts.languages == {"en"}


def test_a_model_that_the_network_does_not_know_is_served_by_nemo(
    with_local_attention: Path, speech_windows: tuple[Pcm, ...]
) -> None:
    words = words_of(opened(with_local_attention, "auto"), speech_windows[:1])

    expected = {word.text for word in tiny_transcriber()(speech_windows[:1])[0]}
    assert len({word.text for word in words[0]} & expected) > 0.5 * len(expected)


def test_a_model_that_the_network_does_not_know_is_refused_where_the_network_is_asked_for(
    with_local_attention: Path,
) -> None:
    with pytest.raises(ModelLoadingError, match=r"encoder\.self_attention_model is 'rel_pos_local_attn'"):
        opened(with_local_attention, "native")


def test_without_nemo_a_model_that_the_network_does_not_know_is_refused_with_the_reason(
    with_local_attention: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.adapters.parakeet.child_process import model  # noqa: PLC0415  torch

    monkeypatch.setattr(model, "find_spec", lambda _: None)

    with pytest.raises(ModelLoadingError, match=r"rel_pos_local_attn.*NeMo.* is not installed"):
        opened(with_local_attention, "auto")
