"""Large JSON lists of records, read a record at a time.

Numbers never become floats. The window holds one chunk and at most one record: strict `json` from the standard library
reads one record at a time out of it. (A streaming parser was tried: yajl turns a lone surrogate into `?`, and 6 kB of
opening brackets made its item builder take 91 MB.)

    window.expect("["); for record in records(window): ...
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from gateway.adapters.rows import read_chunk, text_start
from gateway.errors import MalformedError, TooLargeError

# A record may carry a picture's thumbnail, which is dropped, but has to be read over.
MAX_RECORD_CHARS = 4 * 1024 * 1024

_SPACE = re.compile(r"[ \t\n\r]*")
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")  # where a byte that is not UTF-8 stood
_AFTER_VALUE = frozenset(",:]} \t\n\r")


def records(window: Window) -> Iterator[object]:
    """The values of the list in which the window stands, one after the other; `window.record` counts them."""
    if window.peek() == "]":
        window.expect("]")
        return
    while True:
        window.record += 1
        yield window.value()
        if window.expect(",]") == "]":
            return


def member_names(window: Window) -> Iterator[str]:
    """The names of the members of the object in which the window stands; the caller reads each value in between."""
    if window.peek() == "}":
        window.expect("}")
        return
    while True:
        yield window.member_name()
        if window.expect(",}") == "}":
            return


class Doubled(dict[str, object]):
    """An object in which a name stands twice."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else Doubled(members)


def _no_constant(_word: str) -> NoReturn:
    # RFC 8259 section 6: no NaN, no Infinity.
    raise ValueError


def _fraction(_digits: str) -> object:
    # No member that is carried may be one, so what it was is of no interest: it is neither a whole number nor text.
    return _FRACTION


_FRACTION = object()
_decode = json.JSONDecoder(object_pairs_hook=_object, parse_float=_fraction, parse_constant=_no_constant).raw_decode


class Window:
    """The stretch of JSON text at hand. It moves forward only, and grows only until the value at hand is whole."""

    def __init__(self, source: BinaryIO) -> None:
        self.record = 0  # number of the record at hand, 0 before the first
        self._source = source
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text = self._decoder.decode(text_start(read_chunk(source)))
        self._suspect = _has_surrogate(self._text)
        self._start = self._end = 0  # of the value read last; reading goes on at the end
        self._lines_before = 0
        self._is_last = False

    def value(self) -> object:
        """The JSON value that stands next."""
        while True:
            found = _SPACE.match(self._text, self._end)
            self._start = found.end() if found else self._end
            try:
                value, end = _decode(self._text, self._start)
            except json.JSONDecodeError as error:
                # Cut off or broken? As long as there is more to come it may be cut off.
                if not self._grow():
                    raise self.fault("the JSON is broken", error.pos) from error
            except RecursionError as error:
                raise self.fault("the JSON is nested too deep") from error
            except ValueError as error:
                raise self.fault("a number is not one of JSON's, or too long") from error
            else:
                # "1.5" cut after the dot decodes as 1: a value is whole once it is seen to have ended.
                if self._text[end : end + 1] in _AFTER_VALUE or not self._grow():
                    self._end = end
                    return value

    def member_name(self) -> str:
        """The name that stands next, and the colon after it."""
        name = self.value()
        if not isinstance(name, str):
            raise self.fault("the JSON is broken")
        self.expect(":")
        return name

    def expect(self, characters: str) -> str:
        """Step over the next character, which must be one of these."""
        found = self._text[self._end : self._end + 1]
        if not found or found not in characters:
            found = self.peek()
            if not found or found not in characters:
                raise self.fault("the JSON is broken", self._end)
        self._end += 1
        return found

    def peek(self) -> str:
        """The next character that is not space, "" at the end of the file."""
        while True:
            found = _SPACE.match(self._text, self._end)
            self._end = found.end() if found else self._end
            if self._end < len(self._text):
                return self._text[self._end]
            if not self._grow():
                return ""

    def has_bad_byte(self) -> bool:
        """Whether a byte that is not UTF-8 stood in the value read last."""
        return self._suspect and _ESCAPED_BYTE.search(self._text, self._start, self._end) is not None

    def fault(self, message: str, at: int | None = None) -> MalformedError:
        """The error that refuses the file, naming the place."""
        line = self._lines_before + self._text.count("\n", 0, self._start if at is None else at) + 1
        return MalformedError(message, place=f"record {self.record}, line {line}" if self.record else f"line {line}")

    def _grow(self) -> bool:
        """Take in one chunk more and let go of what was read; False at the end of the file."""
        if self._is_last:
            return False
        if len(self._text) - self._end > MAX_RECORD_CHARS:
            fault = self.fault(f"the JSON is broken, or a record is longer than {MAX_RECORD_CHARS} characters")
            raise TooLargeError(fault.message, place=fault.place)
        chunk = read_chunk(self._source)
        self._is_last = not chunk
        self._lines_before += self._text.count("\n", 0, self._end)
        self._text = self._text[self._end :] + self._decoder.decode(chunk, final=self._is_last)
        self._suspect = _has_surrogate(self._text)
        self._start = self._end = 0
        return True


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
