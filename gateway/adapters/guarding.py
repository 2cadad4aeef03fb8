"""Texts that a spreadsheet would run as a formula, written so that it does not, and read back as they were.

A cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return is run by spreadsheets, also behind spaces and
quotes, and some run the wide forms of these signs. A file that is opened with another separator than it was written
with has cells that begin in the middle of ours. So wherever such a sign could begin a cell, all of them in the text,
and every `%`, are written as `%` and two hexadecimal digits for each octet of UTF-8 (as RFC 3986 2.1 does).

    guarded('=HYPERLINK("x")')   == '%3DHYPERLINK("x")'
    unguarded('%3DHYPERLINK("x")') == '=HYPERLINK("x")'

An apostrophe in front, which is common, does not help behind a separator, and cannot be told from one of the text.
"""

from __future__ import annotations

import re

from gateway.adapters.rows import refusal

SIGNS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # the last four are the wide forms
# Behind whatever may end a cell in any spreadsheet's settings, and spaces or quotes.
_RISKY = re.compile(rf"(?:^|[,;|:\t\r\n])[\s\"'\u201c\u201d\u2018\u2019]*[{re.escape(SIGNS)}]")
_WRITTEN_OTHERWISE = re.compile(f"[{re.escape(SIGNS)}%]")
_OCTET = re.compile(rb"%([0-9A-F]{2})")
_STRAY = re.compile(r"%(?![0-9A-F]{2})")


def is_risky(text: str) -> bool:
    """Whether a spreadsheet might run a part of the text."""
    return _RISKY.search(text) is not None


def guarded(text: str) -> str:
    """The text so that no spreadsheet runs any of it."""
    return _WRITTEN_OTHERWISE.sub(lambda found: "".join(f"%{octet:02X}" for octet in found[0].encode()), text)


def unguarded(text: str, field: str) -> str:
    """What `guarded` was given.

    Raises:
        MalformedError: it did not write this; the place is the field.
    """
    if _STRAY.search(text):
        raise refusal(field, "is not written as a guarded text")
    raw = _OCTET.sub(lambda found: bytes([int(found[1], 16)]), text.encode("utf-8", "surrogatepass"))
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise refusal(field, "is not UTF-8 behind its guard") from error
