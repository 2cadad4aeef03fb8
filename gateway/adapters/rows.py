"""Bounded reading of lines, CSV rows and the choices a user makes for a file. Every line-based adapter stands on this.

Rules:
- The source is a binary stream that is read once, forwards, in chunks: a pipe serves as well as a file.
- Memory holds one chunk and one record. A line or a quoted CSV record over `MAX_RECORD_BYTES` refuses the file.
- UTF-8, with or without a byte order mark. Lines end in LF or CR LF.
- A row with a bad byte is refused alone; a first line with one refuses the file, for then it is no text at all.
- CSV after RFC 4180 (quotes doubled inside quotes; separators and line ends may stand inside quotes). Broken quoting
  refuses the file: where the next row starts would be a guess.

Worked example, separator `;`: the bytes `EF BB BF "a;b";c CR LF` are one row of two cells, `a;b` and `c`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO, TypeAlias, TypeVar

from gateway.errors import ConfigError, GatewayError, MalformedError, TooLargeError
from gateway.model import AdapterReport, require

T = TypeVar("T")
CsvRow: TypeAlias = "tuple[int, list[str], str]"  # its first line, its cells, and what is wrong with its bytes, if so

CHUNK_BYTES = 256 * 1024  # large enough that the cost per chunk vanishes, small beside the program itself
CHUNK_ROWS = 256  # looked at together: so few that their cells are still in the processor's cache
PLAIN_CHARS = 64 * 1024  # the same for lines that are cut into columns at once
MAX_RECORD_BYTES = 1024 * 1024  # one line or CSV record; the longest honest one is a vPDQ of a few hours of video
MAX_DROPPED_NAMES = 64  # distinct names counted one by one: names come from the file, so their number is its choice
OTHER_NAMES = "(other)"
WHOLE_ROW = "row"  # stands in a refused row for the field, where no single field is at fault
NO_DIGEST = "has no digest"

UTF8_BOM = b"\xef\xbb\xbf"
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
# A name that may be shown: a word, and shorter than the shortest digest, so that a value in its place never shows.
_SHOWABLE_NAME = re.compile(r"[A-Za-z@][A-Za-z0-9@_. -]{0,30}")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the user says where the file does not.

    `category_scheme` names the scheme of bare category numbers; a scheme that the file names itself wins.
    """

    category_scheme: str = ""

    def __post_init__(self) -> None:
        fits = re.fullmatch(r"[A-Za-z0-9._-]{0,32}", self.category_scheme)
        require(fits, "category_scheme is not 1 to 32 letters, digits, dots, dashes and underscores")


@dataclass(frozen=True, slots=True)
class CsvColumns:
    """Rows of one line each, the first of them line `line`, by the column."""

    line: int
    columns: Sequence[Sequence[str]]


