"""The page of a study while it runs: over HTTP from this machine, or as a file that is written anew.

The server only reads, answers GET and HEAD of one page, and by default listens on the loopback interface alone.
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from raysweep.errors import StoreError
from raysweep.report.live import fingerprint
from raysweep.store import Store

Build = Callable[[], str]
"""Returns the page as it is now."""


@dataclass
class LivePage:
    """A study's page, built anew when its store has changed.

    ``max_age_s`` is the longest that a page is shown while nothing changes, so that the ages it states stay right.
    """

    store: Store
    study: str
    build: Build
    max_age_s: float = 30.0
    _page: str = ""
    _known: int | None = None
    _built_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def current(self) -> str:
        """Return the page.

        Raises:
            StoreError: if the store does not have the study yet, or cannot be read.
        """
        with self._lock:
            now = fingerprint(self.store, self.study)
            if now != self._known or time.monotonic() - self._built_at > self.max_age_s:
                self._page = self.build()
                self._known, self._built_at = now, time.monotonic()
            return self._page


def make_server(page: LivePage, host: str = "127.0.0.1", port: int = 8000) -> ThreadingHTTPServer:
    """Return a server of one page; ``serve_forever`` runs it.

    Raises:
        StoreError: if the address cannot be listened on.
    """

    class Handler(_Handler):
        live = page

    try:
        return ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise StoreError(f"cannot serve on {host}:{port}: {error}. Give another --host or --port.") from error


class _Handler(BaseHTTPRequestHandler):
    live: LivePage
    server_version = "raysweep"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with the page."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer with the page's headers."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        if self.path.split("?")[0] != "/":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        status = HTTPStatus.OK
        try:
            page = self.live.current()
        except StoreError as error:
            status, page = HTTPStatus.SERVICE_UNAVAILABLE, _waiting(self.live.study, str(error))
        body = page.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal quiet."""


def _waiting(study: str, reason: str) -> str:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="5">'
        f"<title>{html.escape(study)}</title><p>Nothing to show yet: {html.escape(reason)}</p></html>"
    )
