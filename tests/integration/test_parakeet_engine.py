"""The engine on the tiny model: a real process, killed too; what a start refuses; what the fingerprint depends on."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import yaml

from schemas.speech import Word
from tests.support.engines.nemo_files import nemo_file, zip_with
from tests.support.engines.network import tiny_transcriber
from tests.support.engines.parakeet import BATCH_SIZE, TINY_OPTIONS, in_noise
from tests.support.wait import eventually
from worker.adapters.parakeet.engine import EngineState, ParakeetEngine
from worker.embedded.samples import tiny_model as tiny_model_file
from worker.errors import GpuNotAvailable, ModelLoadingError
from worker.ports import Pcm

torch = pytest.importorskip("torch")

from worker.adapters.parakeet.child_process.model import open_engine  # noqa: E402  needs torch
from worker.adapters.parakeet.child_process.pipeline import Pipeline  # noqa: E402
from worker.adapters.parakeet.loading.facts import calibration_path  # noqa: E402
from worker.adapters.parakeet.loading.model_path import model_path  # noqa: E402
from worker.adapters.parakeet.network.cuda import open_device  # noqa: E402
from worker.adapters.parakeet.network.transcriber import Transcriber  # noqa: E402
from worker.adapters.parakeet.protocol import Batch  # noqa: E402

if TYPE_CHECKING:
    from worker.adapters.parakeet.protocol import EngineOptions

MORE_THAN_ARE_DECODED_AT_ONCE = 6
"""Times the eight windows of speech: 32 are decoded at once."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    return tiny_transcriber(batch_windows=BATCH_SIZE)


@pytest.fixture(scope="module")
def alone(transcriber: Transcriber, speech_windows: tuple[Pcm, ...]) -> list[tuple[Word, ...]]:
    return [transcriber([window])[0] for window in speech_windows]


@pytest.mark.asyncio(loop_scope="session")
async def test_the_process_gives_the_words_that_each_window_has_by_itself(
    parakeet: ParakeetEngine, speech_windows: tuple[Pcm, ...], alone: list[tuple[Word, ...]]
) -> None:
    answers = await asyncio.gather(
        *(parakeet.recognise(window, f"job-{number}") for number, window in enumerate(speech_windows))
    )

    assert [answer.words for answer in answers] == alone


@pytest.mark.asyncio(loop_scope="session")
async def test_the_process_prefers_each_windows_keyterms(
    parakeet: ParakeetEngine, transcriber: Transcriber, speech_windows: tuple[Pcm, ...]
) -> None:
    windows = in_noise(speech_windows)
    keyterms = [(), ("Helen", "Peter"), ("Maria",), ("David", "Monday"), (), ("Anna",), ("John",), ("Oscar Winter",)]

    answers = await asyncio.gather(
        *(parakeet.recognise(window, "job", keyterms=terms) for window, terms in zip(windows, keyterms, strict=True))
    )

    words = [answer.words for answer in answers]
    assert tuple(words) == transcriber.decode([transcriber.encode(windows, keyterms)])[0]
    assert tuple(words) != transcriber(windows)
    assert parakeet.facts.keyterm_fingerprint.endswith("weight 3.5")


@pytest.mark.asyncio(loop_scope="session")
async def test_the_process_killed_in_the_middle_of_a_batch_costs_no_word(
    parakeet: ParakeetEngine, speech_windows: tuple[Pcm, ...], alone: list[tuple[Word, ...]]
) -> None:
    killed, restarts = parakeet.pid, parakeet.health.restarts
    assert killed is not None
    many = speech_windows * MORE_THAN_ARE_DECODED_AT_ONCE
    calls = [asyncio.create_task(parakeet.recognise(window, "job")) for window in many]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)  # some batches are answered, the next are running

    os.kill(killed, signal.SIGKILL)

    assert [(await call).words for call in calls] == alone * MORE_THAN_ARE_DECODED_AT_ONCE
    assert parakeet.health.restarts == restarts + 1
    assert parakeet.health.state is EngineState.READY
    await eventually(lambda: asyncio.sleep(0, not psutil.pid_exists(killed)))


def test_the_plain_loop_gives_the_words_of_the_overlapped_one(
    transcriber: Transcriber, speech_windows: tuple[Pcm, ...], alone: list[tuple[Word, ...]]
) -> None:
    def words(*, overlap: bool) -> list[tuple[Word, ...]]:
        batches = iter(
            [Batch(windows=speech_windows[:3], is_last=False), Batch(windows=speech_windows[3:], is_last=True)]
        )
        answers = Pipeline(transcriber, overlap=overlap).answers(lambda _: next(batches, None))
        return [one for answer in answers for one in answer.words or ()]

    assert words(overlap=False) == words(overlap=True) == alone


