"""An urgent job is delivered by both subscriptions; one delivery does the work."""

from pathlib import Path

from tests.support.workers.twin_worker import JOBS, TwinWorker, twin_worker


def settled(worker: TwinWorker) -> bool:
    return not worker.unsettled() and not worker.broker.queue(f"{JOBS}-urgent").held


async def test_the_second_delivery_of_an_urgent_job_costs_no_engine_time(tmp_path: Path) -> None:
    async with twin_worker(tmp_path, urgent_first=True) as w:
        for number in range(4):
            w.publish(f"plain-{number}")
        w.publish("urgent", priority="urgent")

        await w.until(lambda: settled(w))

        assert w.completed() == {"urgent", *(f"plain-{number}" for number in range(4))}
        assert w.failed() == {}
        assert w.windows["urgent"] == w.windows["plain-0"]


async def test_without_the_urgent_subscription_an_urgent_job_is_done_in_its_turn(tmp_path: Path) -> None:
    async with twin_worker(tmp_path) as w:
        w.publish("urgent", priority="urgent")

        await w.until(lambda: not w.unsettled())

        assert w.completed() == {"urgent"}


async def test_any_other_priority_has_no_effect(tmp_path: Path) -> None:
    async with twin_worker(tmp_path, urgent_first=True) as w:
        w.publish("high", priority="URGENT")

        await w.until(lambda: not w.unsettled())

        assert w.completed() == {"high"}
        assert not w.broker.queue(f"{JOBS}-urgent").held
