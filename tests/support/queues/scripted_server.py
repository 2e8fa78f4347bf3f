"""A gRPC server that answers Pub/Sub calls as a test says, faults above all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from worker.embedded.pubsub.refusal import Refused


class ScriptedPubSub(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Each call takes its method's next answer: bytes are the response, `Refused` the error, None hangs.

    `calls` remembers the method and the request's bytes of every call.
    """

    def __init__(self) -> None:
        self.target = ""
        self.calls: list[tuple[str, bytes]] = []
        self._answers: dict[str, list[bytes | Refused | None]] = {}

    def answer(self, method: str, *answers: bytes | Refused | None) -> None:
        """Append answers; the last one is repeated."""
        self._answers.setdefault(method, []).extend(answers)

    def count(self, method: str) -> int:
        return sum(called == method for called, _ in self.calls)

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method.rpartition("/")[2]

        async def serve(request: bytes, context: Any) -> bytes:
            self.calls.append((method, request))
            answers = self._answers[method]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, Refused):
                await context.abort(answer.code, answer.message, answer.trailing_metadata)
            if answer is None:
                await asyncio.Event().wait()
            return answer

        return grpc.unary_unary_rpc_method_handler(serve)


@asynccontextmanager
async def scripted_pubsub() -> AsyncIterator[ScriptedPubSub]:
    script, server = ScriptedPubSub(), grpc.aio.server()
    server.add_generic_rpc_handlers((script,))
    script.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield script
    finally:
        await server.stop(grace=None)