def test_on_a_cpu_a_pass_has_the_frames_of_its_windows(transcriber: Transcriber) -> None:
    plan = transcriber.flow.plan

    assert plan.sizes == ()
    assert plan.most_windows == BATCH_SIZE


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/nowhere/model.nemo", "there is no file /nowhere/model.nemo"),
        ("parakeet", "neither a .nemo file, nor a folder, nor a hub name"),
        ("/models/parakeet", "neither a .nemo file, nor a folder, nor a hub name"),
    ],
)
def test_a_name_that_is_no_model_is_refused_with_what_would_be_right(name: str, reason: str) -> None:
    with pytest.raises(ModelLoadingError, match=reason):
        model_path(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_refused_rather_than_run_on_the_cpu() -> None:
    with pytest.raises(GpuNotAvailable, match="PARAKEET_DEVICE=cpu"):
        open_device("cuda", 20)


def fingerprint_of(options: "EngineOptions") -> str:
    return open_engine(options).ready().facts.model_fingerprint


def test_other_weights_change_the_fingerprint_and_another_name_or_batch_size_does_not(tmp_path: Path) -> None:
    copy = tmp_path / "copy.nemo"
    copy.write_bytes(tiny_model_file().read_bytes())
    calibration_path(copy).write_bytes(calibration_path(tiny_model_file()).read_bytes())
    changed = nemo_file(tmp_path / "changed.nemo", {"model_config.yaml": lambda config: config + b"# other\n"})

    first, same, narrower, other = (
        fingerprint_of(options)
        for options in (
            TINY_OPTIONS,
            replace(TINY_OPTIONS, model_name=str(copy)),
            replace(TINY_OPTIONS, batch_size=BATCH_SIZE - 1),
            replace(TINY_OPTIONS, model_name=str(changed)),
        )
    )

    assert first == same == narrower
    assert first != other


def test_a_calibration_changes_the_fingerprint_and_confidences_alone(
    tmp_path: Path, speech_windows: tuple[Pcm, ...], alone: list[tuple[Word, ...]]
) -> None:
    bare = tmp_path / "bare.nemo"
    bare.write_bytes(tiny_model_file().read_bytes())
    options = replace(TINY_OPTIONS, model_name=str(bare))

    facts = open_engine(options).ready().facts
    network = tiny_transcriber()
    network.calibrate(None)
    (plain,) = network(speech_windows[:1])

    assert not facts.is_calibrated
    assert facts.model_fingerprint != fingerprint_of(TINY_OPTIONS)
    assert [replace(word, confidence=0.0) for word in plain] == [replace(word, confidence=0.0) for word in alone[0]]
    assert [word.confidence for word in plain] != [word.confidence for word in alone[0]]


@pytest.mark.filterwarnings("ignore")  # NeMo's
@pytest.mark.model
def test_a_model_that_the_network_does_not_know_is_served_by_nemo(
    tmp_path: Path, speech_windows: tuple[Pcm, ...], alone: list[tuple[Word, ...]]
) -> None:
    pytest.importorskip("nemo")

    def with_local_attention(config: bytes) -> bytes:
        raw = yaml.safe_load(config)
        raw["encoder"] |= {"self_attention_model": "rel_pos_local_attn", "att_context_size": [256, 256]}
        return yaml.safe_dump(raw).encode()

    unusual = nemo_file(tmp_path / "local.nemo", {"model_config.yaml": with_local_attention})
    engine = open_engine(replace(TINY_OPTIONS, model_name=str(unusual)))
    batches = iter([Batch(windows=speech_windows[:1], is_last=True)])

    (answer,) = engine.answers(lambda _: next(batches, None))

    assert answer.words is not None
    heard = [word.text for word in answer.words[0]]
    expected = [word.text for word in alone[0]]
    assert len(set(heard) & set(expected)) > 0.8 * len(set(expected))


def test_a_model_that_the_network_does_not_know_is_refused_where_nemo_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unusual = nemo_file(
        tmp_path / "local.nemo",
        {
            "model_config.yaml": lambda config: config.replace(
                b"self_attention_model: rel_pos", b"self_attention_model: abs_pos"
            )
        },
    )
    monkeypatch.setattr("worker.adapters.parakeet.child_process.model.find_spec", lambda _: None)

    with pytest.raises(ModelLoadingError, match=r"encoder.self_attention_model is 'abs_pos'.*NeMo.*is not installed"):
        open_engine(replace(TINY_OPTIONS, model_name=str(unusual)))


def test_weights_of_another_configuration_are_refused(tmp_path: Path) -> None:
    foreign = nemo_file(
        tmp_path / "foreign.nemo", {"model_weights.ckpt": lambda one: zip_with(one, {"data.pkl": b"\x80\x02}."})}
    )

    with pytest.raises(ModelLoadingError, match="the weights lack preprocessor"):
        open_engine(replace(TINY_OPTIONS, model_name=str(foreign)))
