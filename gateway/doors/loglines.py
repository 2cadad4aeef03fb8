"""Log records as JSON lines that nobody outside can forge, and that hold nothing they should not.

One record is one line of ASCII: `time`, `level`, `logger`, `message`, then the record's own fields.

Rules:

1. What is not printable (controls, line separators, bidirectional overrides, lone surrogates) is written as a visible
   backslash-u escape *inside* the text, so that it stays harmless after a JSON reader has decoded the line.
2. Every text is cut at `MAX_TEXT_CHARS`, every line has at most `MAX_FIELDS` fields.
3. Of an exception only its class and the places in the code are written, never its message: the message of a foreign
   exception may quote what it failed on.
4. Of a record of a foreign logger only the template is written, without its values, for the same reason.

Fields are given as `LOG.info("answered", extra=fields(route="/v1/sets/{set}", status=200))`. A request is named by its
route template, never by its path, which may hold a reference.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime

MAX_TEXT_CHARS = 512  # a sentence and its fields; more is a dump
MAX_FIELDS = 24
MAX_FRAMES = 12  # the innermost calls of an exception
_FIELDS = "gateway_fields"
_OWN = "gateway"

FieldValue = str | int | float | bool | None


def fields(**values: FieldValue) -> dict[str, object]:
    """The `extra` of a log call that carries these fields."""
    return {_FIELDS: values}


def failure(error: BaseException) -> dict[str, FieldValue]:
    """An exception as log fields: its class and where it came from, without its message."""
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    places = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
    cause = error.__cause__
    return {"error": type(error).__name__, "cause": type(cause).__name__ if cause else None, "trace": places}


class JsonLines(logging.Formatter):
    """Formats every record by the rules above."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, FieldValue] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": visible(record.name),
            "message": visible(_message(record)),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line.update({name: _shown(value) for name, value in failure(record.exc_info[1]).items()})
        own = getattr(record, _FIELDS, None)
        if isinstance(own, Mapping):
            for name, value in list(own.items())[:MAX_FIELDS]:
                line.setdefault(visible(str(name)), _shown(value))
        return json.dumps(line, ensure_ascii=True)


def visible(text: str) -> str:
    """The text within its bound, with everything unprintable made visible."""
    cut = text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 1] + "…"
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in cut)


def _message(record: logging.LogRecord) -> str:
    if record.name == _OWN or record.name.startswith(_OWN + "."):
        return record.getMessage()
    return str(record.msg) if not record.args else f"{record.msg} (values left out)"


def _shown(value: object) -> FieldValue:
    return value if value is None or isinstance(value, bool | int | float) else visible(str(value))
