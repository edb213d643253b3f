"""The processes of a stage that trains on several ranks: started, watched and ended by rank 0.

Rank 0 is the process that the engine runs; the others are its children on the same machine, which meet it in a folder
of their own. They end with it: each holds the other end of a pipe, and a rank that is gone fails the stage.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from raysweep.errors import StageError
from raysweep.stages.failure import Failure, RankError
from raysweep.stages.progress import Beat
from raysweep.stages.ranks import TIMEOUT, RankGroup, connect, device_of

_POLL_S, _LAST_EPOCH_S, _GRACE_S, _LOG_CHARS = 0.1, 120.0, 10.0, 4000


class Team:
    """The ranks of a stage, as rank 0 holds them: a context that ends the others when it is left.

    Args:
        function: what the other ranks run, as ``module:function``; it is called with their ranks and the job.
        job: keyword arguments for it, as JSON can hold them.
        size: ranks, this process included.
        threads: CPU threads of each.
        beat: called while waiting; what it raises ends the wait.
    """

    def __init__(self, function: str, job: Mapping[str, Any], *, size: int, threads: int, beat: Beat) -> None:
        self._function = function
        self._job = job
        self._size = size
        self._threads = threads
        self._beat = beat
        self._others: list[subprocess.Popen[bytes]] = []
        self._group: RankGroup | None = None

    def __enter__(self) -> Team:
        """Start the other ranks and wait until all have met."""
        self._folder = tempfile.TemporaryDirectory(prefix="raysweep-ranks-")
        try:
            self._start()
            self._wait_until_ready()
            self._group = connect(Path(self._folder.name), 0, self._size, device_of(0), TIMEOUT)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the other ranks.

        Raises:
            RankError: if an error here followed from the end of another rank.
        """
        try:
            if isinstance(error, Exception) and not isinstance(error, RankError):
                self._blame(error)
            if error is None:
                self._wait()
        finally:
            self._end()

    @property
    def ranks(self) -> RankGroup:
        """All of them, once they have met."""
        if self._group is None:
            raise RuntimeError("the ranks have not met yet")
        return self._group

    def beat(self) -> object:
        """Give a sign of life, and return what it is answered.

        Raises:
            RankError: if another rank has failed.
        """
        answer = self._beat()
        for rank, other in enumerate(self._others, 1):
            if other.poll():
                raise RankError(rank, self._failure(rank, other))
        return answer

    def _start(self) -> None:
        name = self._folder.name
        Path(name, "job.json").write_text(
            json.dumps({"function": self._function, "job": self._job, "size": self._size}), encoding="utf-8"
        )
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
            "OMP_NUM_THREADS": str(self._threads),
        }
        for rank in range(1, self._size):
            with self._path("log", rank).open("wb") as log:
                self._others.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "raysweep.stages.follower", name, str(rank)],
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env=environment,
                    )
                )

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + TIMEOUT.total_seconds()
        while missing := [rank for rank in range(1, self._size) if not self._path("ready", rank).exists()]:
            self.beat()
            if time.monotonic() > until:
                raise StageError(f"ranks {', '.join(map(str, missing))} have not started within {TIMEOUT}")
            time.sleep(_POLL_S)

    def _path(self, kind: str, rank: int) -> Path:
        return Path(self._folder.name, f"{kind}-{rank}")

    def _watch(self) -> None:
        """Free this process from waiting for a rank that has failed: a GPU would wait for ever."""
        others, group = list(self._others), self.ranks
        while any(other.poll() is None for other in others):
            if any(other.poll() for other in others):
                group.close()
                return
            time.sleep(_POLL_S)

    def _blame(self, error: Exception) -> None:
        """Raise what ended another rank, if that is why there is an error here."""
        until = time.monotonic() + 1.0  # a peer's connection is closed a moment before its process is gone
        while time.monotonic() < until:
            for rank, other in enumerate(self._others, 1):
                if other.poll():
                    raise RankError(rank, self._failure(rank, other)) from error
            time.sleep(_POLL_S)

    def _failure(self, rank: int, other: subprocess.Popen[bytes]) -> Failure:
        path = self._path("failure", rank)
        if path.exists():
            return Failure(**json.loads(path.read_text(encoding="utf-8")))
        how = f"signal {-other.returncode}" if other.returncode < 0 else f"exit code {other.returncode}"
        log = self._path("log", rank).read_text(encoding="utf-8", errors="replace")[-_LOG_CHARS:]
        return Failure(f"its process ended with {how}", "worker", log)

    def _wait(self) -> None:
        for rank, other in enumerate(self._others, 1):
            try:
                other.wait(_LAST_EPOCH_S)
            except subprocess.TimeoutExpired:
                raise StageError(f"rank {rank} trains on after the last epoch of rank 0") from None
            if other.returncode:
                raise RankError(rank, self._failure(rank, other))

    def _end(self) -> None:
        if self._group is not None:
            self._group.close()
        for other in self._others:
            if other.stdin is not None:
                other.stdin.close()  # each ends itself when its pipe does
        for other in self._others:
            try:
                other.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                other.kill()
                other.wait()
        self._folder.cleanup()
