from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from raysweep.errors import StoreError
from raysweep.store import objects
from raysweep.store.objects import ObjectFiles
from tests.s3_server import FaultyProxy, faulty_proxy, new_bucket

LARGE = os.urandom(2**20) * 11


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have files of some megabytes uploaded and downloaded in several parts: the smallest that S3 takes."""
    monkeypatch.setattr(objects, "_CHUNK", 5 * 2**20)


@pytest.fixture
def proxy(s3: str) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3) as proxy:
        yield proxy


@pytest.fixture
def files(s3: str, proxy: FaultyProxy) -> ObjectFiles:
    """An empty bucket behind the proxy."""
    uri = new_bucket(s3).replace(s3, proxy.address)
    return ObjectFiles(uri, retry_for_s=20)


def count(proxy: FaultyProxy, start: str) -> int:
    return sum(line.startswith(start) for line in proxy.requests)


def test_small_write_is_one_request(files, proxy):
    files.write("ledger/a.json", b"1" * 2**20)
    assert len(proxy.requests) == 1
    assert count(proxy, "PUT") == 1


@pytest.mark.parametrize("fault", ["throttle", "drop", "lose"])
def test_request_that_fails_is_repeated(files, proxy, fault):
    proxy.faults.extend([fault, fault])
    files.write("a", b"1")
    assert count(proxy, "PUT") == 3
    proxy.faults.extend([fault])
    assert files.read("a") == b"1"
    proxy.faults.extend([fault])
    assert list(files.stamps("")) == ["a"]
    proxy.faults.extend([fault])
    assert files.exists("a")
    proxy.faults.extend([fault])
    files.delete("a")
    assert files.read("a") is None


def test_answer_that_breaks_off_is_read_on(files, proxy):
    files.write("large", LARGE)
    proxy.on = "GET"
    proxy.faults.extend(["cut"])
    assert files.read("large") == LARGE


def test_parts_of_an_upload_are_repeated(files, proxy):
    proxy.on = "partNumber"
    proxy.faults.extend(["throttle", "drop"])
    files.write("large", LARGE)
    assert files.read("large") == LARGE


@pytest.mark.parametrize("fault", ["throttle", "drop", "lose"])
def test_claim_whose_answer_is_lost_is_still_ours_and_nobody_elses(files, proxy, fault):
    proxy.faults.extend([fault])
    assert files.create("claim", b"mine")
    assert not files.create("claim", b"theirs")
    assert files.read("claim") == b"mine"


def test_upload_that_fails_half_way_publishes_nothing(s3, proxy):
    files = ObjectFiles(new_bucket(s3).replace(s3, proxy.address), retry_for_s=0.5)
    files.write("large", b"old")
    proxy.on, proxy.always = "partNumber=2", "throttle"
    with pytest.raises(StoreError, match="writing large failed"):
        files.write("large", LARGE)
    proxy.always = None
    assert files.read("large") == b"old"
    assert list(files.stamps("")) == ["large"]
    assert any(line.startswith("DELETE") and "uploadId" in line for line in proxy.requests), "its parts are given up"


@pytest.mark.parametrize("fault", ["throttle", "drop"])
def test_server_that_never_answers_is_given_up_with_what_was_tried(s3, proxy, fault):
    uri = new_bucket(s3).replace(s3, proxy.address)
    files = ObjectFiles(uri, retry_for_s=1)
    proxy.always = fault
    with pytest.raises(
        StoreError, match=r"reading ledger/a\.json failed: .*after \d+ retries.*retry_timeout: 1s"
    ) as told:
        files.read("ledger/a.json")
    assert str(told.value).startswith(f"store {uri.partition('?')[0]}: ")
    assert "only-for-tests" not in str(told.value)
    assert "Debug source" not in str(told.value)
    assert len(proxy.requests) > 2


def test_missing_bucket_is_named(s3):
    with pytest.raises(StoreError, match=r"store s3://nowhere/x: writing a failed: there is no such bucket"):
        ObjectFiles(f"s3://nowhere/x?endpoint={s3}").write("a", b"1")
