"""gateway/adapters/asked_digests.py: lists of digests are read, and nothing that could be imagery ever is."""

from __future__ import annotations

import io

import pytest

from factory import sha256
from gateway.adapters.asked_digests import FORM, MAX_FRUITLESS, SIGNATURES, Asked, read_asked
from gateway.errors import GatewayError, MalformedError
from gateway.model import AdapterReport

MD5, SHA = "d077f244def8a70e5ea758bd8352fcd8", sha256("a").hex()


def read(text: str | bytes, *, column: str = "") -> tuple[list[Asked], AdapterReport]:
    report = AdapterReport(FORM)
    raw = text if isinstance(text, bytes) else text.encode()
    return list(read_asked(io.BytesIO(raw), report, column=column)), report


def test_one_on_each_line_with_whatever_tools_write_beside_it() -> None:
    found, report = read(f"\ufeff# mine\r\n{MD5}  cat.txt\r\n\r\n{SHA.upper()}\nsha256:{SHA}\n{MD5} *b.bin")
    assert found == [Asked(MD5, 2), Asked(SHA, 4), Asked(SHA, 5), Asked(MD5, 6)]
    assert (report.read, report.accepted, report.refused, report.dropped_fields) == (4, 4, 0, {"name": 2})


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_best_column_of_a_csv_file_or_the_one_that_is_named(delimiter: str) -> None:
    rows = [("name", "MD5", "pdq", "pdq_quality", "SHA256"), ("x", MD5, SHA, "49", ""), ("y", MD5, "", "", SHA)]
    text = "\n".join(delimiter.join(row) for row in rows)
    assert read(text)[0] == [Asked(SHA, 3)]
    assert read(text, column="md5")[0] == [Asked(MD5, 2, 49), Asked(MD5, 3)]
    assert read(text, column="PDQ")[0] == [Asked(SHA, 2, 49)]
    with pytest.raises(MalformedError, match="no such column"):
        read(text, column="sha1")


def test_a_single_column_with_or_without_its_name() -> None:
    for text in (f"sha256\n{SHA}\n", f'"{SHA}"\n', f"hash\n{SHA}"):
        assert [one.digest for one in read(text)[0]] == [SHA]
    assert read(f"mine\n{SHA}", column="mine")[0] == [Asked(SHA, 2)]


def test_rows_without_a_digest_are_refused_by_themselves_and_never_shown() -> None:
    found, report = read(f"{MD5}\nsecret words\n{MD5[:-1]}\n{'ab' * 25}\n{SHA}\n")
    assert [one.line for one in found] == [1, 5]
    assert [(row.line, row.field) for row in report.refused_rows] == [(2, "digest"), (3, "digest"), (4, "digest")]
    assert "secret" not in repr(report)
    _, report = read(f"md5,x\n{MD5},1\n{MD5}\n")
    assert [(row.line, row.field) for row in report.refused_rows] == [(3, "row")]


@pytest.mark.parametrize(("offset", "signature", "kind"), SIGNATURES, ids=lambda value: str(value)[:12])
def test_pictures_films_and_archives_are_refused_in_plain_words(offset: int, signature: bytes, kind: str) -> None:
    head = b"A" * offset + signature
    for raw in (head, head + f"\n{MD5}\n".encode(), head + b"\0" * 40):
        with pytest.raises(MalformedError, match="not a list of digests") as caught:
            read(raw)
        assert kind in caught.value.message
        assert "never takes imagery" in caught.value.remedy


@pytest.mark.parametrize(
    "raw",
    [
        b"BM\x36\x10\x00\x00\x00\x00\x00\x00",
        b"\x01\x00\x02",
        b"abc\0def",
        MD5.encode() + b"\n\0\n",
        b"md5,x\n" + MD5.encode() + b",\0\n",
        b"data:image/jpeg;base64," + b"QUJD" * 300_000,
        b"name,size\nx,3\n",
        b"\xff\xfem\0d\0",
        b"words\n" * MAX_FRUITLESS,
    ],
    ids=range(9),
)
def test_what_is_no_list_of_digests_is_refused_whole(raw: bytes) -> None:
    with pytest.raises(GatewayError):
        read(raw)


def test_names_that_begin_like_a_picture_are_names() -> None:
    assert read(f"BM_ref,md5\n1,{MD5}\n")[0] == [Asked(MD5, 2)]


def test_a_long_list_is_read_as_it_comes() -> None:
    lines = io.BytesIO(b"".join(f"{n:064x}\n".encode() for n in range(20_000)))
    stream = read_asked(lines, AdapterReport(FORM))
    assert next(iter(stream)).line == 1
    assert lines.tell() < 20_000 * 65
    assert sum(1 for _ in stream) == 19_999
