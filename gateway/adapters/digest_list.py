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

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from gateway.adapters.columnar import HALVED_DOWN_TO, read_digests
from gateway.adapters.fields import DIGEST_READERS
from gateway.adapters.rows import ReadOptions, line_blocks, refusal
from gateway.columns.drafts import DraftBatch
from gateway.columns.rows import Index, indexes
from gateway.errors import MalformedError
from gateway.model import AdapterReport, EntryDraft, LabelWords

ALGORITHM_BY_DIGITS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}

_FIELD = "digest"
_DROPPED_NAME = "name"
_HASH_SIGN = ord("#")
_ENDS_OF_A_WORD = frozenset({b"", b" ", b"\t", b"\r", b"\v", b"\f"})


def read(source: BinaryIO, report: AdapterReport, _options: ReadOptions) -> Iterator[DraftBatch]:
    """The drafts of a plain digest list; every line that is neither blank nor a comment is a row."""
    for first, block in line_blocks(source):
        lines = block.removesuffix(b"\n").split(b"\n")
        parts: list[tuple[DraftBatch, Index]] = []
        for start, stop, plain in _plain_stretches(lines, 0, len(lines)):
            if plain is not None:
                batch, names = plain
                report.read += batch.n
                report.accepted += batch.n
                if names:
                    report.drop(_DROPPED_NAME, names)
                parts.append((batch, indexes(range(start, stop))))
            else:
                parts.append(_line_by_line(lines, start, stop, first, report))
        yield DraftBatch.merged(parts)


def _line_by_line(
    lines: Sequence[bytes], start: int, stop: int, first: int, report: AdapterReport
) -> tuple[DraftBatch, Index]:
    accepted, drafts = [], []
    for place in range(start, stop):
        row = lines[place].strip()
        if not row or row[0] == _HASH_SIGN:
            continue
        report.read += 1
        try:
            drafts.append(EntryDraft(_digests(row, report)))
        except MalformedError as error:
            report.refuse(first + place, error.place, error.message)
        else:
            report.accepted += 1
            accepted.append(place)
    return DraftBatch.of(drafts), indexes(accepted)


def _plain_stretches(
    lines: Sequence[bytes], start: int, stop: int
) -> Iterator[tuple[int, int, tuple[DraftBatch, int] | None]]:
    """Stretches of lines that read well together, with what they say; None stands for lines to be read one by one."""
    plain = _plain(lines[start:stop])
    if plain is not None or stop - start <= HALVED_DOWN_TO:
        yield start, stop, plain
    else:
        middle = (start + stop) // 2
        yield from _plain_stretches(lines, start, middle)
        yield from _plain_stretches(lines, middle, stop)


def _plain(lines: Sequence[bytes]) -> tuple[DraftBatch, int] | None:
    """The drafts of lines that are digests of one length, with names or without, and how many had one."""
    digits = len(lines[0].split(None, 1)[0]) if lines[0].strip() else 0
    algorithm = ALGORITHM_BY_DIGITS.get(digits)
    if algorithm is None or not {line[digits : digits + 1] for line in lines} <= _ENDS_OF_A_WORD:
        return None
    names = list(map(bytes.strip, (line[digits:] for line in lines)))
    try:
        values = read_digests([line[:digits] for line in lines], algorithm)
    except MalformedError:
        return None
    if any(b"\0" in name for name in names):
        return None
    return DraftBatch.alike(len(lines), {algorithm: values}, [LabelWords()], [0] * len(lines)), sum(map(bool, names))


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
