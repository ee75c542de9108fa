"""What the gateway writes to its log: lines of text, or one JSON object a line.

At info level it holds no text of prompts or answers, no keys, no headers: what is noted about a request is listed here.
"""

import json
import logging
import logging.config
import time
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["text", "json"]


@dataclass
class Facts:
    """What is known of the request that this context works for."""

    request_id: str
    client_request_id: str | None = None
    key_id: str | None = None
    response_id: str | None = None


_facts: ContextVar[Facts | None] = ContextVar("facts", default=None)


def begin(facts: Facts) -> None:
    """From here on, log lines of this task and of those that it starts carry the request's id."""
    _facts.set(facts)


def request_id() -> str | None:
    facts = _facts.get()
    return facts.request_id if facts else None


def note_key(id: str) -> None:
    """Whose request it is: the key's id, never the key."""
    if facts := _facts.get():
        facts.key_id = id


def note_response(id: str) -> None:
    """The answer that the request led to."""
    if facts := _facts.get():
        facts.response_id = id


def configure(format: LogFormat) -> None:
    """All loggers of this process, uvicorn's too (start it with log_config=None), to stderr from info up."""
    # No format of ours names the place in the code, thread or process, and to find them costs more than the line.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    formatter = {"text": TextFormatter, "json": JsonFormatter}[format]
    logging.config.dictConfig({
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"ours": {"()": formatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "ours"}},
        "root": {"level": "INFO", "handlers": ["stderr"]},
        # It would write the engine's URL for each request.
        "loggers": {"httpx": {"level": "WARNING"}},
    })  # fmt: skip


class TextFormatter(logging.Formatter):
    """Time (local), level, logger, message. Thousands of lines may fall into one second, which is spelled out once."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._second, self._spelled = -1, ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        if (second := int(record.created)) != self._second:
            self._spelled = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            self._second = second
        return f"{self._spelled},{int(record.msecs):03d}"


class JsonFormatter(logging.Formatter):
    """time (UTC), level, logger, message; where there are: request_id, exception, and what `extra["access"]` holds."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if id := request_id():
            line["request_id"] = id
        line |= getattr(record, "access", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
