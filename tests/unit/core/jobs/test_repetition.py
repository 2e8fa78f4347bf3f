"""Another delivery of a job that was completed before."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from schemas.events import CompletedEvent, CostEvent, FailedEvent
from schemas.state import ResultMarker
from tests.support.jobs.harness import JobsRoom, OnlySlot, speech
from tests.support.wait import eventually
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.core.costs.report import events_in, report
from worker.core.jobs.job_message import LARGE_BYTES
from worker.errors import ObjectForbidden, ObjectNotFound, StorageServiceError
from worker.ports import ObjectFacts, ObjectRef, Pcm

WORDS = ObjectRef("out", "vod/audio_vod_words.csv")


@pytest.fixture
async def room(tmp_path: Path) -> JobsRoom:
    """A room whose job has been completed once."""
    room = JobsRoom(tmp_path)
    await room.upload(speech(30))
    await room.attempt(outputs=["srt"]).handle(OnlySlot())
    return room


async def redelivered(room: JobsRoom, **fields: Any) -> None:
    await room.attempt(outputs=["srt"], **fields).handle(OnlySlot())


async def test_a_large_result_is_repeated_as_a_small_one_is(room: JobsRoom) -> None:
    large = {"job_id": "large", "metadata": {"note": "x" * LARGE_BYTES}}
    await redelivered(room, **large)

    await redelivered(room, **large)
    await room.store.delete(WORDS)
    await redelivered(room, **large)

    assert room.completions.messages[2:4] == room.completions.messages[4:6]
    assert room.events[-1].run == 1


@pytest.mark.parametrize("name", ["words.csv", "paragraphs.csv", "transcript.json", ".srt"])
async def test_a_result_whose_artefact_is_gone_is_made_again(room: JobsRoom, name: str) -> None:
    (gone,) = (artefact for artefact in room.artefacts if artefact.endswith(name))
    before = room.artefacts
    await room.store.delete(ObjectRef("out", gone))

    await redelivered(room)

    assert room.artefacts.keys() == before.keys()
    assert room.artefacts[gone] == before[gone] or name == "transcript.json"


async def test_the_new_results_events_have_other_ids_than_the_old_ones(room: JobsRoom) -> None:
    await room.store.delete(WORDS)

    await redelivered(room)

    old, _, new, cost = room.events
    assert isinstance(new, CompletedEvent)
    assert isinstance(cost, CostEvent)
    assert (old.run, new.run, cost.run) == (0, 1, 1)
    assert new.event_id != old.event_id
    assert new.artefacts.words.generation == (await room.store.stat(WORDS)).generation
    assert cost.usd_total > 0
    assert room.state == ["results/job-1.json"]


async def test_what_the_lost_result_cost_stays_in_the_reports(room: JobsRoom) -> None:
    await room.store.delete(WORDS)
    await room.store.delete(ObjectRef("audio", "a.pcm"))
    attempt = room.attempt(outputs=["srt"])
    with pytest.raises(ObjectNotFound) as caught:
        await attempt.handle(OnlySlot())
    await attempt.give_up(caught.value.verdict(), 1)
    await room.upload(speech(30))
    await redelivered(room, run="2")

    marker = (await room.states._files.load(room.states._files.result("job-1"), ResultMarker)).content
    assert marker is not None
    costs = [event for event in events_in(marker) if isinstance(event, CostEvent)]
    assert [(cost.run, cost.outcome) for cost in costs] == [(0, "completed"), (2, "completed")]
    assert report(events_in(marker), costs[0].occurred_at).total.total.usd == pytest.approx(2 * costs[0].usd_total)


async def test_the_new_result_is_repeated_from_then_on(room: JobsRoom) -> None:
    await room.store.delete(WORDS)
    await redelivered(room)

    await redelivered(room)

    assert room.completions.messages[2:4] == room.completions.messages[4:]


async def test_a_result_that_the_pipeline_wrote_over_is_repeated(room: JobsRoom) -> None:
    await room.store.write(WORDS, b"start_time,end_time,word\r\n", content_type="text/csv")

    await redelivered(room)

    assert room.completions.messages[:2] == room.completions.messages[2:]


@pytest.mark.parametrize(
    "error", [StorageServiceError("describe", WORDS.uri, "503"), ObjectForbidden("describe", WORDS.uri)]
)
async def test_artefacts_that_cannot_be_looked_at_are_no_reason_to_do_the_job_again(
    room: JobsRoom, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def refuse(_ref: ObjectRef, _generation: int | None = None) -> ObjectFacts:
        raise error

    monkeypatch.setattr(room.store, "stat", refuse)

    await redelivered(room)

    assert room.completions.messages[:2] == room.completions.messages[2:]


async def test_looking_for_artefacts_costs_one_request_each_side_by_side(
    room: JobsRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, stat = asyncio.Semaphore(0), room.store.stat

    async def together(ref: ObjectRef, generation: int | None = None) -> ObjectFacts:
        asked.release()
        await eventually(_all_asked)
        return await stat(ref, generation)

    async def _all_asked() -> bool:
        return asked._value == 4

    monkeypatch.setattr(room.store, "stat", together)

    await redelivered(room)

    assert asked._value == 4


async def test_a_result_that_cannot_be_made_again_ends_as_a_failure_of_the_next_run(room: JobsRoom) -> None:
    await room.store.delete(WORDS)
    await room.store.delete(ObjectRef("audio", "a.pcm"))
    attempt = room.attempt(outputs=["srt"])
    with pytest.raises(ObjectNotFound) as caught:
        await attempt.handle(OnlySlot())

    await attempt.give_up(caught.value.verdict(), 1)
    await redelivered(room)

    assert isinstance(room.events[2], FailedEvent)
    assert room.events[2].run == 1
    assert room.completions.messages[2:4] == room.completions.messages[4:]
    assert room.state == ["results/job-1.json"]


async def test_of_two_deliveries_one_makes_the_result_again_and_both_say_the_same(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def hold(_samples: Pcm, _job_id: str) -> None:
        await gate.wait()

    first = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=hold))
    second = JobsRoom(tmp_path, store=first.store, worker="worker-2")
    await first.upload(speech(30))
    gate.set()
    await first.attempt().handle(OnlySlot())
    await first.store.delete(WORDS)
    gate.clear()
    slot = OnlySlot()
    working = asyncio.create_task(first.attempt().handle(OnlySlot()))
    await eventually(lambda: _is_claimed(first))
    waiting = asyncio.create_task(second.attempt().handle(slot))
    await eventually(lambda: _has_parked(slot))

    gate.set()
    await asyncio.gather(working, waiting)

    assert first.completions.messages[2:] == second.completions.messages


async def test_a_delivery_that_finds_the_new_artefacts_while_their_events_are_due_waits_for_them(
    tmp_path: Path,
) -> None:
    first = JobsRoom(tmp_path)
    second = JobsRoom(tmp_path, store=first.store, worker="worker-2")
    await first.upload(speech(30))
    await first.attempt().handle(OnlySlot())
    await first.store.delete(WORDS)
    written, gate, write, slot = asyncio.Event(), asyncio.Event(), first.store.write, OnlySlot()

    async def hold_the_marker(ref: ObjectRef, data: bytes, **options: Any) -> ObjectFacts:
        if ref.name.startswith("results/"):
            written.set()
            await gate.wait()
        return await write(ref, data, **options)

    first.store.write = hold_the_marker  # type: ignore[method-assign]
    working = asyncio.create_task(first.attempt().handle(OnlySlot()))
    await written.wait()
    waiting = asyncio.create_task(second.attempt().handle(slot))
    await eventually(lambda: _has_parked(slot))

    gate.set()
    await asyncio.gather(working, waiting)

    assert [event.run for event in second.events] == [1, 1]
    assert first.completions.messages[2:] == second.completions.messages


async def _is_claimed(room: JobsRoom) -> bool:
    return "claims/job-1.json" in room.state


async def _has_parked(slot: OnlySlot) -> bool:
    return slot.parkings > 0
