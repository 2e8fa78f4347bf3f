import asyncio
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.support.clock import FakeClock
from tests.support.engines.nvml import Driver
from tests.support.jobs.harness import JobsRoom, OnlySlot, speech
from tests.support.telemetry import render, value
from tests.support.wait import eventually
from tests.support.workers.conditions import IDENTITY, condition, consumer_snapshot
from worker.adapters.gpu import GpuReading, Gpus
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.app.monitor import Watch
from worker.core.jobs.board import Board
from worker.errors import AudioNotFound, ObjectNotFound


async def test_the_gpu_is_read_and_measured() -> None:
    render()
    watch = Watch(Board(), Gpus(Driver()), FakeClock())

    looking = asyncio.create_task(watch.run())
    await eventually(lambda: asyncio.sleep(0, bool(watch.condition.gpus)))
    looking.cancel()

    assert value(render(), "klipstream_gpu_power_watts", gpu="0") == 68.5
    assert value(render(), "klipstream_gpu_throttled", gpu="0", reason="thermal") == 1
    assert value(render(), "klipstream_gpu_throttled", gpu="0", reason="hardware") == 0


class HungDriver(Gpus):
    """Its readings do not return before `answers` is set."""

    def __init__(self) -> None:
        super().__init__(None)
        self.answers = threading.Event()

    def read(self) -> tuple[GpuReading, ...]:
        self.answers.wait()
        return ()


async def test_a_driver_that_hangs_delays_no_look() -> None:
    gpus, clock = HungDriver(), FakeClock()
    watch = Watch(Board(), gpus, clock)
    looking = asyncio.create_task(watch.run())

    await clock.advance(60)
    age_seconds = watch.age_seconds
    looking.cancel()
    gpus.answers.set()

    assert age_seconds < 1
    assert watch.condition.uptime_seconds > 59


async def test_a_snapshot_that_is_not_refreshed_grows_old() -> None:
    clock = FakeClock()
    watch = Watch(Board(), Gpus(None), clock)
    watch.look()

    await clock.advance(7)

    assert watch.age_seconds == 7
    assert value(render(), "klipstream_ready") == 0


async def test_the_board_shows_a_job_while_it_runs_and_what_became_of_it(tmp_path: Path) -> None:
    board, seen = Board(), []

    async def look(_samples: object, _job_id: str) -> None:
        seen.extend(board.running(room.clock.monotonic() + 5))

    room = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=look), board=board)
    await room.upload(speech(30))

    await room.attempt().handle(OnlySlot())

    assert seen[0].method == "parakeet"
    assert seen[0].seconds >= 5
    assert seen[-1].audio_seconds is not None
    assert board.running(room.clock.monotonic()) == ()
    assert (board.ended[-1].code, board.totals.completed, board.totals.failed) == (None, 1, 0)
    assert board.totals.audio_seconds == pytest.approx(30)
    assert board.totals.cost_usd > 0


async def test_a_failed_job_is_on_the_board_with_its_code(tmp_path: Path) -> None:
    board = Board()
    room = JobsRoom(tmp_path, board=board)
    attempt = room.attempt()
    with pytest.raises(ObjectNotFound):
        await attempt.handle(OnlySlot())

    await attempt.give_up(AudioNotFound("gs://audio/vod.wav", None), 1)

    assert (board.ended[-1].code, board.totals.failed) == ("AUDIO_NOT_FOUND", 1)


async def test_a_change_of_status_is_logged_once_and_whole() -> None:
    watch = Watch(Board(), Gpus(None), FakeClock())
    watch.identity = IDENTITY
    with capture_logs() as log:
        watch.look()
        watch.look()

    (change,) = [event for event in log if event["event"] == "health.changed"]
    assert (change["status"], change["status_before"]) == ("loading", None)
    assert change["health"]["worker"] == "w-1"


async def test_a_reason_that_counts_down_is_logged_once() -> None:
    watch = Watch(Board(), Gpus(None), FakeClock())
    with capture_logs() as log:
        for seconds in (30, 29, 28):
            snapshot = consumer_snapshot(intake_stopped_because=f"the next one may go in {seconds} s")
            watch._report_change(condition(consumer=snapshot))

    assert [event["status"] for event in log] == ["unhealthy"]
