import pytest

from worker.core.delivery.disposition import Disposition, decide
from worker.errors import AudioNotFound, Deferred, ParkingFull, QueueNotFound, StorageServiceError

TRANSIENT = StorageServiceError("read", "gs://b/o", "503")


@pytest.mark.parametrize(
    ("error", "attempts", "expected"),
    [
        (None, 0, Disposition.ACK),
        (AudioNotFound("gs://b/o"), 1, Disposition.DEAD_LETTER),
        (TRANSIENT, 1, Disposition.RETRY),
        (TRANSIENT, 4, Disposition.RETRY),
        (TRANSIENT, 5, Disposition.DEAD_LETTER),
        (TRANSIENT, 6, Disposition.DEAD_LETTER),
        (ValueError("a bug"), 4, Disposition.RETRY),
        (ValueError("a bug"), 5, Disposition.DEAD_LETTER),
        (Deferred("not now"), 99, Disposition.RETRY),
        (ParkingFull(4), 99, Disposition.RETRY),
        (QueueNotFound("completions"), 99, Disposition.RETRY),
    ],
)
def test_the_class_of_the_error_is_the_policy(error: Exception | None, attempts: int, expected: Disposition) -> None:
    assert decide(error, attempts, max_attempts=5) is expected
