"""The page of a large study: building it, its size, and opening it in a browser."""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from raysweep.report import StudyFacts, build_report
from raysweep.report.findings import find
from tests.benchmarks.measurement import Measurement
from tests.simulate import simulated_examples, simulated_study

DESCRIPTION = "The report of a study of 5,000 trials: computing, size, and time to draw everything in Chromium."

_TELL = """
<script>
const waited = setInterval(() => {
  if (document.documentElement.dataset.drawn) {
    clearInterval(waited);
    const painted = performance.getEntriesByName("first-contentful-paint")[0];
    fetch(`/drawn?${performance.now()}&${painted ? painted.startTime : 0}`);
  }
}, 5);
</script>
"""
_EMPTY = "<!doctype html><html data-drawn='0'><body></body></html>"
_PATIENCE_S = 90


def run(quick: bool = False) -> Measurement:
    """Build and open the page of a small and of a large study."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    rows = [_measure(num_seeds, chromium) for num_seeds in ((2,) if quick else (3, 28))]
    last = rows[-1]
    return Measurement(
        rows,
        f"The page of {last['trials']:,} trials is {last['page MB']:.1f} MB. Chromium shows it after "
        f"{last['first paint, s']:.1f} s and has drawn all its {last['plots']} plots and the table after "
        f"{last['drawn, s']:.1f} s at the load below; that takes it {last['drawn, CPU s']:.1f} CPU seconds.",
        {
            "study": "6 sources, 3 of them with 4 lengths, 12 annotation counts, 40 epochs, 10 test subjects",
            "drawn": "from the start of navigation until every plot is drawn; headless, no GPU; median of 3; the CPU "
            "seconds are those of all the browser's processes less those for an empty page",
            "other load": f"load average {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores",
        },
    )


def _measure(num_seeds: int, chromium: str | None) -> dict[str, object]:
    sources = {
        "random": False, "imagenet-supervised": False, "imagenet-byol": False, "specialist": True,
        "hierarchical-supervised": True, "hierarchical-byol": True,
    }  # fmt: skip
    tables = simulated_study(
        sources=sources, pretrain_epochs=(1, 5, 25, 400), annotations=(1, 2, 3, 5, 7, 15, 30, 75, 150, 300, 749, 1498),
        seeds=range(num_seeds), epochs=40, slices_per_subject=2,
    )  # fmt: skip
    begin = time.process_time()
    find(tables)
    find_s = time.process_time() - begin
    begin = time.process_time()
    page = build_report(tables, lambda stage: simulated_examples(tables, stage), StudyFacts("large"))
    build_s = time.process_time() - begin
    opened = sorted(_open(page, chromium) for _ in range(3))[1] if chromium else (float("nan"),) * 3
    empty = _open(_EMPTY, chromium)[2] if chromium else float("nan")
    return {
        "trials": tables.cells.num_rows,
        "page MB": len(page.encode()) / 1e6,
        "plots": page.count("data-plot="),
        "analysis, CPU s": find_s,
        "page, CPU s": build_s,
        "first paint, s": opened[1],
        "drawn, s": opened[0],
        "drawn, CPU s": opened[2] - empty,
    }


def _open(page: str, chromium: str) -> tuple[float, float, float]:
    """Return the seconds from the start of navigation until everything is drawn, and until the first paint.

    The third value is the CPU seconds of the browser, its start included.
    """
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    start, _, end = page.rpartition("</body>")
    body = f"{start}{_TELL}</body>{end}".encode()
    told: queue.Queue[str] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/drawn"):
                told.put(self.path.partition("?")[2])
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(body if self.path == "/" else b"")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with tempfile.TemporaryDirectory() as folder, ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        browser = subprocess.Popen(
            [chromium, *flags, f"--user-data-dir={folder}", "--remote-debugging-port=0", address],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            drawn_ms, paint_ms = map(float, told.get(timeout=_PATIENCE_S).split("&"))
            cpu_s = _session_cpu_s(browser.pid)
        finally:
            browser.terminate()
            browser.wait()
            server.shutdown()
    return drawn_ms / 1000, paint_ms / 1000, cpu_s


def _session_cpu_s(session: int) -> float:
    """Return the CPU seconds of all running processes of a session."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
