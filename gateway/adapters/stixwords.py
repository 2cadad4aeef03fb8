"""What STIX 2.1 and our labels say of the same things: ids, markings, confidence, names of digests.

Rules (the table is in `contracts/stix-1.md`):
- An id of ours is 122 pseudo-random bits in the form of a UUIDv4 (RFC 9562 5.4): SHA-256 over `NAMESPACE` and the kind
  with its words, a line end between them. Whoever knows set and entry id makes the same id, on any day and any machine.
  STIX permits UUIDv5 too, but strict validators of it (check 103) do not.
- A handling code goes out as the nearest TLP 2.0 marking on the strict side, with a statement that names the code; a
  marking comes in as the nearest code on the strict side (`contracts/glossary.md`). There and back never gets freer.
- Confidence is the second character of the evaluation, by the Admiralty scale of STIX 2.1 appendix A; "6" is no
  confidence. The whole evaluation stands in our extension.

Worked example: `stix_id("indicator", "XA-NCVI/found", "0001-000000000001")`.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from functools import lru_cache

from gateway.model import HandlingCode

NAMESPACE = bytes.fromhex("6c675359b6574a72ba9c5291bf8b6f03")  # drawn once, for ids of this gateway's STIX objects
EXTENSION = "extension-definition--b40215b4-b5be-40a7-8937-e94b49de14c6"
PROJECT = "identity--5b4b9dab-f3e3-482c-90c2-f282281476f2"  # whose the extension is: an extension needs an author
DEFINED = "2026-11-28T00:00:00.000Z"  # when the extension and the statements were written; they never change
NOTHING = "[file:size = -1]"  # the pattern of what has no digest to show, or is gone: no file matches it
TLP_EXTENSION = "extension-definition--60a3c5c5-0d10-413e-aab3-9e08dde9e88d"
TLP_CREATED = "2022-10-01T00:00:00.000Z"
TLP_IDS = {
    "clear": "marking-definition--94868c89-83c2-464b-929b-a1a8aa3c8487",
    "green": "marking-definition--bab4a63c-aed9-4cf5-a766-dfca5abac2bb",
    "amber": "marking-definition--55d920b0-5e8b-4f79-9ee9-91f868d9b421",
    "amber+strict": "marking-definition--939a9414-2ddd-4d32-a0cd-375ea402b003",
    "red": "marking-definition--e828b379-4e03-4974-9ac4-e53a884c97c1",
}
TLP_OF = {HandlingCode.H0: "green", HandlingCode.H1: "amber", HandlingCode.H2: "amber+strict", HandlingCode.H3: "red"}
HANDLING_OF = {
    "clear": HandlingCode.H0,
    "green": HandlingCode.H0,
    "amber": HandlingCode.H2,
    "amber+strict": HandlingCode.H2,
    "red": HandlingCode.H3,
}
HANDLING_BY_MARKING = {marking: HANDLING_OF[word] for word, marking in TLP_IDS.items()}
# STIX 2.1 appendix A, "Admiralty Credibility". 6, "truth cannot be judged", has no number there.
CONFIDENCE = {"1": 90, "2": 70, "3": 50, "4": 30, "5": 10}
STIX_HASHES = {"md5": "MD5", "sha1": "SHA-1", "sha256": "SHA-256", "sha512": "SHA-512", "ssdeep": "SSDEEP"}
# Names without case, dashes and underscores; PDQ and PhotoDNA are in no vocabulary of STIX, but tools write them.
ALGORITHMS = {name: name for name in ("md5", "sha1", "sha256", "sha512", "ssdeep", "pdq", "photodna")}
_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{3})Z", re.ASCII)
_INDICATOR_ID = re.compile(r"indicator--[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def stix_id(kind: str, *words: str) -> str:
    """The id of an object of ours."""
    named = "\n".join((kind, *words)).encode()
    return _as_id(kind, hashlib.sha256(NAMESPACE + named).digest())


class Ids:
    """Makes the ids `stix_id(kind, first, …)` of many last words."""

    def __init__(self, kind: str, first: str) -> None:
        self._kind = kind
        self._begun = hashlib.sha256(NAMESPACE + f"{kind}\n{first}\n".encode())

    def id(self, last: str) -> str:
        """The id of one."""
        hasher = self._begun.copy()
        hasher.update(last.encode())
        return _as_id(self._kind, hasher.digest())


def _as_id(kind: str, digest: bytes) -> str:
    text = digest.hex()
    # RFC 9562 4.2: version 4; 4.1: the variant, in the upper two bits of octet 8
    variant = _VARIANTS[text[16]]
    return f"{kind}--{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


def stix_time(milliseconds: int) -> str:
    """A time of STIX: UTC, to the millisecond."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=4_096)  # thousands of entries came in one second
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def parse_stix_time(text: str) -> int | None:
    """The milliseconds that `stix_time` wrote; None for every other text."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    try:
        moment = datetime.fromisoformat(f"{found[1]}+00:00")
    except ValueError:
        return None
    return max(int(moment.timestamp()) * 1000 + int(found[2]), 0)


def short_name(identifier: str) -> str:
    """The first eight octets of an indicator's id in hexadecimal, "" where it is no such id."""
    found = _INDICATOR_ID.fullmatch(identifier)
    return identifier[11:30].replace("-", "") if found else ""


