"""Files in an object store: S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage.

Through obstore, not ``pyarrow.fs``: pyarrow completes an upload when its block raises, so that half a file is
published; it has no conditional writes, which the lock needs, and no entity tags, which tell versions apart.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import obstore
import pyarrow.fs as pafs
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore, from_url

from raysweep.errors import StoreError
from raysweep.store import lease
from raysweep.store import uri as uris
from raysweep.store.arrow import ObjectHandler
from raysweep.store.files import Files, FileStamp
from raysweep.store.lease import Lease, LeaseTimes

_Found = TypeVar("_Found")

RETRY_FOR_S = 180.0
"""How long a request is repeated that is throttled, refused or cut off, the pauses growing at random up to 15 s."""
_MAX_RETRIES = 30
_CHUNK = 16 * 2**20


class ObjectFiles(Files):
    """Objects below a prefix of a bucket."""

    def __init__(self, uri: str, *, retry_for_s: float = RETRY_FOR_S, lease_times: LeaseTimes | None = None) -> None:
        self._parsed = uris.parse(uri)
        self.uri = self._parsed.bare
        self.absolute_uri = uri
        self._lease_times = lease_times or lease.TIMES
        self._objects = open_objects(self._parsed, retry_for_s)
        self.filesystem = pafs.PyFileSystem(ObjectHandler(self._objects, self.uri, self._get_stamps))

    def read(self, path: str) -> bytes | None:
        """Return an object's bytes, or None if there is no such object."""

        def get() -> bytes | None:
            try:
                return bytes(obstore.get(self._objects, path).bytes())
            except FileNotFoundError:
                return None

        return self._asked(f"reading {path}", get)

    def write(self, path: str, data: bytes) -> None:
        """Publish an object, replacing any older version: in one request, or in parts that appear together."""
        self._asked(f"writing {path}", lambda: obstore.put(self._objects, path, data, chunk_size=_CHUNK))

    def create(self, path: str, data: bytes) -> bool:
        """Publish an object unless it is there; return whether it was published."""

        def put() -> bool:
            try:
                obstore.put(self._objects, path, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return bool(self.read(path) == data)  # a repeated request may meet what the first one wrote
            return True

        return self._asked(f"creating {path}", put)

    @contextmanager
    def writer(self, path: str) -> Iterator[Path]:
        """Yield a temporary file that is uploaded to ``path`` when the block ends without an error."""
        with tempfile.TemporaryDirectory(prefix="raysweep-upload-") as folder:
            temporary = Path(folder) / path.rsplit("/", 1)[-1]
            yield temporary
            self.upload(path, temporary)

    def upload(self, path: str, file: Path) -> None:
        """Publish a copy of a local file: in one request, or in parts that appear together."""
        self._asked(f"writing {path}", lambda: obstore.put(self._objects, path, file, chunk_size=_CHUNK))

    def delete(self, path: str) -> None:
        """Delete an object if it is there."""

        def remove() -> None:
            try:
                obstore.delete(self._objects, path)
            except FileNotFoundError:  # S3 does not say so, others do
                return

        self._asked(f"deleting {path}", remove)

    def exists(self, path: str) -> bool:
        """Whether an object is there."""
        return self.stamp(path) is not None

    def stamp(self, path: str) -> FileStamp | None:
        """Return the stamp of one object, or None if there is no such object."""

        def head() -> FileStamp | None:
            try:
                return _stamp(obstore.head(self._objects, path))
            except FileNotFoundError:
                return None

        return self._asked(f"reading {path}", head)

    def stamps(self, folder: str) -> dict[str, FileStamp]:
        """Return the objects below a prefix with their stamps, sorted by path."""
        return self._asked(f"listing {folder}", lambda: self._get_stamps(folder))

    def _get_stamps(self, folder: str) -> dict[str, FileStamp]:
        pages = obstore.list(self._objects, folder or None, chunk_size=1000)
        return dict(sorted((found["path"], _stamp(found)) for page in pages for found in page))

    def full_path(self, path: str) -> str:
        """Return a path as ``filesystem`` takes it."""
        return path

    @contextmanager
    def locked(self, path: str, busy: str) -> Iterator[None]:
        """Hold a lease, which runs out when its holder does not renew it."""
        with Lease(self, path, busy, self._lease_times):
            yield

    def clear_leftovers(self) -> None:
        """Do nothing: an upload that was cut off left no object. A bucket's lifecycle rule removes its parts."""

    def download(self, path: str, write: Callable[[bytes], object]) -> None:
        """Write an object piece by piece.

        Raises:
            FileNotFoundError: if there is no such object.
            StoreError: if it cannot be read.
        """

        def copy() -> None:
            for part in obstore.get(self._objects, path).stream(min_chunk_size=_CHUNK):
                write(bytes(part))

        self._asked(f"reading {path}", copy)

    def _asked(self, what: str, ask: Callable[[], _Found]) -> _Found:
        try:
            return ask()
        except BaseError as error:
            raise StoreError(f"store {self.uri}: {what} failed: {_reason(error)}.{_advice(error)}") from None
        except FileNotFoundError as error:
            if what.startswith("reading"):
                raise
            raise StoreError(
                f"store {self.uri}: {what} failed: there is no such bucket or container ({_reason(error)})"
            ) from None


def open_objects(parsed: uris.ObjectUri, retry_for_s: float) -> ObjectStore:
    """Open an object store; credentials come from the environment, a profile, or the machine's role.

    Raises:
        StoreError: if the environment does not say enough.
    """
    endpoint = parsed.endpoint
    addresses = [endpoint or "", *(os.environ.get(name, "") for name in _ENDPOINTS)]
    options: dict[str, Any] = {
        "retry_config": {
            "max_retries": _MAX_RETRIES,
            "retry_timeout": timedelta(seconds=retry_for_s),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=15),
                "base": 2,
            },
        },
        "client_options": {
            "connect_timeout": "10s",
            "read_timeout": "60s",
            "timeout": "30m",
            "allow_http": any(address.startswith("http://") for address in addresses),
        },
    }
    if endpoint is not None:
        options["endpoint"] = endpoint
    if (region := parsed.options.get("region")) is not None:
        options["region"] = region
    if parsed.service == "s3" and (provider := _profile_credentials()) is not None:
        options["credential_provider"] = provider
    try:
        return from_url(parsed.bare, **options)
    except (BaseError, ValueError, TypeError, OSError) as error:
        raise StoreError(f"store {uris.masked(parsed.uri)} cannot be opened: {_reason(error)}") from None


