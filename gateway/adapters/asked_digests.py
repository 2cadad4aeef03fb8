"""Digests that somebody asks about: one on each line, or a column of a CSV file. Nothing of it is kept.

Rules:
- A picture, a film, an archive or any other binary file is refused whole and unread, by its first bytes: this program
  never looks at imagery, and whoever names such a file by mistake is to hear it in plain words.
- One on each line: hexadecimal, or `algorithm:hexadecimal`; what checksum tools write behind it (a file name) is
  passed over and counted. Blank lines and lines that begin with `#` are no rows.
- A CSV file (commas, semicolons or tabs) has a header. Its column is the one that is named, else the first of
  `COLUMNS` that it has. A column `pdq_quality` beside it says how good a PDQ digest is.
- A row that holds no digest is refused alone, by its line; a file whose first `MAX_FRUITLESS` rows hold none, whole.

Worked example: `# mine LF 900150983cd24fb0d6963f7d28e17f72  abc.txt LF` asks about one digest, and drops one "name".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from gateway.adapters.rows import CsvColumns, CsvFile, line_blocks, read_chunk
from gateway.errors import MalformedError
from gateway.model import DIGEST_BYTES, AdapterReport, require

FORM = "asked_digests"
# Names of columns that hold digests, the best first.
COLUMNS = ("sha256", "sha512", "sha1", "md5", "pdq", "photodna", "digest", "hash")
QUALITY = "pdq_quality"
DIGITS = frozenset(2 * octets for octets in DIGEST_BYTES.values() if octets)
DELIMITERS = ",;\t"
MAX_FRUITLESS = 100
HEAD_BYTES = 64
# What the files begin with that people have beside their lists: (offset, bytes, what it is).
SIGNATURES = (
    (0, b"\xff\xd8\xff", "a picture (JPEG)"),
    (0, b"\x89PNG", "a picture (PNG)"),
    (0, b"GIF8", "a picture (GIF)"),
    (0, b"II*\x00", "a picture (TIFF)"),
    (0, b"MM\x00*", "a picture (TIFF)"),
    (0, b"8BPS", "a picture (Photoshop)"),
    (0, b"RIFF", "a picture or a film (RIFF)"),
    (4, b"ftyp", "a picture or a film (MP4, HEIC or AVIF)"),
    (0, b"\x1aE\xdf\xa3", "a film (Matroska or WebM)"),
    (0, b"\x00\x00\x01\xba", "a film (MPEG)"),
    (0, b"\x00\x00\x01\xb3", "a film (MPEG)"),
    (0, b"FLV\x01", "a film (Flash)"),
    (0, b"0&\xb2u", "a film (Windows Media)"),
    (0, b"OggS", "a film or a sound (Ogg)"),
    (0, b"<svg", "a picture (SVG)"),
    (0, b"%PDF", "a document (PDF)"),
    (0, b"PK\x03\x04", "an archive or a spreadsheet (ZIP)"),
    (0, b"\x1f\x8b", "an archive (gzip)"),
    (0, b"7z\xbc\xaf", "an archive (7-Zip)"),
    (0, b"Rar!", "an archive (RAR)"),
    (0, b"SQLite format", "a database"),
)
BITMAP = ((6, b"\0\0\0\0", "a picture (BMP)"),)  # "BM", the length of the file, and these; "BM" alone may be a word
_ROW = re.compile(r"\\?(?:([A-Za-z0-9]{1,12}):)?([0-9A-Fa-f]{32,288})(\s.*)?")


@dataclass(frozen=True, slots=True)
class Asked:
    """One digest that is asked about, in lower-case hexadecimal. `quality`: of a PDQ digest, 0 where nobody said."""

    digest: str
    line: int
    quality: int = 0


def read_asked(source: BinaryIO, report: AdapterReport, *, column: str = "") -> Iterator[Asked]:
    """The digests of a file, as they are read.

    Args:
        source: read once, forwards.
        column: of a CSV file, by its name in the header; "" for the best that it has.

    Raises:
        MalformedError: it is no list of digests, or has no such column.
    """
    fruitless = 0
    for line, text, quality in _cells(source, report, column):
        report.read += 1
        found = _ROW.fullmatch(text.strip())
        if found is None or len(found[2]) not in DIGITS:
            report.refuse(line, "digest", "is not a hexadecimal digest")
            fruitless += not report.accepted
            require(fruitless < MAX_FRUITLESS, f"the first {MAX_FRUITLESS} rows of this file hold no digest")
            continue
        if found[3]:
            report.drop("name")
        report.accepted += 1
        yield Asked(found[2].lower(), line, quality)


def refuse_imagery(head: bytes) -> None:
    """Returns for the beginning of a text.

    Raises:
        MalformedError: it is the beginning of a picture, a film, an archive, or of something else that is no text.
    """
    for offset, signature, kind in SIGNATURES if not head.startswith(b"BM") else BITMAP:
        if head[offset : offset + len(signature)] == signature:
            raise MalformedError(
                f"this file is {kind}, not a list of digests",
                remedy="nothing of it was read; this program never takes imagery: give the digests that your own "
                "tool made of it",
            )
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise MalformedError("this file is no text", remedy="give a list of digests, one on each line, or a CSV file")


def _cells(source: BinaryIO, report: AdapterReport, column: str) -> Iterator[tuple[int, str, int]]:
    """(line, text, quality) of each row."""
    again = _Again(source)
    refuse_imagery(again.head.removeprefix(b"\xef\xbb\xbf").lstrip())
    first = _first_line(again.head)
    delimiter = next((one for one in DELIMITERS if one in first), "," if column else "")
    if delimiter:
        yield from _of_csv(CsvFile(again, delimiter), report, column)  # type: ignore[arg-type]  # it only reads
        return
    names = first.strip().strip('"').casefold() in (*COLUMNS, "")
    for number, block in line_blocks(again):  # type: ignore[arg-type]  # it only reads
        require(b"\0" not in block, "this file is no text")
        for at, raw in enumerate(block.splitlines(), number):
            text = raw.decode("utf-8", "replace").strip()
            if not text or text.startswith("#") or (names and text.strip('"').casefold() in COLUMNS):
                continue
            yield at, text.strip('"'), 0


def _of_csv(file: CsvFile, report: AdapterReport, column: str) -> Iterator[tuple[int, str, int]]:
    header = file.header()
    names = [name.casefold() for name in header]
    wanted = [column.casefold()] if column else [name for name in COLUMNS if name in names]
    if not wanted or wanted[0] not in names:
        shown = ", ".join(COLUMNS)
        raise MalformedError(
            "the file has no such column" if column else "no column of this file is one of digests",
            remedy=f"name one of its columns with --column; by themselves these are known: {shown}",
        )
    place, quality = names.index(wanted[0]), names.index(QUALITY) if QUALITY in names else -1
    for chunk in file.chunks(len(header)):
        for line, cells in _rows(chunk):
            require(all("\0" not in cell for cell in cells), "this file is no text")
            if len(cells) != len(header):
                report.read += 1
                report.refuse(line, "row", "has more or fewer cells than the header")
            elif cells[place].strip():
                said = cells[quality].strip() if quality >= 0 else ""
                yield line, cells[place], int(said) if said.isascii() and said.isdigit() and len(said) < 4 else 0


def _rows(chunk: CsvColumns | Sequence[tuple[int, list[str], str]]) -> Iterator[tuple[int, Sequence[str]]]:
    if isinstance(chunk, CsvColumns):
        yield from enumerate(zip(*chunk.columns, strict=True), chunk.line)
    else:
        yield from ((line, cells) for line, cells, _ in chunk)


def _first_line(head: bytes) -> str:
    lines = (line.strip() for line in head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")


class _Again:
    """A source whose beginning was looked at."""

    def __init__(self, source: BinaryIO) -> None:
        self.head = read_chunk(source)
        self._source, self._at = source, 0

    def read(self, count: int) -> bytes:
        """The next bytes, of the beginning first."""
        if self._at < len(self.head):
            piece = self.head[self._at : self._at + count]
            self._at += len(piece)
            return piece
        return self._source.read(count)
