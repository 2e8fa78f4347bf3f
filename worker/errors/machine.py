"""Faults of this worker or of a service, and deferrals: the job is in order."""

from schemas.codes import ErrorCode
from worker.errors.policy import Deferred, ServiceDown, WorkerFault


class MachineFault(WorkerFault):
    """The operating system refuses a resource that every job needs: disk, memory, file descriptors, processes."""

    suggested_action = "look at the instance: its disk, memory and limits"

    def __init__(self, part: str, reason: str) -> None:
        self.part, self.reason = part, reason
        super().__init__(f"{part}: {reason}")


class TempDirFull(MachineFault):
    """`TEMP_DIR` has no room for the audio of a job."""

    suggested_action = "free or enlarge TEMP_DIR; DOWNLOAD_ROOM_GB bounds what the worker itself puts there"

    def __init__(self, folder: str, needed_bytes: int, free_bytes: int) -> None:
        self.needed_bytes, self.free_bytes = needed_bytes, free_bytes
        super().__init__("TEMP_DIR", f"{folder} has no room for audio of {needed_bytes} bytes ({free_bytes} are free)")


class ResourceRefused(WorkerFault):
    """A bucket or topic that every job of this worker needs is missing, or its use is not granted."""

    suggested_action = "create it (deploy/provision.sh), grant the worker's account its role, or correct the setting"

    def __init__(self, part: str, reason: str) -> None:
        self.part, self.reason = part, reason
        super().__init__(f"{part}: {reason}")


class ResourceDown(ServiceDown):
    """Cloud Storage or Pub/Sub fails on this resource, and a probe of the resource failed too."""

    code = ErrorCode.STORAGE_SERVICE_ERROR
    suggested_action = "wait; the worker goes on by itself. Google Cloud's status page lists outages"

    def __init__(self, part: str, reason: str) -> None:
        self.part, self.reason = part, reason
        super().__init__(f"{part}: {reason}")


class ParkingFull(Deferred):
    """Another worker has this job, and every parking place of this worker is taken."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"all {limit} parking places are taken")


class ClaimHeld(Deferred):
    """Another worker holds the claim on this job, or concluded the job just now."""

    def __init__(self, job_id: str, owner: str) -> None:
        self.job_id, self.owner = job_id, owner
        super().__init__(f"job {job_id!r} is held by {owner}")


class ClaimLost(Deferred):
    """This worker lost its claim during the job: another worker has the job, or heartbeats failed."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"the claim on job {job_id!r} was lost")


class NoRoomForAudio(Deferred):
    """The audio of jobs in progress leaves no disk space for this job; another worker may have it."""

    def __init__(self, size_bytes: int, free_bytes: float) -> None:
        self.size_bytes, self.free_bytes = size_bytes, free_bytes
        super().__init__(f"the audio has {size_bytes} bytes, and room is left for {free_bytes:.0f}")
