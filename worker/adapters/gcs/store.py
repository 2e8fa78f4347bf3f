"""Cloud Storage as the worker's object store.

For the operator. Credentials are Google's application default ones. The worker's service account needs:

- `roles/storage.objectViewer` on every input bucket;
- `roles/storage.objectUser` on the output buckets and on the state bucket (read, list, create, overwrite, delete).

No bucket needs versioning, and none may have a retention policy: artefacts and state are overwritten. With
`STORAGE_EMULATOR_HOST` set the same client talks to that server, without credentials.

Every request has a timeout and is retried here and nowhere else: 408, 410 (an upload's session is lost), 429, 5xx and
broken connections, with random exponential waits. Calls run in threads of the store's own, of three kinds: for
downloads, for claims (`for_claims`) and for everything else, so that a heartbeat waits neither behind audio nor behind
checkpoints and artefacts.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import requests.exceptions
import tenacity
import urllib3.exceptions
from google.api_core import exceptions as google_errors
from google.auth import exceptions as auth_errors
from google.cloud.storage import Blob, Client
from google.cloud.storage import exceptions as storage_errors
from requests.adapters import HTTPAdapter

from schemas.uris import GcsUri
from worker.adapters.gcs.partial_file import DamagedDownload, PartialFile
from worker.adapters.retrying import retrying
from worker.errors import InvalidJob, ObjectForbidden, ObjectNotFound, PreconditionFailed, StorageServiceError
from worker.ports import ObjectFacts, ObjectRef

T = TypeVar("T")

SMALL_THREADS = 6
DOWNLOAD_THREADS = 4
CLAIM_THREADS = 4
CONNECTIONS = SMALL_THREADS + DOWNLOAD_THREADS + CLAIM_THREADS
"""Connections that the client's session keeps for one host; its own default is 10."""

TIMEOUT_SECONDS = (5.0, 10.0)
"""To connect, and between two reads of a transfer."""

UPLOAD_CHUNK_BYTES = 16 << 20
"""Memory of a file's upload; the client's own default is 100 MiB."""

PAGE_OBJECTS = 1_000
CLOSE_SECONDS = 1.0

VENDOR_ERRORS = (
    google_errors.GoogleAPICallError,
    auth_errors.GoogleAuthError,
    storage_errors.InvalidResponse,
    storage_errors.DataCorruption,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    ConnectionError,
    DamagedDownload,
)

MOST_REASON_CHARACTERS = 500


@dataclass(frozen=True, kw_only=True)
class Retries:
    """Number and pace of retries; waits are random below a doubling bound."""

    attempts: int = 6
    first_wait_seconds: float = 0.3
    longest_wait_seconds: float = 8.0


@asynccontextmanager
async def open_object_store(*, project: str, retries: Retries | None = None) -> AsyncIterator["GcsObjectStore"]:
    """Open a store for the block. Raises `StorageServiceError` if there are no usable credentials.

    Leaving waits `CLOSE_SECONDS` for requests whose callers were cancelled.
    """
    small = ThreadPoolExecutor(SMALL_THREADS, "gcs")
    downloads = ThreadPoolExecutor(DOWNLOAD_THREADS, "gcs-download")
    claims = ThreadPoolExecutor(CLAIM_THREADS, "gcs-claim")
    client: Client | None = None
    try:
        client = await asyncio.get_running_loop().run_in_executor(small, _client, project)
        yield GcsObjectStore(client, small, downloads, retries or Retries(), claims)
    finally:
        closing = threading.Thread(
            target=_close, args=(client, small, downloads, claims), name="gcs-close", daemon=True
        )
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_SECONDS)


def _close(client: Client | None, *pools: Executor) -> None:
    for pool in pools:
        pool.shutdown(cancel_futures=True)
    if client:
        client.close()


def _client(project: str) -> Client:
    try:
        client = Client(project=project)
    except auth_errors.GoogleAuthError as exc:
        raise StorageServiceError("sign in to", "gs://", str(exc)) from exc
    # A cache for traces: it would look up the bucket behind our back, and again after every 404.
    client._bucket_metadata_cache = None  # noqa: SLF001
    session = client._http  # noqa: SLF001
    # Proxies and CA bundle, which requests would read from the environment for every request, and look for a .netrc: a
    # fifth of a request's processor time.
    settled = session.merge_environment_settings(client.api_endpoint, {}, None, None, None)
    session.proxies, session.verify, session.trust_env = settled["proxies"], settled["verify"], False
    for scheme in ("https://", "http://"):
        if type(session.get_adapter(scheme)) is HTTPAdapter:  # rather than one for mutual TLS
            session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
    return client


