"""The key goes into one header and nowhere else."""

import json
import logging
import random
import traceback

import pytest
import structlog

from tests.support.services.deepgram import KEY, SkippingClock, chatter, deepgram
from worker.adapters.deepgram import DeepgramRecogniser, RetryPolicy
from worker.embedded.deepgram import Reply, Reset
from worker.embedded.deepgram.misbehaviour import Fault
from worker.errors import PaidServiceError

ECHO = f"no such key: {KEY}"
ECHOES = (
    Reply(status=401, body=json.dumps({"err_code": "INVALID_AUTH", "err_msg": ECHO}).encode()),
    Reply(status=400, body=json.dumps({"message": "no", "details": ECHO}).encode()),
    Reply(status=500, body=ECHO.encode(), headers={"dg-request-id": "r"}),
    Reply(status=200, body=ECHO.encode()),
    Reply(status=200, body=json.dumps({"metadata": KEY, "results": KEY}).encode()),
    Reply(status=500, body=("x" * 290 + KEY).encode()),
)


def recogniser(api_key: str) -> DeepgramRecogniser:
    return DeepgramRecogniser(
        api_key=api_key, model="nova-3", max_concurrent=1, clock=SkippingClock(), rng=random.Random(1)
    )


@pytest.mark.parametrize("fault", [*ECHOES, Reset(after_upload=True), Reset(after_upload=False)])
async def test_the_key_is_in_no_error_and_no_log_even_if_the_service_repeats_it(
    fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    with structlog.testing.capture_logs() as events:
        async with deepgram(lambda _: fault, retries=RetryPolicy(tries=2)) as pair:
            with pytest.raises(PaidServiceError) as caught:
                await pair.recogniser.recognise(chatter(1), language="en", job_id="job")

    written = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(events) + caplog.text
    assert "httpcore" in caplog.text
    assert KEY not in written
    assert KEY[:12] not in written


async def test_the_key_is_in_no_repr() -> None:
    async with deepgram() as pair:
        shown = repr(pair.recogniser) + str(pair.recogniser)

    assert KEY not in shown


@pytest.mark.parametrize("api_key", ["", " ", "two words", "line\nbreak", "schlüssel", "tab\tbed", "nul\0"])
def test_a_key_that_no_header_can_carry_is_refused_at_the_start_and_not_shown(api_key: str) -> None:
    with pytest.raises(ValueError, match="one word of printable ASCII") as caught:
        recogniser(api_key)

    assert not api_key.strip() or api_key not in str(caught.value)


async def test_the_line_end_of_a_secret_file_is_left_out() -> None:
    async with deepgram(api_key=f"{KEY}\n") as pair:
        await pair.recogniser.recognise(chatter(1), language="en", job_id="job")

    assert pair.statuses == [200]
