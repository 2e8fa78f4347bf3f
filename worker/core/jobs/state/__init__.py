"""A job's state in the state bucket: its claim, its finished chunks, its result.

`claims/{job_id}.json`, `checkpoints/{job_id}/{key}/{chunk:05d}.json`, `results/{job_id}.json`. A claim exists from a
job's first delivery until its result marker is written; held or released, it contains the counters.
"""

from worker.core.jobs.state.checkpoints import Checkpoints, checkpoint_key
from worker.core.jobs.state.claims import Claim
from worker.core.jobs.state.states import JobStates

__all__ = ["Checkpoints", "Claim", "JobStates", "checkpoint_key"]
