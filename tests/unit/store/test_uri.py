from __future__ import annotations

import pytest

from raysweep.errors import StoreError
from raysweep.store import Store
from raysweep.store.uri import masked, parse

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (f"s3://key:{SECRET}@bucket/prefix", "s3://***@bucket/prefix"),
        (f"s3://{SECRET}@bucket/prefix", "s3://***@bucket/prefix"),
        (f"s3://bucket/p?access_key=a&secret_key={SECRET}", "s3://bucket/p?access_key=***&secret_key=***"),
        (f"az://container/p?region=x&sig={SECRET}", "az://container/p?region=x&sig=***"),
        (f"nonsense://user:{SECRET}@host/p", "nonsense://***@host/p"),
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri, shown):
    assert masked(uri) == shown
    with pytest.raises(StoreError) as told:
        Store(uri)
    assert SECRET not in str(told.value)
    assert shown in str(told.value)
    assert told.value.__cause__ is None


@pytest.mark.parametrize(
    ("uri", "service", "bare"),
    [
        ("s3://bucket", "s3", "s3://bucket"),
        ("s3://bucket/a//b/", "s3", "s3://bucket/a/b"),
        ("gs://bucket/prefix", "gs", "gs://bucket/prefix"),
        ("az://container/prefix", "az", "az://container/prefix"),
        ("abfs://container@account.dfs.core.windows.net/p", "az", "abfs://container@account.dfs.core.windows.net/p"),
    ],
)
def test_services_by_scheme(uri, service, bare):
    found = parse(uri)
    assert (found.service, found.bare) == (service, bare)


def test_endpoint_may_be_given_as_pyarrow_has_it():
    assert parse("s3://b/p?endpoint_override=localhost:9000&scheme=http").endpoint == "http://localhost:9000"
    assert parse("s3://b/p?endpoint=https://minio.example").endpoint == "https://minio.example"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s4://bucket", r"'s4' is no scheme of a store\. Did you mean 's3'\?"),
        ("s3:///prefix", "names no bucket; write s3://bucket/prefix"),
        ("s3://bucket/p?regoin=x", r"has the option 'regoin'\. Did you mean 'region'\?"),
    ],
)
def test_what_is_wrong_with_a_uri_is_said(uri, message):
    with pytest.raises(StoreError, match=message):
        Store(uri)


@pytest.mark.parametrize(
    ("uri", "environment"),
    [
        ("gs://bucket/prefix", {}),
        ("az://container/prefix", {"AZURE_STORAGE_ACCOUNT_NAME": "account", "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0"}),
        ("abfs://container@account.dfs.core.windows.net/p", {"AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0"}),
        ("s3://bucket/prefix", {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}),
    ],
)
def test_every_service_opens(uri, environment, monkeypatch):
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    store = Store(uri)
    assert not store.is_local
    assert (store.uri, store.path_uri("packs/a.h5")) == (uri, f"{uri}/packs/a.h5")
    with pytest.raises(StoreError, match="has no local file"):
        store.local_path("a")


def test_path_of_a_store_with_options_keeps_them():
    store = Store("s3://b/p?region=eu-west-1")
    assert store.uri == "s3://b/p"
    assert store.path_uri("a/b") == "s3://b/p/a/b?region=eu-west-1"


def test_profile_of_the_aws_command_line_is_used(tmp_path, monkeypatch):
    pytest.importorskip("boto3")
    from raysweep.store.objects import _profile_credentials

    (tmp_path / "credentials").write_text(f"[team]\naws_access_key_id = id\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "team")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    assert _profile_credentials()()["secret_access_key"] == SECRET
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "set")
    assert _profile_credentials() is None
