"""Hash entries as a VICS 2.0 media list, in the context `Default`: what open readers of VICS take.

Rules, after what those readers do:
- Exactly two members, the context and then `value`; a member of a record that would say nothing is not there, for a
  null digest makes a reader give up the file.
- A category is a number. It is written where the entry's category is a number of the scheme that was asked for; another
  scheme's numbers mean something else, so they are left out and counted.
- MediaID is the entry's number; for an entry from before the set was last restored, the whole entry id, which no number
  can be.
- MD5, SHA1 and PhotoDNA have members of their own; other digests are AlternativeHashes.
- Series, MimeType, DateUpdated (`seen`), VictimIdentified. No imagery, path or remark.

Worked example: an entry with one MD5 is `{"MediaID":42,"MD5":"88653FC1…5C70"}`.
"""

from __future__ import annotations

import json
from collections import Counter

from gateway.adapters.writing import Batch, WriteOptions, identified, known_digests, moments, spelt, texts

CONTEXT = "http://github.com/VICSDATAMODEL/ProjectVic/DataModels/2.0.xml/Default/$metadata#Media"
MEMBERS = {"md5": "MD5", "sha1": "SHA1"}
ALTERNATIVES = {"sha256": "SHA256", "sha512": "SHA512", "pdq": "PDQ", "ssdeep": "SSDEEP", "vpdq": "vPDQ"}


class VicsWriter:
    """A VICS 2.0 media list."""

    digests: tuple[str, ...] = (*MEMBERS, "photodna", *ALTERNATIVES)
    columns = frozenset({"media_type", "series", "seen"})
    attributes = frozenset({"category", "victim_status"})
    separator = b",\n"

    def __init__(self, options: WriteOptions) -> None:
        self.not_carried: Counter[str] = Counter()
        self._scheme = options.category_scheme

    def head(self) -> tuple[bytes, bool]:
        """The context."""
        return f'{{"@odata.context":"{CONTEXT}","value":[\n'.encode(), False

    def records(self, batch: Batch) -> list[bytes]:
        """One object for each row."""
        rows = batch.rows
        same = self._of_label(batch)
        single = {
            MEMBERS[name]: [value.upper() for value in spelt(rows, name)] for name in known_digests(MEMBERS, rows)
        }
        if "photodna" in rows.columns:
            single["PhotoDNA"] = spelt(rows, "photodna", base64=True)
        single |= {"Series": texts(rows, "series"), "MimeType": texts(rows, "media_type")}
        single["DateUpdated"] = moments(rows, "seen")
        others = {ALTERNATIVES[name]: spelt(rows, name) for name in known_digests(ALTERNATIVES, rows)}
        found = []
        for place, entry in enumerate(batch.entries):
            record: dict[str, object] = {"MediaID": _media_id(entry), **same}
            record |= {name: values[place] for name, values in single.items() if values[place]}
            if others:
                record["AlternativeHashes"] = [
                    {"HashName": name, "HashValue": values[place]} for name, values in others.items()
                ]
            found.append(json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode())
        return found

    def tail(self) -> bytes:
        """The end of the list."""
        return b"\n]}\n"

    def _of_label(self, batch: Batch) -> dict[str, object]:
        """What all rows have in common."""
        scheme, _, code = str(batch.label["category"]).partition(":")
        same: dict[str, object] = {}
        if scheme == self._scheme and code.isascii() and code.isdigit() and len(code) <= 9:
            same["Category"] = int(code)
        else:
            self.not_carried["category"] += batch.rows.n
        found = identified(self, batch)
        return same if found is None else {**same, "VictimIdentified": found}


def _media_id(entry: str) -> int:
    epoch, _, number = entry.partition("-")
    return int(number, 16) if int(epoch, 16) == 1 else int(epoch + number, 16)