def confidence_of(evaluation: str) -> int | None:
    """The confidence of an evaluation such as "B2"; None where the information cannot be judged."""
    return CONFIDENCE.get(evaluation[1:])


def credibility_of(confidence: int) -> str:
    """The second character of an evaluation, by the ranges of STIX 2.1 appendix A."""
    return str(5 - min(confidence, 99) // 20)


def common_objects(agency: str, jurisdiction: str, created: str) -> list[dict[str, object]]:
    """The objects to which those of an agency's sets refer: identities, the extension, markings. Each time the same.

    Args:
        created: of the agency's identity, as STIX writes it.
    """
    found: list[dict[str, object]] = [
        project_identity(),
        {
            "type": "extension-definition",
            "spec_version": "2.1",
            "id": EXTENSION,
            "created_by_ref": PROJECT,
            "created": DEFINED,
            "modified": DEFINED,
            "name": "Hash entry",
            "description": "What a hash list says of a file beyond its digests: set, handling, series, evaluation.",
            "schema": "contracts/stix-1.md of the partner-exchange gateway",
            "version": "1.0.0",
            "extension_types": ["property-extension"],
        },
        {
            "type": "identity",
            "spec_version": "2.1",
            "id": agency_id(agency),
            "created": created,
            "modified": created,
            "name": agency,
            "description": f"An agency of {jurisdiction} that lists files of abused children.",
            "identity_class": "organization",
        },
    ]
    found += [_tlp(word) for word in sorted(set(TLP_OF.values()))]
    found += [_statement(code) for code in HandlingCode]
    return found


def project_identity() -> dict[str, object]:
    """The identity of those who defined the extensions."""
    return {
        "type": "identity",
        "spec_version": "2.1",
        "id": PROJECT,
        "created": DEFINED,
        "modified": DEFINED,
        "name": "Partner-exchange gateway",
        "description": "The authors of the extension by which hash entries travel as STIX objects.",
        "identity_class": "group",
    }


def agency_id(agency: str) -> str:
    """The id of an agency's identity."""
    return stix_id("identity", agency)


def statement_id(code: HandlingCode) -> str:
    """The id of the marking that states a handling code."""
    return stix_id("marking-definition", str(code))


def markings_of(code: HandlingCode) -> list[str]:
    """The markings of what is under a handling code."""
    return [TLP_IDS[TLP_OF[code]], statement_id(code)]


def marking_objects(code: HandlingCode) -> list[dict[str, object]]:
    """The objects to which `markings_of` refers."""
    return [_tlp(TLP_OF[code]), _statement(code)]


def _tlp(word: str) -> dict[str, object]:
    return {
        "type": "marking-definition",
        "spec_version": "2.1",
        "id": TLP_IDS[word],
        "created": TLP_CREATED,
        "name": f"TLP:{word.upper()}",
        "extensions": {TLP_EXTENSION: {"extension_type": "property-extension", "tlp_2_0": word}},
    }


def _statement(code: HandlingCode) -> dict[str, object]:
    return {
        "type": "marking-definition",
        "spec_version": "2.1",
        "id": statement_id(code),
        "created_by_ref": PROJECT,
        "created": DEFINED,
        "name": f"Handling code {code}",
        "definition_type": "statement",
        "definition": {"statement": handling_says(code)},
    }


def handling_says(code: HandlingCode) -> str:
    """What a handling code means, in one sentence."""
    return _SAYS[code]


_SAYS = {
    HandlingCode.H0: "H0: for preventing and combating crime, within the law; nothing beyond that.",
    HandlingCode.H1: "H1: not in court proceedings unless the giver permits it.",
    HandlingCode.H2: "H2: not to be passed on unless the giver permits it.",
    HandlingCode.H3: "H3: ask the giver before any use.",
}
