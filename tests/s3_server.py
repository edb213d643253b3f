"""An S3 server on the loopback interface, and a proxy before it that throttles, drops and cuts what it is told to."""

from __future__ import annotations

import http.client
import logging
import threading
import urllib.request
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fault = Literal["throttle", "drop", "cut", "lose"]
"""throttle: 503 SlowDown; drop: no answer; cut: half of the answer's body; lose: done, but the answer is dropped."""

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@contextmanager
def s3_server() -> Iterator[str]:
    """Run moto's server and yield its address; credentials are whatever the environment says."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def new_bucket(server: str) -> str:
    """Create an empty bucket and return its URI, with the server's address."""
    name = f"raysweep-{uuid.uuid4().hex[:12]}"
    with urllib.request.urlopen(urllib.request.Request(f"{server}/{name}", method="PUT")):
        return f"s3://{name}/store?region=us-east-1&endpoint={server}"


@dataclass
class FaultyProxy:
    """Passes requests on to a server, but for the faults that it is given; they are used up in order."""

    server: str
    faults: deque[Fault] = field(default_factory=deque)
    on: str = ""
    """Only requests whose line contains this have faults."""
    always: Fault | None = None
    requests: list[str] = field(default_factory=list)
    """Request lines, without the protocol version."""
    address: str = ""

    def next_fault(self, line: str) -> Fault | None:
        """Note a request and return the fault that it is to have."""
        self.requests.append(line)
        if self.on not in line:
            return None
        return self.always or (self.faults.popleft() if self.faults else None)


@contextmanager
def faulty_proxy(server: str) -> Iterator[FaultyProxy]:
    """Run a proxy before a server."""
    proxy = FaultyProxy(server)

    class Handler(_Handler):
        state = proxy

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    proxy.address = f"http://127.0.0.1:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FaultyProxy

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.state.next_fault(f"{self.command} {self.path}")
        self.close_connection = fault is not None
        if fault == "drop":
            return
        if fault == "throttle":
            self._answer(503, [("Content-Type", "application/xml")], _SLOW_DOWN)
            return
        upstream = http.client.HTTPConnection(self.state.server.removeprefix("http://"), timeout=30)
        upstream.request(self.command, self.path, body, dict(self.headers.items()))
        response = upstream.getresponse()
        data = response.read()
        upstream.close()
        if fault == "lose":
            return
        skipped = {"connection", "transfer-encoding", "date", "server"}
        headers = [(key, value) for key, value in response.getheaders() if key.lower() not in skipped]
        self._answer(response.status, headers, data, data[: len(data) // 2] if fault == "cut" else data)

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, sent: bytes | None = None) -> None:
        self.send_response(status)
        for key, value in headers:
            if key.lower() != "content-length" or self.command == "HEAD":
                self.send_header(key, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if sent is None else sent)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815 - as the library calls them

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""
