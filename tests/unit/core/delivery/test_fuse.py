from hypothesis import given
from hypothesis import strategies as st

from tests.support.queues.consumer_harness import Room, room
from worker.core.delivery.fuse import Fuse, FuseState
from worker.errors import AudioNotFound, CallFailed, InvalidJob

PERMANENT = AudioNotFound("gs://b/o")
TRANSIENT = CallFailed("503")


async def fail_in_turn(r: Room, *names: str) -> None:
    for name in names:
        await r.deliver(name)
        await r.fail(name, PERMANENT)


async def test_failures_in_a_row_of_any_kind_pause_the_intake_for_a_self_test() -> None:
    async with room(slots=1, fuse_threshold=2) as r:
        await r.deliver("m1")
        await r.fail("m1", PERMANENT)
        await r.deliver("m2")
        pulls = len(r.subscription.pulls)

        await r.fail("m2", TRANSIENT)

        status = r.consumer.snapshot.fuse
        assert (status.state, r.self_test.runs, len(r.subscription.pulls)) == (FuseState.TESTING, 1, pulls)
        assert "503" in status.reason


async def test_a_success_between_failures_starts_the_count_afresh() -> None:
    async with room(slots=1, fuse_threshold=2) as r:
        await fail_in_turn(r, "m1")
        await r.deliver("m2")
        await r.finish("m2")

        await fail_in_turn(r, "m3")

        assert r.self_test.runs == 0


async def test_after_a_passed_self_test_it_takes_twice_as_many_failures() -> None:
    async with room(slots=1, fuse_threshold=2) as r:
        await fail_in_turn(r, "m1", "m2")

        r.self_test.end()
        await fail_in_turn(r, "m3", "m4", "m5")
        assert (r.consumer.snapshot.fuse.state, r.self_test.runs) == (FuseState.CLOSED, 1)
        await fail_in_turn(r, "m6")

        assert r.consumer.snapshot.fuse.state is FuseState.TESTING


async def test_a_success_takes_the_number_of_failures_back_to_the_first() -> None:
    async with room(slots=1, fuse_threshold=2) as r:
        await fail_in_turn(r, "m1", "m2")
        r.self_test.end()
        await r.deliver("good")
        await r.finish("good")

        await fail_in_turn(r, "m3", "m4")

        assert r.consumer.snapshot.fuse.state is FuseState.TESTING


async def test_self_tests_are_a_minute_apart() -> None:
    async with room(slots=1, fuse_threshold=1) as r:
        await fail_in_turn(r, "m1")
        r.self_test.end()
        await fail_in_turn(r, "m2", "m3")
        assert (r.consumer.snapshot.fuse.state, r.self_test.runs) == (FuseState.TESTING, 1)

        await r.clock.advance(59)
        assert r.self_test.runs == 1
        await r.clock.advance(1)

        assert r.self_test.runs == 2


async def test_a_flood_of_malformed_messages_is_not_held_up_within_a_minute_of_a_passed_test() -> None:
    async with room(slots=1, fuse_threshold=1) as r:
        await fail_in_turn(r, "m1")
        r.self_test.end()

        for number in range(50):
            await r.deliver(f"bad{number}")
            await r.fail(f"bad{number}", InvalidJob(("job_id: missing",)))

        assert (r.consumer.snapshot.fuse.state, r.self_test.runs) == (FuseState.CLOSED, 1)
        assert len(r.handler.given_up) == 51


async def test_a_failed_self_test_stops_the_intake_until_the_broken_part_works() -> None:
    async with room(slots=1, fuse_threshold=1) as r:
        await fail_in_turn(r, "m1")
        pulls = len(r.subscription.pulls)
        r.self_test.end(RuntimeError("no kernel image"))
        await r.clock.rest()
        status = r.consumer.snapshot.fuse
        assert status.state is FuseState.OPEN
        assert status.reason == "the self-test failed: sample: RuntimeError: no kernel image"

        await r.clock.advance(2)
        assert (r.self_test.runs, len(r.subscription.pulls)) == (2, pulls)
        r.self_test.end()
        await r.clock.advance(1)

        assert r.consumer.snapshot.fuse.state is FuseState.CLOSED
        assert len(r.subscription.pulls) == pulls + 1


async def test_a_self_test_that_hangs_has_failed() -> None:
    async with room(slots=1, fuse_threshold=1) as r:
        await fail_in_turn(r, "m1")

        await r.clock.advance(300)

        assert r.consumer.snapshot.fuse.state is FuseState.OPEN


async def test_deliveries_of_a_pull_in_flight_when_the_fuse_blew_are_nacked() -> None:
    async with room(slots=2, fuse_threshold=1) as r:
        await fail_in_turn(r, "m1")

        await r.deliver("m2")

        assert r.handler.started == ["m1"]
        assert r.subscription.nacks == [("ack-m2",)]


async def test_running_jobs_go_on_while_the_fuse_stops_the_intake() -> None:
    async with room(slots=2, fuse_threshold=1) as r:
        await r.deliver("m1", "m2")
        await r.fail("m1", PERMANENT)

        await r.finish("m2")

        assert r.subscription.acks == ["ack-m1", "ack-m2"]
        assert r.consumer.snapshot.fuse.state is FuseState.TESTING


@given(threshold=st.integers(1, 5), verdicts=st.lists(st.booleans()))
def test_it_blows_exactly_when_the_threshold_is_reached_in_a_row(threshold: int, verdicts: list[bool]) -> None:
    fuse = Fuse(threshold)
    failures = 0
    for is_success in verdicts:
        if failures == threshold:
            break
        failures = 0 if is_success else failures + 1

        _ = fuse.record_success() if is_success else fuse.record_failure(PERMANENT)

        assert fuse.is_closed == (failures < threshold)
