"""Text that looks like a secret: found, masked, refused. Study files, tables and logs are read by many."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from raysweep.errors import StudyError

MASK = "***"

_TOKENS = re.compile(
    r"(?P<aws>\b(?:AKIA|ASIA)[0-9A-Z]{16}\b)"
    r"|(?P<github>\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}))"
    r"|(?P<huggingface>\bhf_[A-Za-z0-9]{30,})"
    r"|(?P<slack>\bxox[abprs]-[A-Za-z0-9-]{10,})"
    r"|(?P<google>\bAIza[0-9A-Za-z_-]{35})"
    r"|(?P<openai>\bsk-[A-Za-z0-9_-]{20,})"
    r"|(?P<jwt>\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,})"
    r"|(?P<private>-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.*?-----END [A-Z ]*PRIVATE KEY-----)?)",
    re.DOTALL,
)
"""Forms that providers give their secrets, by provider."""

_URL = re.compile(r"\b[a-z][a-z0-9+.-]{0,20}://[^\s/:@'\"]{0,200}:(?P<value>[^\s/@'\"]{1,500})@")
"""A password in an address. Lengths are bounded everywhere, so that a long line takes time in proportion."""

_QUERY = re.compile(
    r"[?&](?:sig|signature|X-Amz-Signature|secret_key|access_key|session_token|sas_token|account_key)=(?P<value>[^\s&'\"]+)",
    re.IGNORECASE,
)
"""A secret among the parameters of an address, as signed addresses and Arrow's URIs have them."""

_NAMES = re.compile(
    r"(?P<name>(?:secret|password|passwd|token|api[_-]?key|access[_-]?key|account[_-]?key|credential)"
    r"[A-Za-z0-9_.-]{0,40})[\"']?\s{0,8}[:=]\s{0,8}[\"']?(?P<value>[^\s\"',;{}\[\]]+)",
    re.IGNORECASE,
)
"""The part of a name that promises a secret, and what is assigned to it."""

_LEAST_BITS = 2.8
_SHORTEST = 16


@dataclass(frozen=True)
class Secret:
    """A place in a text that looks like a secret; it does not show the secret."""

    what: str
    begin: int
    end: int


def find_secrets(text: str) -> list[Secret]:
    """Return what looks like a secret in a text, in order, without overlaps."""
    found: list[Secret] = []
    for secret in sorted(_all(text), key=lambda secret: (secret.begin, -secret.end)):
        if not found or secret.begin >= found[-1].end:
            found.append(secret)
    return found


def mask(text: str) -> str:
    """Return a text with what looks like a secret replaced by ***."""
    for secret in reversed(find_secrets(text)):
        text = text[: secret.begin] + MASK + text[secret.end :]
    return text


def refuse_secrets(text: str, where: str) -> None:
    """Accept a text without secrets.

    Raises:
        StudyError: naming line and kind of each, without showing it.
    """
    found = find_secrets(text)
    if found:
        lines = [f"  line {text.count(chr(10), 0, secret.begin) + 1}: {secret.what}" for secret in found]
        raise StudyError(
            f"{where}: holds what looks like a secret:\n" + "\n".join(lines) + "\n"
            "It would be copied into tables, reports and logs. Take it out, revoke it if anyone saw it, and give it to "
            "the process as an environment variable (AWS_ACCESS_KEY_ID, WANDB_API_KEY) or by a role of the machine."
        )


def _all(text: str) -> Iterator[Secret]:
    for match in _TOKENS.finditer(text):
        yield Secret(f"a key ({match.lastgroup})", *match.span())
    for pattern, what in ((_URL, "a password in an address"), (_QUERY, "a signature or key in an address")):
        for match in pattern.finditer(text):
            yield Secret(what, *match.span("value"))
    for match in _NAMES.finditer(text):
        if _is_random(match["value"]):
            yield Secret(f"a value of {match['name']}", *match.span("value"))


def _is_random(value: str) -> bool:
    """Whether a value is long and mixed as secrets are, not a path, a number, a variable or a word."""
    if len(value) < _SHORTEST or value.startswith(("/", "~", "$", ".", "<")) or "://" in value:
        return False
    if sum(bool(re.search(kind, value)) for kind in ("[0-9]", "[a-z]", "[A-Z]")) < 2:
        return False
    shares = [count / len(value) for count in Counter(value).values()]
    return -sum(share * math.log2(share) for share in shares) >= _LEAST_BITS
