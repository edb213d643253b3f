"""Log lines: text for people, or one JSON object per line for machines. Neither shows a secret."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast, get_args

from raysweep.errors import StudyError, did_you_mean
from raysweep.secrecy import mask

if TYPE_CHECKING:
    _Stream = logging.StreamHandler[TextIO]
else:
    _Stream = logging.StreamHandler

LogFormat = Literal["text", "json"]
VARIABLE = "RAYSWEEP_LOG"
DRIVER = "raysweep.driver"
"""Logger of what the driver does; it prints JSON lines alone, for people there is the display."""
STAGE = "raysweep.stage"
"""Logger of what a stage does; its lines go to the store."""


def log_format() -> LogFormat:
    """Return how this process writes log lines: $RAYSWEEP_LOG, by default text.

    Raises:
        StudyError: if the variable says anything else.
    """
    given = os.environ.get(VARIABLE) or "text"
    allowed = get_args(LogFormat)
    if given in allowed:
        return cast("LogFormat", given)
    raise StudyError(f"{VARIABLE}={mask(given)!r}: allowed: {', '.join(allowed)}.{did_you_mean(given, allowed)}")


def use(format_: LogFormat) -> None:
    """Write log lines in a format from now on, here and in processes that this one starts."""
    os.environ[VARIABLE] = format_
    configure()


def configure() -> None:
    """Send what raysweep logs to the standard error stream, in the format of this process."""
    is_json = log_format() == "json"
    root = logging.getLogger()
    for ours in [handler for handler in root.handlers if isinstance(handler, _Shown)]:
        root.removeHandler(ours)
    handler = _Shown(sys.stderr)
    handler.setFormatter(JsonLines() if is_json else logging.Formatter("%(message)s"))
    root.addHandler(handler)
    logging.getLogger("raysweep").setLevel(logging.INFO)
    logging.getLogger(DRIVER).setLevel(logging.INFO if is_json else logging.CRITICAL)


class _Shown(_Stream):
    """The handler of ``configure``."""


def tell(text: str, **facts: Any) -> None:
    """Write one line for whoever launched: on the standard error stream, or as a JSON line."""
    if log_format() == "json":
        logging.getLogger(DRIVER).info(text, extra={"facts": facts})
    else:
        sys.stderr.write(mask(text) + "\n")


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON.

    Keys: at (ISO 8601, UTC), level, logger, message, host, pid, those of ``context``, those of the record's ``facts``,
    and traceback where there is one.
    """

    def __init__(self, context: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._context = dict(context or {})

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "host": socket.gethostname(),
            "pid": record.process,
            **self._context,
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(_masked(line), default=str)


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {key: _masked(inner) for key, inner in value.items()}
    return [_masked(inner) for inner in value] if isinstance(value, list | tuple) else value
