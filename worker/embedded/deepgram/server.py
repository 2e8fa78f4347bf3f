"""The stand-in's life: listen, serve, stop."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Self

import structlog
from aiohttp import web

from worker.embedded.deepgram.misbehaviour import Misbehave, well_behaved
from worker.embedded.deepgram.service import ListenService, Receipt, Recognise
from worker.embedded.own_thread import MachineClock
from worker.ports import Clock

_log = structlog.get_logger(__name__)

API_KEY = "stand-in-key"

SHUTDOWN_SECONDS = 0.1
"""For requests in flight, before their handlers are cancelled; 0 would wait for them without limit."""


class EmbeddedDeepgram:
    """A development server for Deepgram's `POST /v1/listen`: bills nothing, but records what Deepgram would bill.

    Checks the query, the key and the content type, decodes the audio (mono at 16 kHz), and answers in Deepgram's shape
    with the words of `recognise`. `misbehave` selects faults by request. It has no callbacks and fetches no URLs.

    `async with EmbeddedDeepgram(recognise) as server:` listens on `server.url`. Raises `OSError` if the port is taken.
    """

    def __init__(
        self,
        recognise: Recognise,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str = API_KEY,
        misbehave: Misbehave = well_behaved,
        clock: Clock | None = None,
    ) -> None:
        self.host, self.port, self.api_key = host, port, api_key
        self._service = ListenService(recognise, misbehave, api_key, clock or MachineClock())

    @property
    def url(self) -> str:
        """Deepgram's base URL for a client."""
        return f"http://{self.host}:{self.port}"

    @property
    def receipts(self) -> Sequence[Receipt]:
        """Every request so far, in the order of their arrival."""
        return tuple(self._service.receipts)

    @property
    def most_under_way(self) -> int:
        """Highest number of concurrent requests."""
        return self._service.most_under_way

    def payments(self) -> Mapping[str | None, int]:
        """Count the payments for each audio, by the fingerprint of its samples."""
        return Counter(receipt.fingerprint for receipt in self.receipts if receipt.paid)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._service.serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.host, self.port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]
        _log.warning("embedded_deepgram.started", url=self.url, purpose="a stand-in for development and tests only")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