_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "GOOGLE_BASE_URL", "AZURE_STORAGE_ENDPOINT")
_KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def _profile_credentials() -> Any:
    """Return a provider for a profile of the AWS command line: if there is one, boto3 is there, and no key is set."""
    files = [
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"),
    ]
    has_profile = any(Path(file).expanduser().is_file() for file in files)
    if any(os.environ.get(key) for key in _KEYS) or not has_profile:
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return None
    try:
        return Boto3CredentialProvider()
    except ValueError:  # the profile names no credentials
        return None


def _stamp(found: Any) -> FileStamp:
    changed: datetime = found["last_modified"]
    return FileStamp(int(found["size"]), int(changed.timestamp() * 1e9), str(found["e_tag"] or found["version"] or ""))


def _reason(error: BaseException) -> str:
    """Return what an error says without the dump of its sources."""
    return str(error).partition("\n\nDebug source")[0].strip()


def _advice(error: BaseException) -> str:
    text = str(error)
    if "169.254.169.254" in text or "metadata.google.internal" in text:
        return (
            " There are no credentials: neither the environment nor the machine's role gives any. Set them (AWS: "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; profiles need `pip install boto3`)."
        )
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError"):
        return " Reading, writing, listing and deleting objects below the prefix must be allowed."
    return ""