class GcsObjectStore:
    """`worker.ports.ObjectStore` on google-cloud-storage; made by `open_object_store`.

    A conditional write is retried after a lost reply too: if the retry meets a failed precondition and the object has
    the bytes of the write, the write was applied.
    """

    def __init__(
        self, client: Client, small: Executor, downloads: Executor, retries: Retries, claims: Executor | None = None
    ) -> None:
        self._client, self._small, self._downloads, self._retries = client, small, downloads, retries
        self._claims = claims or small

    @property
    def for_claims(self) -> "GcsObjectStore":
        """The same buckets through threads that nothing but claims uses."""
        return GcsObjectStore(self._client, self._claims, self._downloads, self._retries, self._claims)

    async def stat(self, ref: ObjectRef, generation: int | None = None) -> ObjectFacts:
        """Return the metadata of the live object, or of the given generation: one request."""
        return await self._retried("describe", ref, lambda: self._stat(ref, generation))

    async def read(self, ref: ObjectRef) -> tuple[bytes, ObjectFacts]:
        """Return the checksum-verified content of a small object and the facts of its generation: two requests."""
        return await self._retried("read", ref, lambda: self._read(ref))

    async def write(
        self, ref: ObjectRef, data: bytes, *, content_type: str, if_generation: int | None = None
    ) -> ObjectFacts:
        """Write `data` with its checksum; above 8 MiB in several requests."""
        attempts = 0

        def put() -> ObjectFacts:
            nonlocal attempts
            attempts += 1
            try:
                return self._put(ref, data, content_type, if_generation)
            except google_errors.PreconditionFailed:
                if attempts == 1 or (applied := self._standing(ref, data)) is None:
                    raise
                return applied

        return await self._retried("write", ref, put, if_generation=if_generation)

    async def upload_file(self, path: Path, ref: ObjectRef, content_type: str) -> ObjectFacts:
        """Upload a file with its checksum in constant memory, replacing the object."""
        return await self._retried("upload", ref, lambda: self._put_file(path, ref, content_type), pool=self._downloads)

    async def delete(self, ref: ObjectRef, *, if_generation: int | None = None) -> None:
        """Delete the object; deleting a missing object is a no-op."""
        with suppress(ObjectNotFound):
            await self._retried("delete", ref, lambda: self._delete(ref, if_generation), if_generation=if_generation)

    async def list(self, bucket: str, prefix: str) -> Sequence[ObjectFacts]:
        """Return every live object whose name starts with `prefix`, sorted by name."""
        return [facts async for page in self.pages(bucket, prefix) for facts in page]

    async def pages(self, bucket: str, prefix: str) -> AsyncIterator[Sequence[ObjectFacts]]:
        """Yield the objects of `list` page by page, in constant memory."""
        token: str | None = ""
        while token is not None:
            call = partial(self._page, bucket, prefix, token)
            found, token = await self._retried("list", ObjectRef(bucket, f"{prefix}*"), call)
            yield found

    async def granted(self, bucket: str, permissions: Sequence[str]) -> frozenset[str] | None:
        """Return those of the IAM permissions that the caller has; None if the server does not support the query."""
        ref = ObjectRef(bucket, "iam")
        with suppress(ObjectNotFound):  # of a development server; of Cloud Storage: no such bucket, as every call says
            return await self._retried("test permissions on", ref, lambda: self._granted(bucket, permissions))
        return None

    def impatient(self) -> "GcsObjectStore":
        """Return the same store with one retry a call: for probes, which are repeated by themselves."""
        return GcsObjectStore(self._client, self._small, self._downloads, Retries(attempts=2))

    async def download(self, facts: ObjectFacts, destination: Path) -> None:
        """Stream that generation to a new file; a broken transfer is resumed."""
        partial = PartialFile(destination, facts)
        with ExitStack() as undo:
            undo.callback(partial.discard)
            await self._retried("download", facts.ref, lambda: self._fetch(partial), pool=self._downloads)
            undo.pop_all()

    async def _retried(
        self,
        operation: str,
        ref: ObjectRef,
        call: Callable[[], T],
        *,
        if_generation: int | None = None,
        pool: Executor | None = None,
    ) -> T:
        _refuse_unsafe(ref)
        attempts = retrying(
            "gcs",
            operation,
            ref.uri,
            is_transient=is_transient,
            stop=tenacity.stop_after_attempt(self._retries.attempts),
            first_wait_seconds=self._retries.first_wait_seconds,
            longest_wait_seconds=self._retries.longest_wait_seconds,
        )
        with translated(operation, ref, if_generation):
            return await attempts(self._in_thread, pool or self._small, call)

    async def _in_thread(self, pool: Executor, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, call)

    # What follows blocks, and runs in a thread.

    def _blob(self, ref: ObjectRef, generation: int | None = None) -> Blob:
        return self._client.bucket(ref.bucket).blob(ref.name, generation=generation)

    def _stat(self, ref: ObjectRef, generation: int | None) -> ObjectFacts:
        blob = self._blob(ref, generation)
        blob.reload(timeout=TIMEOUT_SECONDS, retry=None)
        return _facts(blob)

    def _read(self, ref: ObjectRef) -> tuple[bytes, ObjectFacts]:
        facts = self._stat(ref, None)
        try:
            data = self._blob(ref, facts.generation).download_as_bytes(
                raw_download=True, checksum="crc32c", timeout=TIMEOUT_SECONDS, retry=None
            )
        except google_errors.NotFound as exc:
            raise ConnectionError("the object was replaced between two requests") from exc
        return data, facts

    def _put(self, ref: ObjectRef, data: bytes, content_type: str, if_generation: int | None) -> ObjectFacts:
        blob = self._blob(ref)
        blob.upload_from_string(
            data,
            content_type=content_type,
            if_generation_match=if_generation,
            checksum="crc32c",
            timeout=TIMEOUT_SECONDS,
            retry=None,
        )
        return _facts(blob)

    def _put_file(self, path: Path, ref: ObjectRef, content_type: str) -> ObjectFacts:
        blob = self._blob(ref)
        blob.chunk_size = UPLOAD_CHUNK_BYTES
        blob.upload_from_filename(
            str(path), content_type=content_type, checksum="crc32c", timeout=TIMEOUT_SECONDS, retry=None
        )
        return _facts(blob)

    def _standing(self, ref: ObjectRef, data: bytes) -> ObjectFacts | None:
        try:
            standing, facts = self._read(ref)
        except google_errors.NotFound:
            return None
        return facts if standing == data else None

    def _delete(self, ref: ObjectRef, if_generation: int | None) -> None:
        self._blob(ref).delete(if_generation_match=if_generation, timeout=TIMEOUT_SECONDS, retry=None)

    def _page(self, bucket: str, prefix: str, token: str) -> tuple[Sequence[ObjectFacts], str | None]:
        blobs = self._client.list_blobs(
            bucket, prefix=prefix, page_token=token or None, page_size=PAGE_OBJECTS, timeout=TIMEOUT_SECONDS, retry=None
        )
        with _reading():
            return tuple(map(_facts, next(blobs.pages, ()))), blobs.next_page_token

    def _granted(self, bucket: str, permissions: Sequence[str]) -> frozenset[str]:
        named = self._client.bucket(bucket)
        with _reading():
            return frozenset(named.test_iam_permissions(list(permissions), timeout=TIMEOUT_SECONDS, retry=None))

    def _fetch(self, partial: PartialFile) -> None:
        facts = partial.facts
        with partial.filling() as received:
            if received == facts.size_bytes:  # the last transfer broke behind its last byte, or the object is empty
                return
            self._blob(facts.ref, facts.generation).download_to_file(
                partial,
                start=received or None,
                raw_download=True,
                checksum=None,  # of the whole file, not of one transfer: `PartialFile` sums
                timeout=TIMEOUT_SECONDS,
                retry=None,
            )


