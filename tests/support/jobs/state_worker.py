"""A worker process that holds one job and says what becomes of it: to be killed or stopped by tests."""

import asyncio
import sys

from tests.support.jobs.state import BUCKET, FINGERPRINT, JOB, checkpoint
from tests.support.services.gcs import store_at
from worker.adapters.machine.clock import SystemClock
from worker.core.jobs.state import JobStates
from worker.telemetry import configure_logging


async def main(url: str, ttl_seconds: float, *, save_checkpoint: bool) -> None:
    async with store_at(url) as store:
        states = JobStates(store, BUCKET, SystemClock(), "victim", ttl_seconds)
        async with states.claim(JOB, FINGERPRINT, 0) as claim:
            if save_checkpoint:
                await claim.checkpoints.save("key", checkpoint(0))
            print("held", flush=True)  # noqa: T201
            await claim.lost.wait()
            print("lost", flush=True)  # noqa: T201


if __name__ == "__main__":
    configure_logging()
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), save_checkpoint=sys.argv[3] == "checkpoint"))
