"""Plain digest lists: one hexadecimal digest a line, with or without a file name after it.

Rules:
- The algorithm follows from the length: 32 digits MD5, 40 SHA-1, 64 SHA-256, 128 SHA-512. A PDQ has 64 digits too:
  a PDQ list does not say what it is, so it must come as `gateway_csv`.
- What `md5sum`, `sha256sum` and Debian's `*.md5sums` write is read: the digest, space, the name. Names are dropped at
  the door, unread, and counted; a backslash before the digest (it says that the name is escaped) goes with them.
- Blank lines and lines that begin with `#` are no rows.

Worked example: `d077f244def8a70e5ea758bd8352fcd8  cat.txt LF` is one draft of 16 bytes MD5, and one dropped "name".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from gateway.adapters.fields import DIGEST_READERS
from gateway.adapters.rows import ReadOptions, line_blocks, refusal
from gateway.errors import MalformedError
from gateway.model import AdapterReport, EntryDraft

ALGORITHM_BY_DIGITS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}

_FIELD = "digest"
_DROPPED_NAME = "name"
_HASH_SIGN = ord("#")


def read(source: BinaryIO, report: AdapterReport, _options: ReadOptions) -> Iterator[EntryDraft]:
    """The drafts of a plain digest list; every line that is neither blank nor a comment is a row."""
    for first, block in line_blocks(source):
        for line, raw in enumerate(block.split(b"\n"), first):
            row = raw.strip()
            if not row or row[0] == _HASH_SIGN:
                continue
            report.read += 1
            try:
                digests = _digests(row, report)
            except MalformedError as error:
                report.refuse(line, error.place, error.message)
            else:
                report.accepted += 1
                yield EntryDraft(digests)


def _digests(row: bytes, report: AdapterReport) -> dict[str, bytes]:
    digits, *name = row.split(None, 1)
    if name:
        report.drop(_DROPPED_NAME)
        digits = digits.removeprefix(b"\\")
        if b"\0" in name[0]:
            raise refusal(_DROPPED_NAME, "has a NUL byte")
    algorithm = ALGORITHM_BY_DIGITS.get(len(digits))
    if algorithm is None:
        raise refusal(_FIELD, "is not 32, 40, 64 or 128 hexadecimal digits long")
    # Latin-1 gives every byte a character; what is no digit is refused by the reader.
    return {algorithm: DIGEST_READERS[algorithm](digits.decode("latin-1"), _FIELD)}
