"""A request refused with a gRPC status, as the real service words it."""

from collections.abc import Mapping

import grpc
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status  # type: ignore[import-untyped]


class Refused(Exception):
    """Ends the RPC with that status. `ack_id_errors` goes to the client as the ErrorInfo of exactly-once delivery."""

    def __init__(self, code: grpc.StatusCode, message: str, ack_id_errors: Mapping[str, str] | None = None) -> None:
        self.code, self.message, self.ack_id_errors = code, message, ack_id_errors or {}
        super().__init__(message)

    @property
    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        """The status details as gRPC carries them; empty where there are none."""
        if not self.ack_id_errors:
            return ()
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        status.details.add().Pack(
            error_details_pb2.ErrorInfo(
                reason="EXACTLY_ONCE_ACKID_FAILURE", domain="pubsub.googleapis.com", metadata=self.ack_id_errors
            )
        )
        return tuple(rpc_status.to_status(status).trailing_metadata)


def invalid(message: str) -> Refused:
    """INVALID_ARGUMENT."""
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(resource: str) -> Refused:
    """NOT_FOUND."""
    return Refused(grpc.StatusCode.NOT_FOUND, f"Resource not found (resource={resource}).")


def already_exists(resource: str) -> Refused:
    """ALREADY_EXISTS."""
    return Refused(grpc.StatusCode.ALREADY_EXISTS, f"Resource already exists in the project (resource={resource}).")


def unimplemented(feature: str) -> Refused:
    """UNIMPLEMENTED, for what only the real service does."""
    return Refused(grpc.StatusCode.UNIMPLEMENTED, f"the embedded Pub/Sub server does not do {feature}")


def stale_ack_ids(ack_ids: list[str]) -> Refused:
    """Return an exactly-once subscription's error for ids whose lease has ended."""
    return Refused(
        grpc.StatusCode.INVALID_ARGUMENT,
        "Some acknowledgement ids in the request were invalid. This could be because the acknowledgement ids have "
        "expired or the acknowledgement ids were malformed.",
        dict.fromkeys(ack_ids, "PERMANENT_FAILURE_INVALID_ACK_ID"),
    )
