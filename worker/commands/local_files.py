"""Local files through the worker's decoder, engine and artefacts: the work of `transcribe`."""

import base64
import contextlib
import csv
import io
import json
import mimetypes
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from schemas.codes import Artefact, ErrorCode
from schemas.ids import request_id
from schemas.state import Checkpoint
from schemas.text import plain
from worker.adapters.machine.clock import SystemClock
from worker.commands.console import cell, err, line, out, say_json
from worker.commands.job_fields import Choices, Outputs, PageAudio, keyterms_text, sha256_of
from worker.core.jobs import transcription
from worker.core.jobs.audio_input import unpacked
from worker.core.jobs.engine_trust import EngineTrust
from worker.core.jobs.ladder import Ladder
from worker.core.jobs.output import flags_of, keyterm_fields
from worker.core.jobs.reporting import KeytermFields
from worker.core.jobs.routing import Route
from worker.core.transcript.artefacts import ArtefactInfo, render_artefacts
from worker.core.transcript.spelling import with_sound
from worker.errors import WorkerError
from worker.ports import AudioDecoder, EngineFacts, WindowRecogniser
from worker.settings import JobSettings

GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Results on stdout, as text or a JSON object a file; figures, failures and progress beside them on stderr."""

    as_json: bool = False
    has_bars: bool = True

    def failure(self, file: Path, code: ErrorCode, reason: str) -> None:
        """Show that a file failed, and why."""
        if self.as_json:
            say_json({"file": str(file), "error_code": code.value, "error": reason})
        else:
            err().print(line(("failed", "red"), f" {file}: {reason}"))

    def result(self, told: Mapping[str, Any], text: str, keyterms: KeytermFields | None, *, of_several: bool) -> None:
        """Show a file's text, and its figures."""
        if self.as_json:
            say_json({**told, **(keyterms or {}), "text": text})
            return
        console = out()
        if of_several:
            console.print(line((f"{told['file']}:", "bold")))
        for paragraph in text.splitlines():
            console.print(cell(paragraph), soft_wrap=not console.is_terminal)
        terms = keyterms_text(**keyterms) if keyterms else ""
        flags = "".join(f", {str(flag).replace('_', ' ')}" for flag in told["flags"])
        err().print(
            line(
                ("ok", "green"),
                f" {told['words']} words, {told['audio_seconds']:.0f} s of audio in {told['seconds']:.1f} s,"
                f" {told['speed']:.0f}x{flags}{terms}: {' '.join(told['artefacts'])}",
            )
        )


async def transcribe_all(
    model_name: str,
    jobs: JobSettings,
    decoder: AudioDecoder,
    engine: AbstractAsyncContextManager[WindowRecogniser],
    named: Mapping[str, Path],
    choices: Choices,
    outputs: Outputs,
    shown: Shown,
) -> int:
    """Transcribe the files, report each, and return the count of those that failed.

    `named` are the files by the video id of their artefacts. Raises what entering the engine raises.
    """
    failed = 0
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn()
    console = err()
    has_bars = shown.has_bars and console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not has_bars) as bars:
        loading = bars.add_task(plain(f"loading the model {Path(model_name).name}"), total=None)
        async with engine as recogniser:
            bars.remove_task(loading)
            for name, file in named.items():
                row, began = bars.add_task(name, total=None), time.monotonic()
                try:
                    bar = partial(bars.update, row)
                    heard = await transcribe_file(jobs, decoder, recogniser, file, bar, choices)
                    seconds = time.monotonic() - began
                    keyterms = await keyterm_fields(choices.keyterms, heard, recogniser)
                    paths, text = _write(name, file, heard, recogniser.facts, outputs, keyterms)
                except WorkerError as exc:
                    failed += 1
                    shown.failure(file, exc.code, str(exc))
                    continue
                except OSError as exc:
                    if file.exists():
                        raise  # of the output, which concerns the other files too
                    failed += 1
                    shown.failure(file, ErrorCode.AUDIO_NOT_FOUND, exc.strerror or "there is no such file any more")
                    continue
                finally:
                    bars.remove_task(row)
                told = {"file": str(file), **_figures(heard, seconds), "artefacts": paths}
                shown.result(told, text, keyterms if choices.keyterms else None, of_several=len(named) > 1)
    return failed


def _figures(heard: transcription.Transcribed, seconds: float) -> dict[str, object]:
    return {
        "words": len(heard.words),
        "audio_seconds": round(heard.duration_seconds, 3),
        "seconds": round(seconds, 3),
        "speed": round(heard.duration_seconds / seconds, 1) if seconds else 0.0,
        "flags": [name for name, is_set in flags_of(heard).model_dump().items() if is_set],
    }


