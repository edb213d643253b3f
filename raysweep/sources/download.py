"""Downloading one file: continued where it was cut off, checked against what is known of it, and no page for a file."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path

from raysweep.errors import WeightsError

Progress = Callable[[int, int | None], None]
"""Called with bytes there and bytes in all, where the server says how many."""

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 60.0
_ATTEMPTS = 4


def download(
    url: str,
    partial: Path,
    *,
    sha256: str | None = None,
    size_bytes: int | None = None,
    progress: Progress | None = None,
    pause_s: float = 2.0,
) -> None:
    """Download a file to ``partial``, continuing what an earlier call left there.

    A part is continued only if the server still has the same version of the file, by its ETag or date.

    Args:
        url: where from.
        partial: where to; the caller moves it to its place.
        sha256: checksum in hexadecimal, where known.
        size_bytes: size, where known.
        progress: told how far it is.
        pause_s: seconds before the second attempt; doubled before each further one.

    Raises:
        WeightsError: if the server refuses, sends a page instead of a file, or the file is not the expected one.
    """
    if not url.startswith(("https://", "http://")):
        raise WeightsError(f"{url} is neither https nor http")
    partial.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _continue(url, partial, progress)
            break
        except urllib.error.HTTPError as error:
            raise WeightsError(
                f"{url} could not be downloaded: the server answers {error.code} {error.reason}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            if attempt == _ATTEMPTS:
                there = partial.stat().st_size if partial.exists() else 0
                raise WeightsError(
                    f"{url} could not be downloaded: {error}. {there} bytes are kept; the same command continues."
                ) from error
            time.sleep(pause_s * 2 ** (attempt - 1))
    _verify(url, partial, sha256, size_bytes)


def _continue(url: str, partial: Path, progress: Progress | None) -> None:
    """Get what is missing of a file, or all of it if the server has another version by now."""
    version_file = partial.with_name(f"{partial.name}.version")
    there = partial.stat().st_size if partial.exists() and version_file.exists() else 0
    headers = {"User-Agent": "raysweep", "Accept-Encoding": "identity"}
    if there:
        headers |= {"Range": f"bytes={there}-", "If-Range": version_file.read_text(encoding="utf-8")}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        is_whole = error.headers.get("Content-Range", "").endswith(f"/{there}")
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if not is_whole:  # longer than what is published: start over
            partial.unlink()
            _continue(url, partial, progress)
        return
    with response:
        _refuse_page(url, response.headers.get_content_type())
        _note_version(version_file, response.headers)
        _write_rest(response, partial, there if response.status == http.client.PARTIAL_CONTENT else 0, progress)


def _note_version(file: Path, headers: Message) -> None:
    """Keep the version that a part belongs to; without a strong one the part cannot be continued safely."""
    version = headers.get("ETag") or headers.get("Last-Modified") or ""
    if version and not version.startswith("W/"):
        file.write_text(version, encoding="utf-8")
    else:
        file.unlink(missing_ok=True)


def _write_rest(response: http.client.HTTPResponse, partial: Path, there: int, progress: Progress | None) -> None:
    """Write an answer behind the bytes that are there, or as a new file."""
    length = response.headers.get("Content-Length")
    total = there + int(length) if length else None
    with partial.open("ab" if there else "wb") as stream:
        while chunk := response.read(_CHUNK_BYTES):
            stream.write(chunk)
            there += len(chunk)
            if progress is not None:
                progress(there, total)
    if total is not None and there < total:
        raise ConnectionError(f"the connection ended after {there} of {total} bytes")


def _refuse_page(url: str, content_type: str) -> None:
    if content_type == "text/html":
        raise WeightsError(
            f"{url} answers with a page instead of a file: open it in a browser, get the file, and import it: "
            "raysweep weights import FILE --as NAME"
        )


def _verify(url: str, file: Path, sha256: str | None, size_bytes: int | None) -> None:
    """Delete a file that is not the expected one, so that the next call starts over."""
    size = file.stat().st_size
    problem = None
    if size_bytes is not None and size != size_bytes:
        problem = f"has {size} bytes; {size_bytes} were expected"
    elif sha256 is not None and (found := _sha256(file)) != sha256:
        problem = f"has SHA-256 {found}; {sha256} was expected"
    file.with_name(f"{file.name}.version").unlink(missing_ok=True)
    if problem:
        file.unlink()
        raise WeightsError(f"{url} {problem}: the file was damaged on the way, or another one is published there now")


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
