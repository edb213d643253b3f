"""An Azure Blob Storage server on the loopback interface: Azurite, where it is installed (``npm install azurite``)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

PROGRAM = "azurite-blob"
ACCOUNT, KEY = "raysweep", base64.b64encode(b"only-for-tests").decode()
_VERSION = "2021-08-06"


def is_installed() -> bool:
    """Whether the server's program is on the PATH."""
    return shutil.which(PROGRAM) is not None


@contextmanager
def azure_server(folder: Path) -> Iterator[str]:
    """Run Azurite with an account for tests, its files in a folder, and yield the account's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [PROGRAM, "--silent", "--skipApiVersionCheck", "--disableTelemetry", "--location", str(folder)]
    process = subprocess.Popen(
        [*command, "--blobHost", "127.0.0.1", "--blobPort", str(port)],
        env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"},
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}/{ACCOUNT}"
    finally:
        process.terminate()
        process.wait()


def new_container(server: str) -> str:
    """Create an empty container and return its URI, with the server's address."""
    name = f"raysweep-{uuid.uuid4().hex[:12]}"
    date = formatdate(usegmt=True)
    # Shared key: the verb, eleven empty headers, those of Azure, and the account's path, which holds it twice here.
    canonical = f"x-ms-date:{date}\nx-ms-version:{_VERSION}\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    signature = hmac.new(base64.b64decode(KEY), ("PUT" + "\n" * 12 + canonical).encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": _VERSION,
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}",
        "Content-Length": "0",
    }
    request = urllib.request.Request(f"{server}/{name}?restype=container", method="PUT", headers=headers)
    with urllib.request.urlopen(request):
        return f"az://{name}/store?endpoint={server}"


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{PROGRAM} does not listen on port {port}")