def read_chunk(source: BinaryIO) -> bytes:
    """The next `CHUNK_BYTES` of the source, less only at its end: raw pipes give what they have, so ask again."""
    pieces = []
    missing = CHUNK_BYTES
    while missing:
        piece: bytes | None = source.read(missing)
        if piece is None:
            raise ConfigError("the source does not wait for its data", remedy="open it in blocking mode")
        if not piece:
            break
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def line_blocks(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines with the number of their first line; the byte order mark is taken off.

    Raises:
        MalformedError: UTF-16, or a NUL byte in the first line.
        TooLargeError: a line is longer than `MAX_RECORD_BYTES`.
    """
    number = 1
    chunk = text_start(read_chunk(source))
    require(b"\0" not in chunk.partition(b"\n")[0], "the file is not UTF-8 text")
    tail = b""
    while chunk:
        whole, newline, rest = chunk.rpartition(b"\n")
        if newline:
            block = b"".join((tail, whole, newline))
            _bound(block.find(b"\n"), number)
            yield number, block
            number += block.count(b"\n")
            tail = rest
        else:
            tail += rest
        _bound(len(tail), number)
        chunk = read_chunk(source)
    if tail:
        yield number, tail


def text_start(head: bytes) -> bytes:
    """The first bytes of a file without their UTF-8 byte order mark; UTF-16 is refused."""
    if head.startswith(UTF16_BOMS):
        raise MalformedError("the file is UTF-16", remedy="save it as UTF-8")
    return head.removeprefix(UTF8_BOM)


class CsvFile:
    """A CSV file: its header, then its rows. Blank lines are no rows.

    As long as nothing is quoted the rows come as columns, which costs a quarter; from the first quote or bad byte on
    they come one by one out of the csv module.

    Raises:
        MalformedError: quoting is broken, or the file is no UTF-8 text.
        TooLargeError: a record is longer than `MAX_RECORD_BYTES`.
    """

    def __init__(self, source: BinaryIO, delimiter: str) -> None:
        self._blocks = line_blocks(source)
        self._delimiter = delimiter
        self._rows: Iterator[CsvRow] | None = None

    def header(self) -> list[str]:
        """The names in the header row, without the space around them; two of one name (in any case) are refused."""
        line, cells, flaw = self._first_row()
        require(cells, "the file is empty")
        if flaw:
            raise MalformedError(f"the header {flaw}", place=f"line {line}")
        names = [cell.strip() for cell in cells]
        known: set[str] = set()
        for position, name in enumerate(names, 1):
            if name and name.casefold() in known:
                raise MalformedError(f"the header has {shown_name(name, position)} twice", place=f"line {line}")
            known.add(name.casefold())
        return names

    def chunks(self, width: int) -> Iterator[CsvColumns | list[CsvRow]]:
        """The rows after the header in chunks, by the column where each of them has `width` plain cells."""
        while self._rows is None:
            first, block = next(self._blocks, (1, b""))
            if not block:
                return
            text = _plain_text(block)
            if text is None:
                self._rows = self._quoted(first, block)
                break
            yield from self._plain_chunks(first, text, width)
        yield from in_chunks(self._rows)

    def _first_row(self) -> CsvRow:
        for first, block in self._blocks:
            text = _plain_text(block)
            if text is None:
                self._rows = self._quoted(first, block)
                return next(self._rows, (first, [], ""))
            lines = text.split("\n")
            for number, line in enumerate(lines):
                if line:
                    rest = "\n".join(lines[number + 1 :]).encode()
                    self._blocks = chain([(first + number + 1, rest)] if rest else [], self._blocks)
                    return first + number, line.split(self._delimiter), ""
        return 1, [], ""

    def _plain_chunks(self, first: int, text: str, width: int) -> Iterator[CsvColumns | list[CsvRow]]:
        """Rows of a text without quotes; a few dozen kilobytes at a time stay in the processor's cache."""
        start = 0
        while start < len(text):
            stop = text.find("\n", start + PLAIN_CHARS) + 1 or len(text)
            piece = text[start:stop].removesuffix("\n")
            columns = self._columns(piece, width)
            if columns is not None:
                yield CsvColumns(first, columns)
            else:
                lines = enumerate(piece.split("\n"), first)
                yield [(number, line.split(self._delimiter), "") for number, line in lines if line]
            first += piece.count("\n") + 1
            start = stop

    def _columns(self, text: str, width: int) -> list[list[str]] | None:
        """The cells of each column; None when a line is blank, or has more or fewer cells."""
        # A line end becomes a cell of its own. All cells are cut at once, and line ends stand where rows should end.
        cut, rows = self._delimiter, text.count("\n") + 1
        cells = text.replace("\n", f"{cut}\n{cut}").split(cut)
        if len(cells) != rows * (width + 1) - 1 or cells[width :: width + 1].count("\n") != rows - 1:
            return None
        columns = [cells[place :: width + 1] for place in range(width)]
        return None if width == 1 and "" in columns[0] else columns

    def _quoted(self, first: int, block: bytes) -> Iterator[CsvRow]:
        """Rows as the csv module reads them, from this block to the end of the file."""
        # The csv module's own limit is one for the whole process and too low for a vPDQ; ours below bounds the record.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD_BYTES))
        lines = _TextLines(chain([(first, block)], self._blocks))
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        line = first
        try:
            for cells in reader:
                flaw, lines.flaw, lines.held_chars = lines.flaw, "", 0
                if cells:
                    yield line, cells, flaw
                line = first + reader.line_num
        except csv.Error as error:
            raise MalformedError("the quoting is broken", place=f"line {line}") from error


def _plain_text(block: bytes) -> str | None:
    """The text of whole lines that hold no quotes; None for any other, and for bytes that are not plain text."""
    if b'"' in block or b"\0" in block or block.count(b"\r") != block.count(b"\r\n"):
        return None
    try:
        return block.decode().replace("\r\n", "\n")
    except UnicodeDecodeError:
        return None


def in_chunks(stream: Iterator[T]) -> Iterator[list[T]]:
    """The stream in lists of `CHUNK_ROWS`. What came before a fault of the file comes out before it."""
    chunk: list[T] = []
    try:
        for one in stream:
            chunk.append(one)
            if len(chunk) == CHUNK_ROWS:
                yield chunk
                chunk = []
    except (GatewayError, OSError):
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def refusal(field: str, reason: str) -> MalformedError:
    """What to raise to refuse the row at hand; its reader catches and reports it. The reason never holds the value."""
    return MalformedError(reason, place=field)


def drop_named(report: AdapterReport, name: str, *, within: str = "", count: int = 1) -> None:
    """Count dropped values under a name that the file gave; unfit or too many names are counted together."""
    dropped = report.dropped_fields
    label = f"{within}: {name}" if within else name
    fits = label in dropped or (len(dropped) < MAX_DROPPED_NAMES and _SHOWABLE_NAME.fullmatch(name))
    report.drop(label if fits else OTHER_NAMES, count)


def shown_name(name: str, position: int) -> str:
    """A column as an error may show it: by name if that is a word, always by position."""
    return f"column {position} '{name}'" if _SHOWABLE_NAME.fullmatch(name) else f"column {position}"


class _TextLines:
    """Lines of text for the csv module, counted by the record.

    The csv module asks only for the lines of the record at hand, so `held_chars` and `flaw` belong to that record
    once their reader resets them after each row.
    """

    def __init__(self, blocks: Iterator[tuple[int, bytes]]) -> None:
        self.held_chars = 0
        self.flaw = ""
        self._blocks = blocks

    def __iter__(self) -> Iterator[str]:
        for first, block in self._blocks:
            text, suspect = _decoded(block)
            # newline="\n": only LF ends a line here, and it is kept, for csv must see the one inside quotes.
            for number, line in enumerate(io.StringIO(text, newline="\n"), first):
                self.held_chars += len(line)
                if self.held_chars > MAX_RECORD_BYTES:  # characters are never more than bytes
                    _bound(self.held_chars, number)
                if suspect:
                    self.flaw = self.flaw or _line_flaw(line)
                yield line


def _decoded(block: bytes) -> tuple[str, bool]:
    """The text of the block, and whether any line of it needs a look; a bad byte becomes a lone surrogate."""
    try:
        return block.decode(), b"\0" in block
    except UnicodeDecodeError:
        return block.decode(errors="surrogateescape"), True


def _line_flaw(line: str) -> str:
    if "\0" in line:
        return "has a NUL byte"
    try:
        line.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    return ""


def _bound(size: int, number: int) -> None:
    if size > MAX_RECORD_BYTES:
        raise TooLargeError(f"a record is longer than {MAX_RECORD_BYTES} bytes", place=f"line {number}")
