"""The page while a study runs: served read-only, or written anew."""

import http.client
import threading
from contextlib import contextmanager

import pytest

from raysweep.errors import StoreError
from raysweep.report.files import live_page
from raysweep.report.serve import LivePage, make_server
from raysweep.report.watch import watch
from raysweep.results.write import write_part
from raysweep.study.load import validate_study
from tests.simulate import simulated_study, write_to
from tests.studies import study_document

STUDY = validate_study(study_document("cardiac.h5", "leaves.h5") | {"study": "simulated"})


def study_tables(pending=lambda cell: False):
    return simulated_study(sources={"random": False}, annotations=(8,), seeds=(0, 1), epochs=2, num_subjects=3,
                           pending=pending)  # fmt: skip


@contextmanager
def served(store):
    page = LivePage(store, STUDY.study, lambda: live_page(STUDY, store, 5))
    with make_server(page, port=0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address
        finally:
            server.shutdown()
            thread.join()


def ask(address, method="GET", path="/"):
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), dict(answer.getheaders())


def test_the_page_follows_the_store_and_the_store_is_left_alone(tiny_store):
    with served(tiny_store) as address:
        status, body, _ = ask(address)
        assert (status, "has no study" in body, 'http-equiv="refresh"' in body) == (503, True, True)
        write_to(tiny_store, study_tables(pending=lambda cell: cell["seed"] == 1), examples=False)
        before = {path: tiny_store.read_bytes(path) for path in tiny_store.list("")}
        status, body, headers = ask(address)
        assert (status, "1 of 2 cells have not run" in body) == (200, True)
        assert headers["Cache-Control"] == "no-store"
        assert {path: tiny_store.read_bytes(path) for path in tiny_store.list("")} == before
        write_to(tiny_store, study_tables(), examples=False)
        assert "cells have not run" not in ask(address)[1]


def test_it_listens_on_this_machine_alone_and_answers_nothing_else(tiny_store):
    write_to(tiny_store, study_tables(), examples=False)
    with served(tiny_store) as address:
        assert address[0] == "127.0.0.1"
        assert ask(address, path="/store.json")[0] == 404
        assert ask(address, path="/../store.json")[0] == 404
        assert [ask(address, method)[0] for method in ("POST", "PUT", "DELETE")] == [501] * 3
        status, body, headers = ask(address, "HEAD")
        assert (status, body) == (200, "")
        assert int(headers["Content-Length"]) > 100_000


def test_the_page_is_built_once_until_something_changes(tiny_store):
    built = []
    page = LivePage(tiny_store, "simulated", lambda: built.append(1) or "page", max_age_s=60)
    assert [page.current(), page.current()] == ["page", "page"]
    assert len(built) == 1
    write_part(tiny_store, "stages", "a", [{"stage": "a"}])
    page.current()
    assert len(built) == 2


def test_an_address_in_use_is_refused_with_the_remedy(tiny_store):
    with served(tiny_store) as address, pytest.raises(StoreError, match=r"cannot serve on .*Give another"):
        make_server(LivePage(tiny_store, "s", str), port=address[1])


def test_watching_writes_the_page_until_the_study_has_ended(tiny_store, tmp_path):
    looks = []

    def sleep(seconds):
        looks.append((tmp_path / "index.html").exists())
        if len(looks) == 1:
            write_to(tiny_store, study_tables(pending=lambda cell: cell["seed"] == 1), examples=False)
        if len(looks) == 3:
            write_to(tiny_store, study_tables(), examples=False)

    made = list(watch(STUDY, tiny_store, tmp_path, 9, sleep))
    assert looks == [False, True, True]
    assert made[:-1] == [None, None, None]
    page = (tmp_path / "index.html").read_text()
    assert made[-1].page == str(tmp_path / "index.html")
    assert 'http-equiv="refresh"' not in page
    assert "cells have not run" not in page
