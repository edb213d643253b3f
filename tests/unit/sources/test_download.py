"""Downloads over a loopback server: continued, checked, and refused where no file comes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from raysweep.errors import WeightsError
from raysweep.sources.download import download

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one file; ``cut_after`` ends each connection early, ``version`` is its ETag."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.version: str | None = '"1"'
        self.cut_after: int | None = None
        self.status: int | None = None
        self.content_type = "application/octet-stream"
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/w.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        if server.status is not None:
            self.send_error(server.status)
            return
        first = 0
        if asked and self.headers.get("If-Range") == server.version:
            first = int(asked.removeprefix("bytes=").rstrip("-"))
            if first >= len(server.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if first else 200)
        rest = server.content[first:]
        self.send_header("Content-Type", server.content_type)
        self.send_header("Content-Length", str(len(rest)))
        if server.version:
            self.send_header("ETag", server.version)
        self.end_headers()
        self.wfile.write(rest[: server.cut_after])

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_file_arrives_whole_and_progress_is_told(server, tmp_path):
    told = []
    download(server.url, tmp_path / "w", sha256=SHA256, size_bytes=len(CONTENT), progress=lambda *x: told.append(x))
    assert (tmp_path / "w").read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


def test_a_cut_connection_is_continued_where_it_ended(server, tmp_path):
    server.cut_after = len(CONTENT) // 3
    download(server.url, tmp_path / "w", sha256=SHA256, pause_s=0)
    assert (tmp_path / "w").read_bytes() == CONTENT
    third = len(CONTENT) // 3
    assert server.ranges == [None, f"bytes={third}-", f"bytes={2 * third}-", f"bytes={3 * third}-"]


def test_a_download_that_gave_up_keeps_its_part_for_the_next_call(server, tmp_path):
    server.cut_after = 1000
    with pytest.raises(WeightsError, match="4000 bytes are kept; the same command continues"):
        download(server.url, tmp_path / "w", pause_s=0)
    server.cut_after = None
    download(server.url, tmp_path / "w", sha256=SHA256)
    assert server.ranges[-1] == "bytes=4000-"
    assert (tmp_path / "w").read_bytes() == CONTENT


def test_a_part_of_another_version_is_not_continued(server, tmp_path):
    server.cut_after = 1000
    with pytest.raises(WeightsError):
        download(server.url, tmp_path / "w", pause_s=0)
    server.cut_after, server.version, server.content = None, '"2"', CONTENT[::-1]
    download(server.url, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("version", [None, 'W/"1"'])
def test_without_a_strong_version_a_download_starts_over(server, tmp_path, version):
    server.version, server.cut_after = version, 1000
    with pytest.raises(WeightsError):
        download(server.url, tmp_path / "w", pause_s=0)
    assert server.ranges == [None] * 4


def test_a_part_that_is_the_whole_file_needs_no_byte_more(server, tmp_path):
    (tmp_path / "w").write_bytes(CONTENT)
    (tmp_path / "w.version").write_text('"1"')
    download(server.url, tmp_path / "w", sha256=SHA256)
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / "w").write_bytes(CONTENT + b"x")
    (tmp_path / "w.version").write_text('"1"')
    download(server.url, tmp_path / "w", sha256=SHA256)
    assert (tmp_path / "w").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("expected", "message"),
    [({"sha256": "0" * 64}, "has SHA-256 .*; 0000"), ({"size_bytes": 5}, "bytes; 5 were expected")],
)
def test_another_file_than_expected_is_refused_and_deleted(server, tmp_path, expected, message):
    with pytest.raises(WeightsError, match=message):
        download(server.url, tmp_path / "w", **expected)
    assert list(tmp_path.iterdir()) == []


def test_a_page_instead_of_a_file_is_explained(server, tmp_path):
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(WeightsError, match=r"answers with a page instead of a file.*weights import FILE"):
        download(server.url, tmp_path / "w")


def test_a_refusal_is_told_at_once_and_an_odd_address_never_opened(server, tmp_path):
    server.status = 404
    with pytest.raises(WeightsError, match="the server answers 404"):
        download(server.url, tmp_path / "w")
    assert len(server.ranges) == 1
    with pytest.raises(WeightsError, match="neither https nor http"):
        download("file:///etc/passwd", tmp_path / "w")
