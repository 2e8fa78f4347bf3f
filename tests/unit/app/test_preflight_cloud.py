"""Checks at the start of buckets and topics that refuse, and of those that only fail to answer."""

from worker.app.preflight.cloud import _found
from worker.core.delivery.fitness import Part
from worker.errors import ObjectForbidden, QueueServiceError


class Scripted:
    """A probe that raises one error after another, then passes."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.runs = list(errors), 0

    async def __call__(self) -> None:
        self.runs += 1
        if self.errors:
            raise self.errors.pop(0)


async def test_a_service_that_fails_once_is_asked_again() -> None:
    probe = Scripted(QueueServiceError("publish to", "topic", "503"))

    found = await _found(Part(name="topic", resource="topic", probe=probe))

    assert (found.ok, probe.runs) == (True, 2)


async def test_a_refusal_is_final_and_names_the_role_to_grant() -> None:
    probe = Scripted(ObjectForbidden("read", "gs://audio"))

    found = await _found(Part(name="audio bucket gs://audio", resource="gs://audio", probe=probe))

    assert (found.ok, probe.runs) == (False, 1)
    assert "roles/storage.objectViewer" in found.detail
