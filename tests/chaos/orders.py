"""The jobs of a campaign: a pure function of its seed."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.codes import ErrorCode
from tests.support.audio.media import MediaKit
from tests.support.jobs.harness import speech
from worker.embedded.local_cloud import AUDIO_BUCKET

SHORTEST_SECONDS, LONGEST_SECONDS = 10.0, 1200.0
SKEW = 1.4
PIPELINE_MP3 = ("-ar", "8000", "-b:a", "32k")
STEREO = ("-filter_complex", "[0:a]asplit[a][b];[b]areverse[c];[a][c]amerge=inputs=2", "-joint_stereo", "0")
TEXT, EMPTY = "text.mp3", "empty.mp3"
FORBIDDEN_BUCKET = "somebody-elses"


@dataclass(frozen=True, kw_only=True)
class Order:
    """A message to publish, and what must become of it."""

    data: bytes
    job_id: str | None
    fails_with: ErrorCode | None = None

    @property
    def good(self) -> bool:
        """It ends as completed."""
        return self.fails_with is None


@dataclass(frozen=True, kw_only=True)
class Recording:
    """An audio object to upload."""

    name: str
    content: bytes
    seconds: float


def recordings(media: MediaKit, count: int, longest_seconds: float = LONGEST_SECONDS) -> list[Recording]:
    """Bursts of noise from 10 s up, each longer than the one before by the same factor; and two objects without any.

    Every second one is stereo, its other channel the noise backwards.
    """
    media.directory.mkdir(parents=True, exist_ok=True)
    growth = math.log(longest_seconds / SHORTEST_SECONDS) / max(1, count - 1)
    made = [Recording(name=TEXT, content=b"no audio at all\n" * 100, seconds=0.0)]
    made.append(Recording(name=EMPTY, content=b"", seconds=0.0))
    for number in range(count):
        seconds = SHORTEST_SECONDS * math.exp(growth * number)
        channels = STEREO if number % 2 else ()
        path = media.encode(f"{number}.mp3", speech(seconds, seed=number), *channels, *PIPELINE_MP3)
        made.append(Recording(name=f"speech-{number:02d}.mp3", content=path.read_bytes(), seconds=seconds))
    return made


def orders(rng: random.Random, audio: Sequence[Recording], *, good: int, bad: int) -> list[Order]:
    """Make the given number of jobs of each kind, shuffled; recordings take turns, the shorter ones more often."""
    heard = [one for one in audio if one.seconds]
    made = [_good(number, heard[int(len(heard) * (number / good) ** SKEW)]) for number in range(good)]
    made += [_bad(number) for number in range(bad)]
    rng.shuffle(made)
    return made


def _good(number: int, recording: Recording) -> Order:
    fields: dict[str, object] = {"outputs": [[], ["srt"], ["srt", "vtt"]][number % 3]}
    if number % 5 == 1:
        fields["channels"] = "apart"
    if number % 4 == 0:
        fields["keyterms"] = ["Harbor Nine", f"Zed {number}", ".*"]
    return job_for(f"good-{number:03d}", recording.name, **fields)


def _bad(number: int) -> Order:
    job_id = f"bad-{number:03d}"
    kinds = (
        Order(data=f"this is no job {number}".encode(), job_id=None, fails_with=ErrorCode.INVALID_JOB),
        job_for(job_id, TEXT, fails_with=ErrorCode.AUDIO_UNDECODABLE),
        job_for(job_id, f"nothing-{number}.mp3", fails_with=ErrorCode.AUDIO_NOT_FOUND),
        job_for(job_id, EMPTY, fails_with=ErrorCode.AUDIO_UNDECODABLE),
        job_for(job_id, TEXT, fails_with=ErrorCode.UNSUPPORTED_SCHEMA_VERSION, schema_version=99),
        job_for(job_id, TEXT, fails_with=ErrorCode.INVALID_JOB, outputs="all of them"),
        job_for(job_id, TEXT, fails_with=ErrorCode.AUDIO_FORBIDDEN, bucket=FORBIDDEN_BUCKET),
        job_for(job_id, TEXT, fails_with=ErrorCode.INVALID_JOB, keyterms=["fine", "a\tb"]),
        job_for(job_id, TEXT, fails_with=ErrorCode.INVALID_JOB, channels="left"),
    )
    return kinds[number % len(kinds)]


def job_for(
    job_id: str, audio: str, *, fails_with: ErrorCode | None = None, bucket: str = AUDIO_BUCKET, **fields: object
) -> Order:
    """A job on an audio object."""
    job = {"job_id": job_id, "video_id": f"vod-{job_id}", "audio_uri": f"gs://{bucket}/{audio}", **fields}
    return Order(data=json.dumps(job).encode(), job_id=job_id, fails_with=fails_with)
