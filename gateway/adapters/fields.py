"""One value of an outside format, read into its canonical form or refused with a reason that never shows it.

Rules (the canonical forms are those of `contracts/hash-csv-1.md`):
- Space around a value is no part of it. Hexadecimal may be in either case.
- A digest of the wrong length, of the empty file, or all zero is refused: the first is damaged, the others match what
  they must not.
- Text is carried as it stands: no Unicode normalisation, no guarding against formulas (that is for writers).
- A refusal is a MalformedError whose place is the field; whoever reads the row catches it.

Worked example: `DIGEST_READERS["md5"](" 900150983CD24FB0D6963F7D28E17F72 ", "MD5")` is the 16 bytes `90 01 50 … 72`.
"""

from __future__ import annotations

import json
import re
from binascii import a2b_base64, unhexlify
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from gateway.adapters.rows import MAX_RECORD_BYTES, refusal
from gateway.model import DIGEST_BYTES, MAX_TEXT_CHARS, VictimStatus

# What the empty file hashes to. Literals, because a FIPS build of OpenSSL has no MD5 to ask.
EMPTY_FILE_DIGESTS = {
    "md5": "d41d8cd98f00b204e9800998ecf8427e",
    "sha1": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "sha512": "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
    "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
}
# By algorithm of one width in hexadecimal: the digests that match what they must not, and why.
UNUSABLE_DIGESTS: dict[str, dict[bytes, str]] = {
    algorithm: {
        bytes(size): "is all zero",
        **(
            {bytes.fromhex(empty): "is the digest of the empty file"}
            if (empty := EMPTY_FILE_DIGESTS.get(algorithm))
            else {}
        ),
    }
    for algorithm, size in DIGEST_BYTES.items()
    if size is not None and algorithm != "photodna"
}
PHOTODNA_BYTES = 144
MIN_PDQ_QUALITY = 50  # below it a PDQ says too little of the picture to match on (its authors' advice)
MAX_PDQ_QUALITY = 100

VICTIM_STATUS_BY_FLAG = {True: VictimStatus.IDENTIFIED, False: VictimStatus.UNIDENTIFIED, None: None}

DigestReader = Callable[[str, str], bytes]

_FLAGS = dict.fromkeys(("y", "yes", "t", "true"), True) | dict.fromkeys(("n", "no", "f", "false"), False)
# Controls (C0, DEL, C1), line and paragraph separators, lone surrogates, and what XML 1.0 cannot hold.
_UNFIT_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
# ISO 8601, extended format, seconds and fraction optional. OData writes seven digits of fraction.
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:\d\d)?)?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_MOMENTS = (_EPOCH, datetime(1, 1, 1, tzinfo=UTC))  # what Unix and .NET programs write for "never"
_SECOND = timedelta(seconds=1)
_DECIMALS = re.compile(r"\d{1,3}(?: ?, ?\d{1,3}){2,}", re.ASCII)
_SSDEEP = re.compile(r"[1-9]\d{0,9}:[A-Za-z0-9+/]{1,64}:[A-Za-z0-9+/]{0,64}", re.ASCII)
_VPDQ_FRAME = re.compile(r"([0-9A-Fa-f]{64}),(\d{1,3}),\d{1,9}(?:\.\d{1,9})?", re.ASCII)
_ZERO_PDQ = "0" * 64


def read_text(value: str, field: str) -> str:
    """The text without the space around it; controls and over-long text are refused."""
    value = value.strip()
    if len(value) > MAX_TEXT_CHARS:
        raise refusal(field, f"is longer than {MAX_TEXT_CHARS} characters")
    # isprintable is quick, but says no too often (a no-break space): only then look closely.
    if not value.isprintable() and _UNFIT_TEXT.search(value):
        raise refusal(field, "has a control character or one that no text has")
    return value


def read_flag(value: str, field: str) -> bool | None:
    """True for y, yes, t, true; False for n, no, f, false; None where nothing is stated."""
    word = value.strip().casefold()
    if not word:
        return None
    if word not in _FLAGS:
        raise refusal(field, "is not one of y, yes, t, true, n, no, f, false")
    return _FLAGS[word]


def read_moment(value: str, field: str) -> int:
    """Unix seconds of an ISO 8601 date or date-time, UTC where no offset stands; 0 where nothing is stated."""
    value = value.strip()
    return _unix_seconds(value, field) if value else 0


