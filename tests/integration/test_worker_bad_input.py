"""Bad input on the whole path: refused with a code and a clear word, or done with a flag; settled, nothing left."""

import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from schemas.codes import ErrorCode
from schemas.events import Flags
from tests.support.audio.media import MediaKit, float_wav, riff_wav
from tests.support.confinement.open_watch import OpenWatch
from tests.support.jobs.harness import speech
from tests.support.workers.cloud import Cloud
from tests.support.workers.pipeline import Pipeline
from worker.ports import SAMPLE_RATE_HZ

MP3 = ("-ar", "8000", "-b:a", "32k")
TEXT = b"dear transcriber, this is not audio at all\n" * 50
SCRIPTS = {
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:3,\n{target}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{target}'\nduration 3\n",
}

Content = Callable[[MediaKit], bytes]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A message, the object it names, and the settings that matter."""

    name: str
    data: bytes | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    content: Content | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    async def submit(self, pipeline: Pipeline, media: MediaKit) -> None:
        """Upload and publish it."""
        if self.content is not None:
            await pipeline.upload(self.content(media))
        if self.data is not None:
            await pipeline.publish(self.data)
        else:
            await pipeline.submit(**{"audio_uri": "gs://local-audio/audio", **self.fields})


@dataclass(frozen=True, kw_only=True)
class Refused(Case):
    """Ends as failed, with this code and words to this effect."""

    code: ErrorCode = ErrorCode.INVALID_JOB
    says: str
    job_id: str | None = "job-1"


@dataclass(frozen=True, kw_only=True)
class Done(Case):
    """Ends as completed, with these flags and about so much audio."""

    flags: Flags
    seconds: float


def fixed(content: bytes) -> Content:
    return lambda _: content


def encoded(name: str, seconds: float, *options: str, share: float = 1.0) -> Content:
    """Bursts of noise in that format, the file cut off behind a share of it."""

    def content(media: MediaKit) -> bytes:
        data = media.encode(name, speech(seconds), *options).read_bytes()
        return data[: int(len(data) * share)]

    return content


def with_nan(_: MediaKit) -> bytes:
    samples = speech(10).astype(np.float32) / 32_768
    samples[SAMPLE_RATE_HZ : 2 * SAMPLE_RATE_HZ] = np.nan
    return float_wav(samples)


NO_JOBS = [
    Refused(name="bad JSON", data=b'{"job_id": "job-1"', says="is not valid JSON", job_id=None),
    Refused(name="no UTF-8", data=b"\xff\xfe\x00", says="is not valid JSON", job_id=None),
    Refused(name="no object", data=b'["job-1"]', says="must be a JSON object", job_id=None),
    Refused(
        name="wrong types",
        fields={"video_id": 7, "duration_seconds": "long"},
        says=r"video_id: must be a string \(got 7\).*duration_seconds: must be a number \(got 'long'\)",
    ),
    Refused(
        name="unknown version",
        fields={"schema_version": 2},
        code=ErrorCode.UNSUPPORTED_SCHEMA_VERSION,
        says="schema_version 2 is newer than 1",
    ),
    Refused(name="climbing job id", fields={"job_id": "../job-1"}, says="job_id: .*'../job-1'", job_id=None),
    Refused(name="climbing video id", fields={"video_id": "../vod"}, says="video_id: .*'../vod'"),
    Refused(
        name="climbing audio",
        fields={"audio_uri": "gs://local-audio/../local-worker-state/x"},
        says="audio_uri: must not hold '.' or '..' as a path segment",
    ),
    Refused(
        name="climbing output",
        fields={"output_uri_prefix": "gs://local-transcripts/../"},
        says="output_uri_prefix: must not hold '.' or '..' as a path segment",
    ),
    Refused(
        name="forbidden output bucket",
        fields={"output_uri_prefix": "gs://local-worker-state/results/"},
        says=r"output_uri_prefix: must be in a bucket of OUTPUT_BUCKETS \(local-transcripts\)",
    ),
    Refused(
        name="bad keyterms",
        fields={"keyterms": ["", "fine", "x" * 61, "a b c d e f g", "a\x1bb", 7]},
        says=r"keyterms\.0: must not be empty.*keyterms\.2: .*60 characters.*keyterms\.3: .*6 words"
        r".*keyterms\.4: .*control characters \(got 'a\\x1bb'\).*keyterms\.5: must be a string",
    ),
    Refused(name="channels", fields={"channels": "left"}, says=r"channels: must be 'mix' or 'apart' \(got 'left'\)"),
    Refused(name="101 keyterms", fields={"keyterms": ["a"] * 101}, says="keyterms: must have at most 100 items"),
]
NO_AUDIO = [
    Refused(
        name="nine channels apart",
        content=lambda _: riff_wav(np.repeat(speech(3), 9).tobytes(), channels=9),
        fields={"channels": "apart"},
        code=ErrorCode.AUDIO_UNDECODABLE,
        says="channels: must be 'mix' for audio of more than 8 channels; it is 'apart', and the audio has 9",
    ),
    Refused(name="missing object", code=ErrorCode.AUDIO_NOT_FOUND, says="no object at gs://local-audio/audio"),
    Refused(
        name="missing generation",
        content=encoded("a.wav", 5),
        fields={"audio_generation": 7},
        code=ErrorCode.AUDIO_NOT_FOUND,
        says="no object at gs://local-audio/audio with generation 7",
    ),
    Refused(
        name="forbidden bucket",
        fields={"audio_uri": "gs://local-worker-state/claims/x.json"},
        settings={"input_buckets": "local-audio"},
        code=ErrorCode.AUDIO_FORBIDDEN,
        says="may not read gs://local-worker-state/claims/x.json: INPUT_BUCKETS allows local-audio",
    ),
    Refused(
        name="file over the limit",
        content=encoded("a.wav", 5),
        settings={"max_file_size_gb": 1e-4},
        code=ErrorCode.AUDIO_TOO_LARGE,
        says=r"the audio object has \d+ bytes, the limit is 107374",
    ),
    Refused(
        name="audio over the limit, by its header",
        content=encoded("a.flac", 65),
        settings={"max_audio_hours": 0.01},
        code=ErrorCode.AUDIO_TOO_LONG,
        says="the audio is at least 65 s long, the limit is 36 s",
    ),
    Refused(
        name="audio over the limit, decoded",
        content=encoded("a.aac", 65, "-c:a", "aac"),
        settings={"max_audio_hours": 0.01},
        code=ErrorCode.AUDIO_TOO_LONG,
        says="the audio is at least 40 s long, the limit is 36 s",
    ),
    Refused(name="empty file", content=fixed(b""), code=ErrorCode.AUDIO_UNDECODABLE, says="the object is empty"),
    Refused(
        name="text",
        content=fixed(TEXT),
        code=ErrorCode.AUDIO_UNDECODABLE,
        says="the audio cannot be decoded: .*Invalid",
    ),
    Refused(
        name="MP4 without its end",
        content=encoded("a.m4a", 65, "-c:a", "aac", share=0.6),
        code=ErrorCode.AUDIO_UNDECODABLE,
        says="moov atom not found",
    ),
]
SHORT = Flags(shorter_than_analysis_window=True)
DONE = [
    Done(
        name="truncated MP3",
        content=encoded("a.mp3", 130, *MP3, share=0.6),
        flags=Flags(truncated_audio=True),
        seconds=78,
    ),
    Done(name="a tenth of a second", content=encoded("a.mp3", 0.1, *MP3), flags=Flags(no_speech=True), seconds=0.1),
    Done(name="a word", content=encoded("a.wav", 0.5), flags=SHORT, seconds=0.5),
    Done(
        name="silence",
        content=fixed(float_wav(np.zeros(30 * SAMPLE_RATE_HZ, np.float32))),
        flags=Flags(no_speech=True),
        seconds=30,
    ),
    Done(name="NaN in a float WAV", content=with_nan, flags=SHORT, seconds=10),
    Done(
        name="channels apart of mono, and a priority of no effect",
        content=encoded("a.mp3", 65, *MP3),
        fields={"channels": "apart", "priority": {"level": "URGENT"}},
        flags=Flags(),
        seconds=65,
    ),
    Done(name="the pipeline's MP3", content=encoded("a.mp3", 65, *MP3), flags=Flags(), seconds=65),
    Done(
        name="keyterms that are no words",
        content=encoded("a.wav", 5),
        fields={"keyterms": [".*", "(?:a|b)+", "\u202e", "名前", "a", "A", *"bcdefghij" * 10]},
        flags=SHORT,
        seconds=5,
    ),
    Done(name="M4A", content=encoded("a.m4a", 65, "-c:a", "aac"), flags=Flags(), seconds=65),
    Done(name="Opus", content=encoded("a.opus", 65, "-c:a", "libopus"), flags=Flags(), seconds=65),
    Done(name="WebM", content=encoded("a.webm", 65, "-c:a", "libopus"), flags=Flags(), seconds=65),
]


async def assert_nothing_is_left(cloud: Cloud, pipeline: Pipeline) -> None:
    """No message, no file, and of state the result alone; without one where the message was no job."""
    assert await pipeline.unsettled() == []
    assert set(await pipeline.state()) <= {"results/job-1.json"}
    assert list(cloud.downloads.iterdir()) == []


@pytest.mark.parametrize("case", NO_JOBS + NO_AUDIO, ids=lambda case: case.name)
async def test_what_cannot_be_done_is_refused_once_with_its_code(cloud: Cloud, media: MediaKit, case: Refused) -> None:
    async with cloud.working(**case.settings) as pipeline:
        await case.submit(pipeline, media)
        ending = await pipeline.ending(case.job_id)

    async with cloud.pipeline() as pipeline:
        (letter,) = await pipeline.dead_letters()
        error = ending.failed.error
        assert (error.error_code, letter.code) == (case.code, case.code)
        assert (error.is_retryable, error.support_reference) == (False, letter.dead_letter_id)
        assert re.search(case.says, error.error_message)
        assert letter.message == error.error_message
        assert ending.cost.usd_total == 0
        await assert_nothing_is_left(cloud, pipeline)


@pytest.mark.parametrize("case", DONE, ids=lambda case: case.name)
async def test_what_can_be_done_is_done_and_flagged(cloud: Cloud, media: MediaKit, case: Done) -> None:
    async with cloud.working(**case.settings) as pipeline:
        await case.submit(pipeline, media)
        completed = (await pipeline.ending()).completed

    async with cloud.pipeline() as pipeline:
        told = completed.transcription_metadata
        assert completed.flags == case.flags
        assert told.audio_duration_seconds == pytest.approx(case.seconds, abs=0.2)
        assert (told.words_count == 0) == case.flags.no_speech
        assert await pipeline.dead_letters() == []
        await assert_nothing_is_left(cloud, pipeline)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_script_that_points_at_a_file_is_refused_and_the_file_not_opened(
    cloud: Cloud, media: MediaKit, script: str
) -> None:
    canary = media.encode("canary.wav", speech(3))

    async with cloud.working() as pipeline:
        uri = await pipeline.upload(SCRIPTS[script].format(target=canary).encode(), "audio.mp3")
        with OpenWatch(canary) as watch:
            await pipeline.submit(uri)
            failed = (await pipeline.ending()).failed
            opened = watch.opened()

    assert not opened
    assert failed.error.error_code is ErrorCode.AUDIO_UNDECODABLE
    async with cloud.pipeline() as pipeline:
        await assert_nothing_is_left(cloud, pipeline)


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_script_that_points_at_a_url_is_refused_and_the_url_is_not_called(
    cloud: Cloud, listener: socket.socket, script: str
) -> None:
    target = f"http://127.0.0.1:{listener.getsockname()[1]}/a.wav"

    async with cloud.working() as pipeline:
        await pipeline.submit(await pipeline.upload(SCRIPTS[script].format(target=target).encode(), "audio.m3u8"))
        failed = (await pipeline.ending()).failed

    assert failed.error.error_code is ErrorCode.AUDIO_UNDECODABLE
    with pytest.raises(BlockingIOError):
        listener.accept()
