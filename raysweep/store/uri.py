"""Roots as users write them: folders, and URIs of object stores. They carry no credentials."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from raysweep.errors import StoreError, did_you_mean

SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "azure", "adl", "abfs", "abfss")
"""Schemes of object stores."""
OPTIONS = ("region", "endpoint", "endpoint_override", "scheme")
"""What the query of a URI may say; anything else, keys and tokens above all, belongs into the environment."""
_CREDENTIALS = (
    "Give them by the usual environment instead (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_KEY, or the machine's role): a URI stands in process lists, "
    "logs and shell histories"
)


@dataclass(frozen=True)
class ObjectUri:
    """The root of an object store, or one object."""

    uri: str
    """As it was given."""
    bare: str
    """Without its query: ``s3://bucket/prefix``."""
    options: dict[str, str] = field(default_factory=dict)

    @property
    def service(self) -> str:
        """s3, gs or az."""
        scheme = self.bare.partition(":")[0]
        return {"s": "s3", "g": "gs", "a": "az"}[scheme[0]]

    @property
    def endpoint(self) -> str | None:
        """The server's address, where the URI says it."""
        found = self.options.get("endpoint") or self.options.get("endpoint_override")
        if found is not None and "://" not in found:
            found = f"{self.options.get('scheme', 'https')}://{found}"
        return found


def is_remote(uri: str) -> bool:
    """Whether a path is a URI of an object store."""
    return "://" in uri and not uri.startswith("file://")


def local_root(uri: str) -> Path:
    """Return the folder or file that a path or a file URI names, absolute."""
    path = unquote(urlsplit(uri).path) if uri.startswith("file://") else uri
    return Path(path).expanduser().absolute()


def parse(uri: str) -> ObjectUri:
    """Take a URI apart.

    Raises:
        StoreError: if its scheme or an option is unknown, the bucket is missing, or it carries credentials.
    """
    parts = urlsplit(uri)
    shown = masked(uri)
    if parts.scheme not in SCHEMES:
        raise StoreError(
            f"store {shown!r} cannot be opened: {parts.scheme!r} is no scheme of a store."
            f"{did_you_mean(parts.scheme, SCHEMES)} Allowed: a folder, or a URI with one of the schemes file, s3, gs, "
            "az, abfs."
        )
    if parts.password is not None or (parts.username is not None and not parts.scheme.startswith("abfs")):
        raise StoreError(f"store {shown!r} carries credentials. {_CREDENTIALS}.")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(options.keys() - {*OPTIONS}):
        raise StoreError(
            f"store {shown!r} has the option {unknown[0]!r}.{did_you_mean(unknown[0], OPTIONS)} Allowed: "
            f"{', '.join(OPTIONS)}; no credentials. {_CREDENTIALS}."
        )
    if not parts.netloc:
        raise StoreError(f"store {shown!r} names no bucket; write {parts.scheme}://bucket/prefix")
    path = "/".join(part for part in parts.path.split("/") if part)
    return ObjectUri(uri, f"{parts.scheme}://{parts.netloc}/{path}".rstrip("/"), options)


def masked(uri: str) -> str:
    """Return a URI without what may be secret: user and password, and the values of unknown options."""
    if "://" not in uri:
        return uri
    scheme, _, rest = uri.partition("://")
    rest, _, query = rest.partition("?")
    host, slash, path = rest.partition("/")
    user, at, host = host.rpartition("@")
    if at and (":" in user or not scheme.startswith("abfs")):
        user = "***"
    shown = [key if "=" not in key else _shown(key) for key in query.split("&")] if query else []
    return f"{scheme}://{user}{at}{host}{slash}{path}" + (f"?{'&'.join(shown)}" if shown else "")


def _shown(option: str) -> str:
    key, _, value = option.partition("=")
    return f"{key}={value if key in OPTIONS else '***'}"