@lru_cache(maxsize=4096)  # the dates of a list repeat, and reading one costs more than a digest; keys are short dates
def _unix_seconds(value: str, field: str) -> int:
    if not _MOMENT.fullmatch(value):
        raise refusal(field, "is not an ISO 8601 date or date-time")
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise refusal(field, "is not a date of the calendar") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if moment in _NO_MOMENTS:
        return 0
    if moment < _EPOCH:
        raise refusal(field, "is before 1970")
    return (moment - _EPOCH) // _SECOND


def read_pdq_quality(value: str, field: str) -> int | None:
    """0 to 100; None where nothing is stated."""
    value = value.strip()
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 3 and int(value) <= MAX_PDQ_QUALITY):
        raise refusal(field, f"is not a whole number from 0 to {MAX_PDQ_QUALITY}")
    return int(value)


def _hex_reader(algorithm: str, size: int) -> DigestReader:
    unusable = UNUSABLE_DIGESTS[algorithm]

    def read(value: str, field: str) -> bytes:
        value = value.strip()
        if len(value) != 2 * size:
            raise refusal(field, f"is not {2 * size} characters long")
        try:
            digest = unhexlify(value)  # strict about space inside, which bytes.fromhex is not
        except ValueError as error:
            raise refusal(field, "is not hexadecimal") from error
        if digest in unusable:
            raise refusal(field, unusable[digest])
        return digest

    return read


def _read_photodna(value: str, field: str) -> bytes:
    """144 bytes, from 192 characters of base64, 288 of hexadecimal, or 144 decimals with commas."""
    value = value.strip()
    if _DECIMALS.fullmatch(value):
        digest = _octets(value, field)
    elif len(value) == 2 * PHOTODNA_BYTES:
        digest = _unhex(value, field)
    elif len(value) == PHOTODNA_BYTES // 3 * 4:
        digest = _unbase64(value, field)
    else:
        raise refusal(field, "is not 192 characters of base64, 288 of hexadecimal, or decimals with commas")
    if len(digest) != PHOTODNA_BYTES:
        raise refusal(field, f"is not {PHOTODNA_BYTES} bytes long")
    if not any(digest):
        raise refusal(field, "is all zero")
    return digest


def _unhex(value: str, field: str) -> bytes:
    try:
        return unhexlify(value)
    except ValueError as error:
        raise refusal(field, "is not hexadecimal") from error


def _octets(value: str, field: str) -> bytes:
    try:
        return bytes(map(int, value.split(",")))
    except ValueError as error:
        raise refusal(field, "has a number over 255") from error


def _unbase64(value: str, field: str) -> bytes:
    try:
        return a2b_base64(value, strict_mode=True)
    except ValueError as error:
        raise refusal(field, "is not base64") from error


def _read_ssdeep(value: str, field: str) -> bytes:
    """`blocksize:hash:hash`, as it stands. The first hash is empty only for the empty file."""
    value = value.strip()
    if not _SSDEEP.fullmatch(value):
        raise refusal(field, "is not blocksize:hash:hash")
    return value.encode()


def _read_vpdq(value: str, field: str) -> bytes:
    """A JSON list of `"hex,quality,timestamp"`, as it stands."""
    value = value.strip()
    # A block holds no control characters, and carrying as it stands leaves no way to take them out.
    if len(value) > MAX_RECORD_BYTES or not value.isascii() or not value.isprintable():
        raise refusal(field, "is too long, or has a line end or another character that no vPDQ needs")
    try:
        frames = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise refusal(field, "is not JSON") from error
    if not isinstance(frames, list) or not frames:
        raise refusal(field, "is not a JSON list of frames")
    for frame in frames:
        found = _VPDQ_FRAME.fullmatch(frame) if isinstance(frame, str) else None
        if not found or int(found[2]) > MAX_PDQ_QUALITY:
            raise refusal(field, "has a frame that is not hex,quality,timestamp")
        if found[1] == _ZERO_PDQ and int(found[2]) >= MIN_PDQ_QUALITY:
            raise refusal(field, "has a frame that is all zero and yet of good quality")
    return value.encode()


# Every digest that an adapter may take in, by the algorithm's name in `model.DIGEST_BYTES`.
DIGEST_READERS: dict[str, DigestReader] = {
    algorithm: _hex_reader(algorithm, DIGEST_BYTES[algorithm] or 0) for algorithm in UNUSABLE_DIGESTS
} | {"photodna": _read_photodna, "ssdeep": _read_ssdeep, "vpdq": _read_vpdq}
