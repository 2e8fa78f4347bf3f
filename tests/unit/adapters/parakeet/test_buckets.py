import pytest

from worker.adapters.parakeet.buckets import BUCKETS_SAMPLES, bucket_of


@pytest.mark.parametrize(
    ("samples", "bucket_seconds"),
    [(0, 5), (1, 5), (80_000, 5), (80_001, 10), (400_000, 25), (400_001, 30), (480_000, 30), (640_000, 40)],
)
def test_a_window_goes_into_the_smallest_bucket_that_holds_it(samples: int, bucket_seconds: int) -> None:
    assert bucket_of(samples) == bucket_seconds * 16_000


def test_every_bucket_holds_itself() -> None:
    assert [bucket_of(samples) for samples in BUCKETS_SAMPLES] == list(BUCKETS_SAMPLES)


def test_a_window_above_forty_seconds_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="longer than 40 s"):
        bucket_of(640_001)
