"""Canonical JSON: one way to write a value (RFC 8785), one strict way to read it.

What is hashed or signed is written by `encode`. What comes from outside is read by `parse_json`, the only JSON parser
of the project, so that no two readers can understand one message differently.

Rules, tighter than RFC 8259:

1. UTF-8 without byte order mark; nothing but white space around the one value.
2. No member name twice in an object. Names and texts hold no lone surrogate, also not as an escape.
3. Numbers are integers within ±(2^53 - 1), written without fraction, exponent or "-0". Floats are banned, since
   languages print them differently; so are NaN and Infinity.
4. At most `max_depth` levels of arrays and objects, `max_bytes` bytes.

RFC 8785 orders members by the UTF-16 code units of their names and escapes only what it must:

    >>> encode({"b": [1, None, "é\\n"], "a": True})
    b'{"a":true,"b":[1,null,"\\xc3\\xa9\\\\n"]}'
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import TypeAlias

from gateway.errors import MalformedError, TooLargeError

JsonValue: TypeAlias = "bool | int | str | list[JsonValue] | dict[str, JsonValue] | None"

MAX_INTEGER = 2**53 - 1  # RFC 7493 2.2: what every JSON reader keeps exactly
MAX_DEPTH = 32  # our deepest contract needs 6; the rest is room, not an invitation
MAX_INTEGER_CHARS = 17  # a sign and the 16 digits of MAX_INTEGER

# A whole text with its quotes. Possessive, so that hostile input is walked once and never retried.
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def encode(value: object) -> bytes:
    """The RFC 8785 bytes of a value made of None, bool, int, str, list, tuple and dict.

    Raises:
        MalformedError: a float, an integer beyond ±(2^53 - 1), a name that is no text, a lone surrogate, or more
            than `MAX_DEPTH` levels.
    """
    pieces: list[str] = []
    _write(value, pieces.append, MAX_DEPTH)
    return _utf8("".join(pieces))


def parse_json(raw: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> JsonValue:
    """The value of one JSON text, read under the rules above.

    Raises:
        TooLargeError: more than `max_bytes`.
        MalformedError: any rule broken. The message never repeats what was read.
    """
    if len(raw) > max_bytes:
        raise TooLargeError(f"JSON: more than {max_bytes} bytes")
    if raw.startswith(b"\xef\xbb\xbf"):
        raise MalformedError("JSON: starts with a byte order mark")
    # Before the parser, which would recurse: its own limit is an error of the machine, not of the message.
    _check_depth(raw, max_depth)
    try:
        value: JsonValue = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_members,
            parse_int=_integer,
            parse_float=_no_float,
            parse_constant=_no_float,
        )
    except UnicodeDecodeError as error:
        raise MalformedError("JSON: not UTF-8", place=f"byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise MalformedError("JSON: not well formed", place=f"character {error.pos}") from error
    if _SURROGATE_ESCAPE.search(raw):
        _check_texts(value)
    return value


def parse_canonical(raw: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> JsonValue:
    """The value of `raw`, which must be exactly what `encode` writes for it.

    Raises:
        MalformedError: as `parse_json`, or the bytes are another way to write the value.
    """
    value = parse_json(raw, max_bytes=max_bytes, max_depth=min(max_depth, MAX_DEPTH))
    # The library's own writer is ten times as fast, and says the same of what `parse_json` has let pass, but for names
    # beyond ASCII, which it sorts by code points. Such a name stands in no canonical text that is ASCII alone.
    if (_written(value) if raw.isascii() else encode(value)) != raw:
        raise MalformedError("JSON: not in canonical form")
    return value


def _written(value: JsonValue) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def _write(value: object, put: Callable[[str], None], depth: int) -> None:
    if isinstance(value, str):
        put(encode_basestring(value))
    elif value is None or isinstance(value, bool):
        put({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, int):
        put(_number(value))
    elif not isinstance(value, dict | list | tuple):
        raise MalformedError("canonical JSON: holds neither floats nor foreign types")
    elif depth == 0:
        raise MalformedError(f"canonical JSON: more than {MAX_DEPTH} levels")
    elif isinstance(value, dict):
        _write_object(value, put, depth)
    else:
        put("[")
        for index, item in enumerate(value):
            if index:
                put(",")
            _write(item, put, depth - 1)
        put("]")


def _write_object(value: dict[object, object], put: Callable[[str], None], depth: int) -> None:
    separator = "{"
    for name in sorted(value, key=_utf16):
        put(separator)
        put(encode_basestring(str(name)))
        put(":")
        _write(value[name], put, depth - 1)
        separator = ","
    put("}" if value else "{}")


def _utf16(name: object) -> bytes:
    """RFC 8785 3.2.3: names are sorted as arrays of UTF-16 code units, which big-endian bytes sort alike."""
    if not isinstance(name, str):
        raise MalformedError("canonical JSON: a member name is not text")
    return name.encode("utf-16-be", "surrogatepass")


def _number(value: int) -> str:
    if abs(value) > MAX_INTEGER:
        raise MalformedError("canonical JSON: integer beyond 2^53 - 1")
    return str(int(value))


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MalformedError("canonical JSON: lone surrogate in a text") from error


def _check_depth(raw: bytes, max_depth: int) -> None:
    """Count brackets outside texts. Up to the first syntax error this sees what the parser sees."""
    depth = 0
    for match in _BRACKET.finditer(_TEXT.sub(b"", raw)):
        depth += 1 if match[0] in b"[{" else -1
        if depth > max_depth:
            raise MalformedError(f"JSON: more than {max_depth} levels")


def _members(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedError("JSON: a member name stands twice in one object")
    return members


def _integer(digits: str) -> int:
    # Length first: int() of a million digits takes minutes.
    if len(digits) > MAX_INTEGER_CHARS or digits == "-0":
        raise MalformedError("JSON: number is not an integer within 2^53 - 1")
    value = int(digits)
    if abs(value) > MAX_INTEGER:
        raise MalformedError("JSON: number is not an integer within 2^53 - 1")
    return value


def _no_float(_digits: str) -> int:
    raise MalformedError("JSON: floats, NaN and Infinity are banned")


def _check_texts(value: JsonValue) -> None:
    if isinstance(value, str):
        _utf8(value)
    elif isinstance(value, list):
        for item in value:
            _check_texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            _utf8(name)
            _check_texts(item)
