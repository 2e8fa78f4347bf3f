"""Decides between publishing a completed job's events again and doing the job again.

A completed job's marker contains its events. They are valid as long as the artefacts exist, in any generation: the
pipeline overwrites them itself. If an artefact is gone, the job is done again as its next run: its events have another
run and other ids, so that subscribers which drop duplicates by event id receive them.
"""

import asyncio

from schemas.codes import EventType
from schemas.events import CompletedEvent, EventUnreadable, parse_event
from schemas.state import ResultMarker, StoredMessage
from worker.core.jobs.job_message import LARGE_BYTES, collections_paused
from worker.core.jobs.output import OutputWriter

MOST_KEPT_CHARACTERS = 1 << 18
"""The size of the cost events in a result marker, which must stay far below 8 MiB: about 200 events of usual jobs."""


async def missing_artefacts(marker: ResultMarker, output: OutputWriter) -> tuple[str, ...]:
    """Return the URIs of a completed job's artefacts that do not exist any more: one `stat` each, side by side.

    Empty for a failed job, and for a marker whose event this version cannot read.
    """
    for message in marker.messages:
        if message.attributes.get("event_type") == EventType.COMPLETED.value:
            data = message.data.encode()
            large = len(data) > LARGE_BYTES  # for the job's echo is in it
            event = await asyncio.to_thread(_completed_large, data) if large else _completed(data)
            return () if event is None else await output.missing(_uris(event))
    return ()


def _completed_large(data: bytes) -> CompletedEvent | None:
    with collections_paused():
        return _completed(data)


def _completed(data: bytes) -> CompletedEvent | None:
    try:
        event = parse_event(data)
    except EventUnreadable:
        return None
    return event if isinstance(event, CompletedEvent) else None


def _uris(event: CompletedEvent) -> tuple[str, ...]:
    named = event.artefacts
    written = (named.words, named.paragraphs, named.transcript, named.srt, named.vtt)
    return tuple(artefact.uri for artefact in written if artefact is not None)


def costs_to_keep(marker: ResultMarker | None) -> tuple[StoredMessage, ...]:
    """Return the cost events that the marker of the next run keeps of this one: what completed runs cost was spent.

    A failed run's cost is not among them, for the bill of the next run holds its chunks.
    """
    if marker is None:
        return ()
    kept, characters = [], 0
    for message in reversed((*marker.earlier_costs, *marker.messages)):
        is_cost = message.attributes.get("event_type") == EventType.COST.value
        if is_cost and message.attributes.get("status") == "completed":
            characters += len(message.data)
            if characters > MOST_KEPT_CHARACTERS:
                break
            kept.append(message)
    return tuple(reversed(kept))