async def transcribe_file(
    jobs: JobSettings,
    decoder: AudioDecoder,
    engine: WindowRecogniser,
    file: Path,
    bar: Callable[..., None],
    choices: Choices,
) -> transcription.Transcribed:
    """Transcribe one file by Parakeet alone; `bar` receives total and completed seconds. Raises `WorkerError`."""
    async with _without_gzip(jobs, file) as audio:
        facts = await decoder.probe(audio)
        channels = transcription.channels_apart(choices.channels, facts)
        bar(total=facts.duration_seconds and facts.duration_seconds * channels)
        clock = SystemClock()
        ladder = Ladder(
            recogniser=engine,
            paid=None,
            health=EngineTrust(clock),
            clock=clock,
            route=Route(method="parakeet", reason="local_file"),
            may_fall_back=False,
            may_use_parakeet=True,
            language="en",
            job_id=file.name,
            keyterms=with_sound(choices.keyterms),
        )
        return await transcription.Transcription(
            decoder=decoder,
            transcribe=ladder.transcribe,
            store=_NoStore(),
            key="",
            paid_key="",
            chunk_seconds=jobs.chunk_duration_minutes * 60,
            chunks_in_flight=jobs.chunks_in_flight,
            on_progress=lambda progress: bar(completed=progress.audio_seconds_done),
            channels=channels,
        ).run(audio)


@contextlib.asynccontextmanager
async def _without_gzip(jobs: JobSettings, file: Path) -> AsyncIterator[Path]:
    """Unpack gzip data to TEMP_DIR, as the worker does with an object; any other file is read where it is."""
    with tempfile.TemporaryDirectory(dir=jobs.temp_dir) as room:
        link = _linked(Path(room), file)  # `unpacked` removes what it has unpacked
        yield await unpacked(link, max_bytes=int(jobs.max_file_size_gb * GIB), take_room=lambda _: None)


def _linked(folder: Path, file: Path) -> Path:
    link = folder / "audio"
    link.symlink_to(file.resolve())
    return link


def _write(
    video_id: str,
    file: Path,
    heard: transcription.Transcribed,
    engine: EngineFacts,
    outputs: Outputs,
    keyterms: KeytermFields,
) -> tuple[list[str], str]:
    """Write the artefacts; return their paths, and the text by paragraphs."""
    info = ArtefactInfo(
        request_id=request_id(video_id),
        created_at=datetime.fromtimestamp(file.stat().st_mtime, UTC),
        audio_sha256=sha256_of(file),
        duration_seconds=heard.duration_seconds,
        model_name=engine.model_name,
        model_version=engine.model_fingerprint,
        extra_outputs=outputs.captions,
        is_calibrated=engine.is_calibrated,
    )
    written, text = [], ""
    files, _ = render_artefacts(heard.words, info, heard.channels)
    for kind, data in files.items():
        if kind is Artefact.PARAGRAPHS:
            rows = csv.DictReader(io.StringIO(data.decode(), newline=""))
            text = "\n".join(row["text"] for row in rows)
        written.append(str(_stored(outputs.folder / kind.file_name(video_id), data)))
    if outputs.page is not None:
        transcript = outputs.folder / Artefact.TRANSCRIPT.file_name(video_id)
        engines = [chunk.engine for chunk in heard.chunks]
        written.append(str(write_page(transcript, file, engines, engine, outputs.page, keyterms)))
    return written, text


def _stored(path: Path, data: bytes) -> Path:
    """Write the file whole or not at all."""
    unfinished = path.with_suffix(".partial")
    unfinished.write_bytes(data)
    return unfinished.replace(path)


def write_page(
    transcript_file: Path,
    audio: Path,
    engines: Sequence[str],
    engine: EngineFacts,
    place: PageAudio,
    keyterms: KeytermFields,
) -> Path:
    """Write the page beside the transcript artefact and return its path. Raises `OSError`.

    `engines` are those of the chunks, in the order of the audio; `keyterms` say which were found, and `place` where the
    audio of the page is.
    """
    # The templates are for a page alone.
    from worker.adapters.web.health_document import segment_of  # noqa: PLC0415
    from worker.adapters.web.rendering import span, standalone  # noqa: PLC0415
    from worker.app.page.bucket import read_transcript  # noqa: PLC0415

    if place == "inside":
        media_type = mimetypes.guess_type(audio.name)[0] or "audio/mpeg"
        source = f"data:{media_type};base64,{base64.b64encode(audio.read_bytes()).decode()}"
    else:
        relative = os.path.relpath(audio.resolve(), transcript_file.parent.resolve())
        source = quote(os.fsencode(relative))  # a name may be no text
    found = read_transcript(json.loads(transcript_file.read_bytes()), audio_src=source)
    if found is None:
        raise AssertionError("an artefact of ours has our shape")
    transcript = replace(found, segments=[segment_of(engine) for engine in engines])
    now = datetime.now(UTC)
    noun = "word" if transcript.words_count == 1 else "words"
    lede = (
        f"{transcript.words_count:,} {noun} in {span(transcript.duration_seconds)} of audio. "
        f"Transcribed on {now:%Y-%m-%d} at {now:%H:%M} UTC by {Path(engine.model_name).name} on {engine.device_name}"
        f"{keyterms_text(**keyterms)}."
    )
    page = standalone(transcript, title=audio.name, lede=lede, version=version("klipstream-worker"))
    return _stored(transcript_file.with_suffix(".html"), page.encode())


class _NoStore:
    """Nothing is resumed here: a local file is done in one go or again from the start."""

    async def load(self, key: str, index: int) -> Checkpoint | None:  # noqa: ARG002
        return None

    async def save(self, key: str, checkpoint: Checkpoint, *, is_last: bool = False) -> None:
        pass
