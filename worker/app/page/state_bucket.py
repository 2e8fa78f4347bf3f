"""The state bucket as its readers open it: on the first need, with their own credentials."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from worker.adapters.gcs import open_object_store
from worker.app.page.results import Results


@dataclass(kw_only=True)
class StateBucket:
    """The state bucket, opened when it is needed first. Belongs to one event loop."""

    project: str
    name: str
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _results: Results | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Close on leaving what was opened in between."""
        async with self._stack:
            yield

    async def results(self) -> Results:
        """Return the results. Raises `StorageServiceError` where no client can be made."""
        async with self._opening:
            if self._results is None:
                store = await self._stack.enter_async_context(open_object_store(project=self.project))
                self._results = Results(store=store.impatient(), bucket=self.name)
            return self._results
