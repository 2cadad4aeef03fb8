"""Outside formats in: a binary stream becomes entry drafts, one file of this package per format. (Out: `outward`.)

Rules:
- A bad row is refused alone and reported with line, field and reason, never with its value.
- A bad file is refused whole: the error comes out of the iterator, wherever in the file it strikes, and whatever was
  taken from the iterator before must then be undone.
- Nothing is guessed, and nothing is lost silently: `read == accepted + refused`, and every value that is dropped at the
  door is counted. What may pass is listed; imagery, paths and file names are not on any list.
- The source is read once and forwards in constant memory: a pipe will do.

To add a format: a module with `read(source, report, options)`, its name in `READERS`, its look in `sniff`, a section in
`docs/importing.md`. Drafts come in batches by the column; a reader may make objects and gather them (`DraftBatch.of`).

    report = AdapterReport("digest_list")
    drafts = list(read_hashes(io.BytesIO(b"900150983cd24fb0d6963f7d28e17f72  abc.txt\\n"), "digest_list", report))
    # one draft, digests {"md5": 16 bytes}; report: 1 read, 1 accepted, 1 "name" dropped
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import BinaryIO

from gateway.adapters import digest_list, gateway_csv, icse_csv, stix, vics
from gateway.adapters.rows import UTF8_BOM, ReadOptions
from gateway.columns.drafts import DraftBatch
from gateway.errors import MalformedError
from gateway.model import AdapterReport, EntryDraft

__all__ = ["READERS", "SNIFF_BYTES", "ReadOptions", "read_batches", "read_hashes", "sniff"]

SNIFF_BYTES = 1024  # as many first bytes as `sniff` looks at

Reader = Callable[[BinaryIO, AdapterReport, ReadOptions], Iterator[DraftBatch]]

READERS: dict[str, Reader] = {
    "digest_list": digest_list.read,
    "gateway_csv": gateway_csv.read,
    "icse_csv": icse_csv.read,
    "stix": stix.read,
    "vics": vics.read,
}

_VICS_CONTEXT = re.compile(
    r'\{\s*"(?:@odata\.context|odata\.metadata)"\s*:\s*"[^"]*/ProjectVic/DataModels/[^"]*#Media"'
)
_STIX_BUNDLE = re.compile(r'\{\s*"type"\s*:\s*"bundle"')
# 64 bare digits may be a SHA-256 or a PDQ, so they say nothing; with a name after them a checksum tool wrote them.
_BARE_DIGEST = re.compile(r"(?:[0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{128})")
_NAMED_DIGEST = re.compile(r"\\?(?:[0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}|[0-9A-Fa-f]{128}) [ *].+")


def read_batches(
    source: BinaryIO, format_name: str, report: AdapterReport, *, options: ReadOptions | None = None
) -> Iterator[DraftBatch]:
    """The drafts in the source by the column, as they are read; the report is complete when the iterator ends.

    Args:
        source: read once, forwards, never past its end.
        format_name: a key of `READERS`.
        report: filled while the rows stream.
        options: what the user says where the file does not.

    Raises:
        MalformedError: the format is unknown (at once), or the file is refused whole (while iterating).
        OSError: the source cannot be read on (while iterating).
    """
    reader = READERS.get(format_name)
    if reader is None:
        raise MalformedError("the format is not known", remedy=f"the formats are {', '.join(READERS)}")
    return reader(source, report, options or ReadOptions())


def read_hashes(
    source: BinaryIO, format_name: str, report: AdapterReport, *, options: ReadOptions | None = None
) -> Iterator[EntryDraft]:
    """The same drafts as objects, for people who look at single rows."""
    batches = read_batches(source, format_name, report, options=options)
    return chain.from_iterable(batch.drafts() for batch in batches)


def sniff(head: bytes) -> str | None:
    """The format of a file that begins so; None where that leaves a doubt, for then the user must say.

    Args:
        head: the first `SNIFF_BYTES` of the file, or the whole of a shorter one.
    """
    text = head[:SNIFF_BYTES].removeprefix(UTF8_BOM).decode("utf-8", "replace")
    if _VICS_CONTEXT.match(text.lstrip()):
        return "vics"
    if _STIX_BUNDLE.match(text.lstrip()):
        return "stix"
    lines = (line.strip() for line in text.split("\n"))
    first = next((line for line in lines if line and not line.startswith("#")), "")
    if _BARE_DIGEST.fullmatch(first) or _NAMED_DIGEST.fullmatch(first):
        return "digest_list"
    return _sniff_header(first)


def _sniff_header(line: str) -> str | None:
    columns = [name.strip().strip('"').casefold() for name in line.split(icse_csv.DELIMITER)]
    if {icse_csv.IMAGE_ID.casefold(), icse_csv.VICTIM_IDENTIFIED.casefold()} <= set(columns):
        return "icse_csv"
    columns = [name.strip().strip('"') for name in line.split(gateway_csv.DELIMITER)]
    if set(columns) <= {*gateway_csv.COLUMNS, gateway_csv.GUARDED} and set(columns) & set(gateway_csv.DIGEST_COLUMNS):
        return "gateway_csv"
    return None
