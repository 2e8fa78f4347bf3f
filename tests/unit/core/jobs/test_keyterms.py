"""Keyterms of a job, from its message to its events, checkpoints and bill."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from schemas.events import CompletedEvent, CostEvent
from schemas.speech import Word
from schemas.state import Checkpoint
from tests.support.jobs.harness import PRICES, JobsRoom, OnlySlot, speech
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.adapters.memory.recogniser import MemoryRecogniser, words_in
from worker.core.costs.budget import NoLimit, PaidRecogniser
from worker.errors import EngineFailure
from worker.ports import Pcm, Recognition

SPEECH = speech(30)
WORDS = [word.text for word in words_in(SPEECH)]


class RecordingRecogniser(MemoryRecogniser):
    """Remembers the keyterms of each window."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.keyterms: list[tuple[str, ...]] = []

    async def recognise(
        self, samples: Pcm, job_id: str, *, keyterms: tuple[str, ...] = (), team_id: str = ""
    ) -> Recognition:
        self.keyterms.append(keyterms)
        return await super().recognise(samples, job_id, keyterms=keyterms, team_id=team_id)


async def fail(_samples: Pcm, _job_id: str) -> None:
    raise EngineFailure("parakeet", "it broke")


async def completed(room: JobsRoom, **fields: Any) -> CompletedEvent:
    await room.upload(SPEECH)
    await room.attempt(**fields).handle(OnlySlot())
    event = room.events[0]
    assert isinstance(event, CompletedEvent)
    return event


async def test_windows_get_the_keyterms_that_have_a_sound(tmp_path: Path) -> None:
    engine = RecordingRecogniser()

    await completed(JobsRoom(tmp_path, recogniser=engine), keyterms=["Zed", ".*", "Harbor Nine"])

    assert set(engine.keyterms) == {("Harbor Nine", "Zed")}


class LoopingRecogniser(RecordingRecogniser):
    """Writes a keyterm three times into the first long pause of every window that has keyterms."""

    async def recognise(
        self, samples: Pcm, job_id: str, *, keyterms: tuple[str, ...] = (), team_id: str = ""
    ) -> Recognition:
        heard = await super().recognise(samples, job_id, keyterms=keyterms, team_id=team_id)
        pauses = (one.end_seconds for one, two in pairwise(heard.words) if two.start_seconds - one.end_seconds > 0.9)
        if not keyterms or (start := next(pauses, None)) is None:
            return heard
        loop = (Word(keyterms[0], start + 0.2 * count, start + 0.2 * count + 0.1, 0.9) for count in range(1, 4))
        return replace(heard, words=tuple(sorted((*heard.words, *loop), key=lambda word: word.start_seconds)))


async def test_windows_with_a_keyterm_in_a_loop_are_recognised_again_without_keyterms(tmp_path: Path) -> None:
    engine = LoopingRecogniser()

    event = await completed(JobsRoom(tmp_path, recogniser=engine), keyterms=["Zed"])

    assert set(engine.keyterms) == {("Zed",), ()}
    assert event.transcription_metadata.keyterms_found == ()


async def test_the_event_says_which_keyterms_were_found_and_which_had_no_effect(tmp_path: Path) -> None:
    spoken = WORDS[3].upper().strip(".")

    event = await completed(JobsRoom(tmp_path), keyterms=["never said", spoken, "Zoë", ".*"])

    told = event.transcription_metadata
    assert told.keyterms_found == (spoken,)
    assert told.keyterms_unspeakable == (".*", "Zoë")


async def test_a_job_without_keyterms_reports_none(tmp_path: Path) -> None:
    engine = RecordingRecogniser()

    told = (await completed(JobsRoom(tmp_path, recogniser=engine))).transcription_metadata

    assert (told.keyterms_found, told.keyterms_unspeakable, set(engine.keyterms)) == ((), (), {()})


@pytest.mark.parametrize(("surcharge", "usd_per_minute"), [(0.0013, 0.0058), (0.0, 0.0045)])
async def test_deepgram_gets_the_keyterms_and_its_bill_has_their_price(
    tmp_path: Path, surcharge: float, usd_per_minute: float
) -> None:
    cloud = MemoryCloudRecogniser()
    paid = PaidRecogniser(recogniser=cloud, usd_per_minute=0.0045, keyterm_usd_per_minute=surcharge, budget=NoLimit())
    prices = replace(PRICES, deepgram_keyterm_usd_per_minute=surcharge)
    room = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=fail), deepgram=paid, prices=prices)

    event = await completed(room, keyterms=["Zoë", ".*"])

    cost = room.events[1]
    assert isinstance(cost, CostEvent)
    assert set(cloud.keyterms_sent) == {("Zoë",)}
    assert cost.usd_total == pytest.approx(0.5 * usd_per_minute, abs=1e-6)
    assert cost.baseline.usd == pytest.approx(0.5 * 0.0045, abs=1e-6)
    assert event.transcription_metadata.keyterms_unspeakable == (".*",)


async def test_a_job_whose_keyterms_are_no_sound_pays_nothing_for_them(tmp_path: Path) -> None:
    paid = PaidRecogniser(recogniser=MemoryCloudRecogniser(), usd_per_minute=0.0045, budget=NoLimit())
    prices = replace(PRICES, deepgram_keyterm_usd_per_minute=0.0013)
    room = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=fail), deepgram=paid, prices=prices)

    await completed(room, keyterms=[".*"])

    cost = room.events[1]
    assert isinstance(cost, CostEvent)
    assert cost.usd_total == pytest.approx(0.5 * 0.0045, abs=1e-6)


async def test_another_request_with_keyterms_is_no_repetition_of_one_without(tmp_path: Path) -> None:
    keys = {}
    for name, fields in {
        "none": {},
        "empty": {"keyterms": []},
        "no sound": {"keyterms": [".*"]},
        "zed": {"keyterms": ["Zed"]},
        "both": {"keyterms": ["Zed", "Harbor"]},
        "in another order": {"keyterms": ["Harbor", "Zed"]},
    }.items():
        keys[name] = await checkpoint_keys(tmp_path, **fields)

    assert keys["none"] == keys["empty"] == keys["no sound"]
    assert keys["both"] == keys["in another order"]
    assert len(set(keys.values())) == 3


async def test_the_weight_of_keyterms_is_part_of_a_checkpoints_key_where_a_job_has_some(tmp_path: Path) -> None:
    facts = replace(MemoryRecogniser().facts, keyterm_fingerprint="weight 2")
    engine = MemoryRecogniser(facts=facts)

    plain = await checkpoint_keys(tmp_path)
    keys = await checkpoint_keys(tmp_path, engine, keyterms=["Zed"])

    assert await checkpoint_keys(tmp_path, engine) == plain
    assert await checkpoint_keys(tmp_path, keyterms=["Zed"]) != keys


async def checkpoint_keys(folder: Path, engine: MemoryRecogniser | None = None, **fields: Any) -> frozenset[str]:
    """Return the names of the checkpoints that a job writes."""
    room = JobsRoom(folder, recogniser=engine)
    written = set()
    write = room.store.write

    async def record(ref: Any, data: bytes, **options: Any) -> Any:
        if ref.name.startswith("checkpoints/"):
            assert Checkpoint.model_validate_json(data)
            written.add(ref.name)
        return await write(ref, data, **options)

    room.store.write = record  # type: ignore[method-assign]
    await completed(room, **fields)
    return frozenset(written)
