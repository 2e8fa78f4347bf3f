"""Temporary file for messages, so that thousands of large messages need no memory."""

import json
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.ports import Delivery

MEMORY_BYTES = 16 * 1024 * 1024
"""Size above which the spool is on disk, in an unnamed file that only this process can read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Position of a message in the spool."""

    start: int
    head_bytes: int
    data_bytes: int


class Spool:
    """File below `folder` that grows until it is closed. Writing may raise `OSError`."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES, dir=str(folder) if folder else None)  # noqa: SIM115 - `close` does
        self._end = 0

    @property
    def bytes(self) -> int:
        """Total size of the messages put into the spool."""
        return self._end

    def put(self, delivery: Delivery) -> Place:
        """Append a message, without its ack id; return its position."""
        facts = (
            delivery.message_id,
            dict(delivery.attributes),
            delivery.publish_time.isoformat(),
            delivery.ordering_key,
        )
        head = json.dumps(facts).encode()
        place = Place(start=self._end, head_bytes=len(head), data_bytes=len(delivery.data))
        self._file.seek(self._end)
        self._file.write(head)
        self._file.write(delivery.data)
        self._end += len(head) + len(delivery.data)
        return place

    def get(self, place: Place, ack_id: str) -> Delivery:
        """Return the message at the position."""
        self._file.seek(place.start)
        message_id, attributes, publish_time, ordering_key = json.loads(self._file.read(place.head_bytes))
        return Delivery(
            ack_id=ack_id,
            message_id=message_id,
            data=self._file.read(place.data_bytes),
            attributes=attributes,
            publish_time=datetime.fromisoformat(publish_time),
            ordering_key=ordering_key,
        )

    def close(self) -> None:
        """Remove everything."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()
