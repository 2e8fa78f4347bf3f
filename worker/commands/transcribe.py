"""`transcribe`: local files through the worker's decoder, engine and artefacts."""

import asyncio
import contextlib
import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from schemas.artefacts import Artefact
from schemas.codes import CaptionFormat
from schemas.ids import request_id
from schemas.job import Id
from schemas.state import Checkpoint
from schemas.text import plain, plain_json
from worker.adapters.machine.clock import SystemClock
from worker.app.recogniser import make_engine
from worker.app.worker import GIB, make_decoder
from worker.commands.console import EXIT_FAILED, EXIT_USAGE, fail, line, load_settings, out
from worker.commands.transcript_page import PageOptions, write_page
from worker.core.jobs import transcription
from worker.core.jobs.engine_trust import EngineTrust
from worker.core.jobs.ladder import Ladder
from worker.core.jobs.output import CAPTIONS, MODEL_ARCHITECTURE
from worker.core.jobs.routing import Route
from worker.core.jobs.unpacking import unpacked
from worker.core.transcript.artefacts import ArtefactInfo, render_artefacts
from worker.errors import GpuNotAvailable, ModelLoadingError, WorkerError
from worker.ports import AudioDecoder, EngineFacts, WindowRecogniser
from worker.settings import CloudSettings, EngineSettings, JobSettings
from worker.telemetry import configure_logging


@dataclass(frozen=True, kw_only=True)
class Extras:
    """The files to write besides the standard ones."""

    captions: frozenset[Artefact]
    page: PageOptions | None


def transcribe(
    files: Sequence[Path],
    folder: Path,
    *,
    video_id: str | None,
    captions: Sequence[CaptionFormat],
    page: PageOptions | None = None,
    as_json: bool,
) -> None:
    """Write each file's artefacts to `folder`. Exit 1 when a file failed; the others are done all the same."""
    settings = load_settings()
    configure_logging("json" if as_json else "auto")
    named = _named(files, video_id)
    folder.mkdir(parents=True, exist_ok=True)
    extra = Extras(captions=frozenset(CAPTIONS[wanted] for wanted in captions), page=page)
    try:
        failed = asyncio.run(
            _transcribe_all(settings.engine, settings.cloud, settings.jobs, named, folder, extra, as_json=as_json)
        )
    except (GpuNotAvailable, ModelLoadingError) as exc:
        fail(f"{exc}: {exc.suggested_action}")
    if failed:
        raise SystemExit(EXIT_FAILED)


def _named(files: Sequence[Path], video_id: str | None) -> dict[str, Path]:
    if video_id is not None and len(files) > 1:
        fail("--video-id names the artefacts of one file; leave it out for several", EXIT_USAGE)
    named = {video_id or _stem(file): file for file in files}
    if len(named) < len(files):
        fail("two files have the same name, and so would their artefacts", EXIT_USAGE)
    for name in named:
        try:
            TypeAdapter(Id).validate_python(name)
        except ValidationError as exc:
            fail(f"{name!r} cannot be a video id: {exc.errors()[0]['msg']}; give one by --video-id", EXIT_USAGE)
    return named


def _stem(file: Path) -> str:
    return Path(file.stem).stem if file.suffix.lower() == ".gz" else file.stem


async def _transcribe_all(
    settings: EngineSettings,
    cloud: CloudSettings,
    jobs: JobSettings,
    named: dict[str, Path],
    folder: Path,
    extra: Extras,
    *,
    as_json: bool,
) -> int:
    failed = 0
    decoder = make_decoder(jobs, settings)
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=out(), disable=as_json) as bars:
        loading = bars.add_task(plain(f"loading {settings.parakeet_model_name}"), total=None)
        async with make_engine(settings, cloud) as engine:
            bars.remove_task(loading)
            for name, file in named.items():
                bar = partial(bars.update, bars.add_task(name, total=None))
                try:
                    heard = await transcribe_file(jobs, decoder, engine, file, bar)
                except WorkerError as exc:
                    failed += 1
                    told: dict[str, object] = {"file": str(file), "error_code": exc.code.value, "error": str(exc)}
                    _say(as_json, told, line(("failed", "red"), f" {file}: {exc}"))
                    continue
                written = _write(name, file, heard, engine.facts, folder, extra)
                told = {"file": str(file), "words": len(heard.words), "artefacts": written}
                _say(as_json, told, line(f"{file}: {len(heard.words)} words"))
    return failed


async def transcribe_file(
    jobs: JobSettings,
    decoder: AudioDecoder,
    engine: WindowRecogniser,
    file: Path,
    bar: Callable[..., None],
) -> transcription.Transcribed:
    """Transcribe one file by Parakeet alone; `bar` receives total and completed seconds. Raises `WorkerError`."""
    async with _without_gzip(jobs, file) as audio:
        bar(total=(await decoder.probe(audio)).duration_seconds)
        return await transcription.Transcription(
            decoder=decoder,
            transcribe=_ladder(engine, file.name).transcribe,
            store=_NoStore(),
            key="",
            paid_key="",
            chunk_seconds=jobs.chunk_duration_minutes * 60,
            chunks_in_flight=jobs.chunks_in_flight,
            on_progress=lambda progress: bar(completed=progress.audio_seconds_done),
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


def _ladder(engine: WindowRecogniser, job_id: str) -> Ladder:
    """Parakeet alone: a local file costs nothing but time."""
    clock = SystemClock()
    return Ladder(
        recogniser=engine,
        paid=None,
        health=EngineTrust(clock),
        clock=clock,
        route=Route(method="parakeet", reason="local_file"),
        may_fall_back=False,
        may_use_parakeet=True,
        language="en",
        job_id=job_id,
    )


def _write(
    video_id: str,
    file: Path,
    heard: transcription.Transcribed,
    engine: EngineFacts,
    folder: Path,
    extra: Extras,
) -> list[str]:
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    info = ArtefactInfo(
        video_id=video_id,
        request_id=request_id(video_id),
        created_at=datetime.fromtimestamp(file.stat().st_mtime, UTC),
        audio_sha256=sha256,
        duration_seconds=heard.duration_seconds,
        model_name=engine.model_name,
        model_version=engine.model_fingerprint,
        model_arch=MODEL_ARCHITECTURE,
        extra_outputs=extra.captions,
    )
    written = []
    for artefact in render_artefacts(heard.words, info).files:
        path = folder / artefact.file_name
        path.with_suffix(".partial").write_bytes(artefact.data)
        path.with_suffix(".partial").replace(path)
        written.append(str(path))
    if extra.page is not None:
        transcript = folder / Artefact.TRANSCRIPT.file_name(video_id)
        engines = [chunk.engine for chunk in heard.chunks]
        written.append(str(write_page(transcript, file, engines, engine, extra.page)))
    return written


def _say(as_json: bool, data: dict[str, object], text: Text) -> None:
    if as_json:
        print(plain_json(data), flush=True)
    else:
        out().print(text)


class _NoStore:
    """Nothing is resumed here: a local file is done in one go or again from the start."""

    async def load(self, key: str, index: int) -> Checkpoint | None:  # noqa: ARG002
        return None

    async def save(self, key: str, checkpoint: Checkpoint) -> None:
        pass
