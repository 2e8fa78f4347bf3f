"""The lengths windows are padded to, so that few shapes ever reach the device."""

from worker.ports import SAMPLE_RATE_HZ

# Few enough that waiting windows fill batches, fine enough that padding costs little: 2.5 s of 25 on average.
BUCKETS_SECONDS = (5, 10, 15, 20, 25, 30, 35, 40)

BUCKETS_SAMPLES = tuple(seconds * SAMPLE_RATE_HZ for seconds in BUCKETS_SECONDS)


def bucket_of(samples: int) -> int:
    """The length in samples that a window of this many is padded to.

    Raises ValueError above the largest bucket: the planner cuts at 30 s, so that is a caller's mistake.
    """
    for bucket in BUCKETS_SAMPLES:
        if samples <= bucket:
            return bucket
    raise ValueError(f"a window of {samples} samples is longer than {BUCKETS_SECONDS[-1]} s")
