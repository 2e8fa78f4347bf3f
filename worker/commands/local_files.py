"""Local files through the worker's decoder, engine and artefacts: the work of `transcribe`."""

import contextlib
import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from schemas.artefacts import Artefact
from schemas.codes import CaptionFormat
from schemas.ids import request_id
from schemas.state import Checkpoint
from schemas.text import plain, plain_json
from worker.adapters.machine.clock import SystemClock
from worker.commands.console import line, out
from worker.commands.keyterms import keyterms_text
from worker.commands.transcribe import PageOptions
from worker.core.jobs import transcription
from worker.core.jobs.engine_trust import EngineTrust
from worker.core.jobs.keyterms import KeytermFields, keyterm_fields
from worker.core.jobs.ladder import Ladder
from worker.core.jobs.output import CAPTIONS, MODEL_ARCHITECTURE
from worker.core.jobs.routing import Route
from worker.core.jobs.unpacking import unpacked
from worker.core.transcript.artefacts import ArtefactInfo, render_artefacts
from worker.core.transcript.keyterms import with_sound
from worker.errors import WorkerError
from worker.ports import AudioDecoder, EngineFacts, WindowRecogniser
from worker.settings import JobSettings

GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The folder of the artefacts, the files to write besides the standard ones, and the terms to prefer."""

    folder: Path
    captions: frozenset[Artefact]
    page: PageOptions | None
    keyterms: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, folder: Path, captions: Sequence[CaptionFormat], page: PageOptions | None, keyterms: tuple[str, ...] = ()
    ) -> Self:
        """Return them as the command line names them."""
        kinds = frozenset(CAPTIONS[wanted] for wanted in captions)
        return cls(folder=folder, captions=kinds, page=page, keyterms=keyterms)


async def transcribe_all(
    model_name: str,
    jobs: JobSettings,
    decoder: AudioDecoder,
    engine: AbstractAsyncContextManager[WindowRecogniser],
    named: dict[str, Path],
    outputs: Outputs,
    *,
    as_json: bool,
) -> int:
    """Transcribe the files, report each, and return the count of those that failed.

    `named` are the files by the video id of their artefacts. Raises what entering the engine raises.
    """
    failed = 0
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=out(), disable=as_json) as bars:
        loading = bars.add_task(plain(f"loading {model_name}"), total=None)
        async with engine as recogniser:
            bars.remove_task(loading)
            for name, file in named.items():
                bar = partial(bars.update, bars.add_task(name, total=None))
                try:
                    heard = await transcribe_file(jobs, decoder, recogniser, file, bar, outputs.keyterms)
                except WorkerError as exc:
                    failed += 1
                    told: dict[str, object] = {"file": str(file), "error_code": exc.code.value, "error": str(exc)}
                    _say(as_json, told, line(("failed", "red"), f" {file}: {exc}"))
                    continue
                keyterms = await keyterm_fields(outputs.keyterms, heard, recogniser)
                written = _write(name, file, heard, recogniser.facts, outputs, keyterms)
                told = {"file": str(file), "words": len(heard.words), "artefacts": written}
                if outputs.keyterms:
                    told |= keyterms
                _say(as_json, told, line(f"{file}: {len(heard.words)} words{keyterms_text(**keyterms)}"))
    return failed


async def transcribe_file(
    jobs: JobSettings,
    decoder: AudioDecoder,
    engine: WindowRecogniser,
    file: Path,
    bar: Callable[..., None],
    keyterms: tuple[str, ...] = (),
) -> transcription.Transcribed:
    """Transcribe one file by Parakeet alone; `bar` receives total and completed seconds. Raises `WorkerError`."""
    async with _without_gzip(jobs, file) as audio:
        bar(total=(await decoder.probe(audio)).duration_seconds)
        return await transcription.Transcription(
            decoder=decoder,
            transcribe=_ladder(engine, file.name, with_sound(keyterms)).transcribe,
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


def _ladder(engine: WindowRecogniser, job_id: str, keyterms: tuple[str, ...]) -> Ladder:
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
        keyterms=keyterms,
    )


def _write(
    video_id: str,
    file: Path,
    heard: transcription.Transcribed,
    engine: EngineFacts,
    outputs: Outputs,
    keyterms: KeytermFields,
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
        extra_outputs=outputs.captions,
    )
    written = []
    for artefact in render_artefacts(heard.words, info).files:
        path = outputs.folder / artefact.file_name
        path.with_suffix(".partial").write_bytes(artefact.data)
        path.with_suffix(".partial").replace(path)
        written.append(str(path))
    if outputs.page is not None:
        from worker.commands.transcript_page import write_page  # noqa: PLC0415  its templates are for a page alone

        transcript = outputs.folder / Artefact.TRANSCRIPT.file_name(video_id)
        engines = [chunk.engine for chunk in heard.chunks]
        written.append(str(write_page(transcript, file, engines, engine, outputs.page, keyterms)))
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
