"""In-memory twin of the paid speech service: returns the other twin's words, and records the bill."""

import asyncio
from zlib import crc32

from worker.adapters.memory.recogniser import Script, at_once, words_in
from worker.errors import DeepgramDown
from worker.ports import SAMPLE_RATE_HZ, CloudRecognition, Pcm


class MemoryCloudRecogniser:
    """`worker.ports.CloudRecogniser`. `script` comes before each answer: it may raise, or hold it up.

    A caller that is cancelled while the script runs still gets its answer where that takes `cancelled_seconds` at most.
    """

    def __init__(self, *, model_name: str = "memory", script: Script = at_once, cancelled_seconds: float = 0.0) -> None:
        self._model_name, self._script, self._cancelled_seconds = model_name, script, cancelled_seconds
        self.answered: list[CloudRecognition] = []
        """Billed requests, in order."""
        self.keyterms_sent: list[tuple[str, ...]] = []
        """The keyterms of each request, in order."""
        self._down_because = ""
        self._up = asyncio.Event()
        self._up.set()

    @property
    def down_because(self) -> str:
        """See the port; `go_down` and `mend` change it."""
        return self._down_because

    def go_down(self, reason: str) -> None:
        """Refuse every request from now on."""
        self._down_because = reason
        self._up.clear()

    def mend(self) -> None:
        """Accept requests again."""
        self._down_because = ""
        self._up.set()

    async def turn(self) -> None:
        """See the port. Everyone is let go at once when it is up again."""
        await self._up.wait()

    @property
    def model_name(self) -> str:
        """See the port."""
        return self._model_name

    async def recognise(
        self, samples: Pcm, *, language: str, job_id: str, keyterms: tuple[str, ...] = ()
    ) -> CloudRecognition:
        """Recognise a chunk, see the port. The language is ignored; keyterms change nothing but `keyterms_sent`."""
        self.keyterms_sent.append(keyterms)
        if self._down_because:
            raise DeepgramDown(self._down_because)
        interrupted = await self._play(samples, job_id)
        answer = CloudRecognition(
            words=tuple(words_in(samples)),
            request_id=f"memory-{len(self.answered)}-{language}-{crc32(samples.tobytes()):08x}",
            billed_seconds=len(samples) / SAMPLE_RATE_HZ,
            interrupted=interrupted,
        )
        self.answered.append(answer)
        return answer

    async def _play(self, samples: Pcm, job_id: str) -> bool:
        """Run the script; returns whether the caller was cancelled meanwhile."""
        script = asyncio.ensure_future(self._script(samples, job_id))
        try:
            await asyncio.shield(script)
        except asyncio.CancelledError:
            await asyncio.wait({script}, timeout=self._cancelled_seconds)
            if not script.done() or script.cancelled() or script.exception():
                raise
            return True
        finally:
            script.cancel()
        return False
