"""The page in a real browser: it draws, without an error and without a network."""

import json
import re
import shutil
import subprocess

import pytest

from tests.unit.report.study_pages import page_of, parse, partial_study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=15000", "--enable-logging=stderr", "--window-size=1280,2000",
]  # fmt: skip

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")


def open_in_browser(page: str, folder, *flags: str) -> tuple[str, list[str]]:
    """Return the document after its scripts have run, and what they wrote to the console."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return open_in_browser(page_of(partial_study()), tmp_path_factory.mktemp("browser"))


def test_page_opens_without_a_word_on_the_console(opened):
    assert opened[1] == []


def test_every_plot_draws_its_marks(opened):
    dom = opened[0]
    plots = dict(re.findall(r'<div class="plot[^>]*data-plot="([^"]+)"(.*?)</svg>', dom, re.DOTALL))
    assert len(plots) == dom.count("data-plot=") > 8
    assert f'data-drawn="{len(plots)}"' in dom
    marks = {"score": "line", "length": "line", "curve": "line", "cost": "rect", "heat": "rect", "ranking": "rect",
             "efficiency": "symbol"}  # fmt: skip
    assert {name.split("-")[0] for name in plots} == marks.keys()
    for name, drawing in plots.items():
        group = re.search(
            rf'class="mark-{marks[name.split("-")[0]]} role-mark[^"]*"[^>]*>(.*?)</g>', drawing, re.DOTALL
        )
        assert group is not None, name
        assert "<path" in group[1], name


def asked_of_the_network(page: str, folder) -> list[str]:
    """Return the addresses asked for while a page opens, without what the browser asks on its own account."""
    log = folder / "net.json"
    open_in_browser(page, folder, f"--log-net-log={log}")
    asked = set(re.findall(r'"url":"(https?:[^"]+)"', log.read_text(encoding="utf-8")))
    own = re.compile(r"https?://([\w-]+\.)*(google|googleapis|gstatic|gvt1)\.com/")
    return sorted(url for url in asked if not own.match(url))


def test_nothing_is_asked_of_the_network(tmp_path):
    page = page_of(partial_study())
    assert asked_of_the_network(page, tmp_path) == []
    asking = "<!doctype html><img src='http://127.0.0.1:9/picture.png'>"
    assert asked_of_the_network(asking, tmp_path) == ["http://127.0.0.1:9/picture.png"]


def test_a_phone_shows_the_page_without_scrolling_sideways(tmp_path):
    measure = "document.body.dataset.widths = [document.documentElement.scrollWidth, window.innerWidth].join();"
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page_of(partial_study()))
    start, _, end = page.rpartition("</body>")
    script = f"<script>window.addEventListener('load', () => setTimeout(() => {{ {measure} }}, 3000));</script>"
    dom, _ = open_in_browser(f"{start}{script}</body>{end}", tmp_path, "--window-size=500,900")
    content, window = map(int, re.search(r'data-widths="(\d+),(\d+)"', dom).groups())
    assert content <= window == 500


def test_a_script_in_a_study_is_refused_by_the_policy(tmp_path):
    page = page_of(partial_study()).replace("</footer>", "</footer><script>document.title = 'run'</script>")
    dom, console = open_in_browser(page, tmp_path)
    assert "<title>run</title>" not in dom
    assert any("Content Security Policy" in line for line in console)
    assert parse(page).mismatched == []


def test_tables_sort_and_filter(tmp_path):
    drive = """
      const table = document.getElementById("trials-table");
      const column = (i) => [...table.tBodies[0].rows].filter((r) => !r.hidden).map((r) => r.cells[i].textContent);
      const [score, filter] = [table.tHead.rows[0].cells[4], document.getElementById("trials-filter")];
      const found = {};
      score.querySelector("button").click(); found.up = column(4); found.sorted = score.getAttribute("aria-sort");
      score.querySelector("button").click(); found.down = column(4);
      filter.value = "failed IMAGENET"; filter.dispatchEvent(new Event("input")); found.status = column(1);
      found.count = document.getElementById("trials-count").textContent;
      document.body.dataset.found = JSON.stringify(found);
    """
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page_of(partial_study()))
    # Vega's source holds the same tag as text: the last one is the page's own.
    start, _, end = page.rpartition("</body>")
    dom, console = open_in_browser(f"{start}<script>{{{drive}}}</script></body>{end}", tmp_path)
    assert console == []
    body = next(attributes for tag, attributes in parse(dom).elements if tag == "body")
    found = json.loads(body["data-found"])
    finished = sorted(text for text in found["up"] if text)
    assert len(finished) == 19
    assert found["up"] == [*finished, *[""] * 5]
    assert found["down"] == [*finished[::-1], *[""] * 5]
    assert found["sorted"] == "ascending"
    assert found["status"] == ["failed", "failed"]
    assert found["count"] == "2 of 24"