def _facts(blob: Blob) -> ObjectFacts:
    with _reading():
        return ObjectFacts(
            ref=ObjectRef(blob.bucket.name, blob.name),
            generation=int(blob.generation),
            size_bytes=int(blob.size),
            crc32c=blob.crc32c,
            created_at=blob.time_created,
        )


@contextmanager
def _reading() -> Iterator[None]:
    """Raise `ConnectionError` for an answer of another server, such as a proxy's."""
    try:
        yield
    except VENDOR_ERRORS:  # some are ValueErrors, too, such as a refusal without credentials to renew
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise ConnectionError("the answer is not one of Cloud Storage") from exc


def _refuse_unsafe(ref: ObjectRef) -> None:
    try:
        GcsUri.parse(ref.uri)
    except ValueError as exc:
        raise InvalidJob((f"{ref.uri}: {exc}",)) from exc


@contextmanager
def translated(operation: str, ref: ObjectRef, if_generation: int | None) -> Iterator[None]:
    """Raise our errors instead of theirs."""
    try:
        yield
    except google_errors.NotFound as exc:
        raise ObjectNotFound(ref.uri, operation) from exc
    except (google_errors.Forbidden, google_errors.Unauthorized) as exc:
        raise ObjectForbidden(operation, ref.uri, exc.message[:MOST_REASON_CHARACTERS]) from exc
    except auth_errors.GoogleAuthError as exc:
        # After a 401 the client renews its credentials; that these are refused too is the same answer.
        if exc.retryable:
            raise StorageServiceError(operation, ref.uri, _described(exc)) from exc
        raise ObjectForbidden(operation, ref.uri, _described(exc)) from exc
    except google_errors.PreconditionFailed as exc:
        raise PreconditionFailed(ref.uri, if_generation) from exc
    except VENDOR_ERRORS as exc:
        raise StorageServiceError(operation, ref.uri, _described(exc)) from exc


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:MOST_REASON_CHARACTERS]


def is_transient(error: BaseException) -> bool:
    """Return True if the same request may succeed a moment later."""
    match error:
        case google_errors.GoogleAPICallError():
            return error.code is None or error.code in {408, 410, 429} or error.code >= 500  # noqa: PLR2004 - HTTP's numbers
        case auth_errors.GoogleAuthError():
            return bool(error.retryable)
        case _:
            return isinstance(error, VENDOR_ERRORS)
