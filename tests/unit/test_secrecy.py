"""Text that looks like a secret is found, masked and refused; what only looks a little like one is left alone."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysweep.errors import StudyError
from raysweep.secrecy import MASK, find_secrets, mask, refuse_secrets

KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # the example of Amazon's documentation
SECRETS = {
    "AKIAIOSFODNN7EXAMPLE": "AKIAIOSFODNN7EXAMPLE",
    f"secret_access_key: {KEY}": KEY,
    f"AWS_SECRET_ACCESS_KEY={KEY}": KEY,
    f'"wandb_api_key": "{"0123456789abcdef" * 2}12345678"': "0123456789abcdef" * 2 + "12345678",
    "s3://user:hunter2@bucket/prefix": "hunter2",
    "https://a.blob.core.windows.net/c?sv=1&sig=Zm9v%3D": "Zm9v%3D",
    "s3://AK:x@b?secret_key=abc&region=eu": "abc",
    "ghp_" + "a1B2" * 9: "ghp_" + "a1B2" * 9,
    "hf_" + "a1B2c" * 7: "hf_" + "a1B2c" * 7,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF123": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF123",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----": "MIIabc",
}
HARMLESS = [
    "token: bos_token",
    "tokens_per_image: 196",
    "image: registry.example.org/raysweep:0.1.0-ray2.60.0",
    "RAY_AUTH_TOKEN_PATH=/home/ray/.ray/auth_token",
    "export RAY_AUTH_TOKEN=$token",
    "file_mounts: {/home/ray/.ray/auth_token: ~/.ray/auth_token}",
    "secretKeyRef: {name: raysweep-s3-credentials, key: token}",
    "digest: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "stage 0123456789abcdef0123456789abcdef",
    "https://proxy.example.org:8080/path?page=2",
    "s3://bucket/prefix?region=eu-central-1",
    "loss: 0.1234567890123456",
]


@pytest.mark.parametrize(("text", "secret"), SECRETS.items())
def test_secret_is_masked_and_the_rest_stays(text, secret):
    masked = mask(f"before {text} after")
    assert secret not in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert MASK in masked


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_is_left_alone(text):
    assert mask(text) == text


@given(st.binary(min_size=20, max_size=40), st.sampled_from(["token", "API_KEY", "my.password", "client-secret"]))
def test_no_part_of_a_random_value_of_a_telling_name_remains(value, name):
    text = value.hex()
    if len(set(text)) < 9 or not set(text) & set("abcdef") or not set(text) & set("0123456789"):
        return  # too regular to be a key
    assert text not in mask(f"{name}: {text}")


def test_random_tokens_are_found():
    assert all(find_secrets(f"auth_token={secrets.token_urlsafe(32).lstrip('-_')}") for _ in range(200))


@pytest.mark.parametrize("part", ["b", "a.", "ab:", "token ", "a://", "secret=x ", "://@:"])
def test_long_lines_take_time_in_proportion(part):
    text = part * 200_000  # with time in the square of the length this would not end
    assert mask(text) == text


def test_masking_twice_changes_nothing():
    for text in SECRETS:
        assert mask(mask(text)) == mask(text)


def test_refusal_names_line_and_kind_and_not_the_secret():
    with pytest.raises(
        StudyError, match=r"study\.yaml.*\n  line 2: a key \(aws\)\n  line 3: a value of api_key"
    ) as caught:
        refuse_secrets(f"study: a\n# AKIAIOSFODNN7EXAMPLE\napi_key: {KEY}\n", "study.yaml")
    assert KEY not in str(caught.value)
    assert "AKIAIO" not in str(caught.value)
