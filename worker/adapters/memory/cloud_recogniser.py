"""The in-memory twin of the paid speech service: hears what the other twin hears, for nothing, and keeps the bill."""

from zlib import crc32

from worker.adapters.memory.recogniser import Script, at_once, words_in
from worker.ports import SAMPLE_RATE_HZ, CloudRecognition, Pcm


class MemoryCloudRecogniser:
    """`worker.ports.CloudRecogniser`. `script` comes before each answer: it may raise, or hold it up."""

    def __init__(self, *, model_name: str = "memory", script: Script = at_once) -> None:
        self._model_name, self._script = model_name, script
        self.answered: list[CloudRecognition] = []
        """What was paid for, in order."""

    @property
    def model_name(self) -> str:
        """See the port."""
        return self._model_name

    async def recognise(self, samples: Pcm, *, language: str, job_id: str) -> CloudRecognition:
        """See the port. Hears one language, whatever it is called."""
        await self._script(samples, job_id)
        answer = CloudRecognition(
            words=tuple(words_in(samples)),
            request_id=f"memory-{len(self.answered)}-{language}-{crc32(samples.tobytes()):08x}",
            billed_seconds=len(samples) / SAMPLE_RATE_HZ,
        )
        self.answered.append(answer)
        return answer
