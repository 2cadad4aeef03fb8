"""Foreign case files with something odd in any place are refused with a reason, or read, and never anything else."""

from __future__ import annotations

import copy
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from case_strategies import full_case
from gateway.adapters.cases import CaseOptions, read_cases, write_cases
from gateway.errors import MalformedError
from gateway.model import AdapterReport

DATA = Path(__file__).parent / "data_adapters"
OPTIONS = CaseOptions(originator="XA-NCVI", read_at=1_795_000_000)
SAMPLES = {"stix": "stix-2.1-cases.json", "case_uco": "case-uco-1.5.jsonld", "vics": "vics-2.0-cases.json"}
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 10**30, "", " ", "\u0000", "\ud800", "x" * 300, "a\nb", "a\rb", [], {}, [[]], [{}],
    {"@id": "kb:x"}, {"@id": 7}, {"@value": []}, {"@list": 7}, {"@type": []}, "9999-12-31T23:59:59Z", "0001-01-01",
    ["grouping--00000000-0000-4000-8000-000000000011"], "case", "victim", 1.5,
)  # fmt: skip


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        found += places(one, (*path, key))
    return found


def put(value: Any, path: tuple[Any, ...], odd: object) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = odd


def documents(form: str) -> list[Any]:
    found = [json.loads((DATA / SAMPLES[form]).read_text())]
    if form in {"stix", "case_uco"}:
        found.append(json.loads(b"".join(write_cases([full_case()], form, AdapterReport(form)))))
    return found


@pytest.mark.parametrize("form", SAMPLES)
def test_an_odd_value_in_any_place_is_refused_or_read(form: str) -> None:
    chance = random.Random(7)
    refused = read = 0
    for document in documents(form):
        for path in places(document):
            for odd in chance.sample(ODD, 2):
                mangled = copy.deepcopy(document)
                put(mangled, path, odd)
                report = AdapterReport(form)
                try:
                    read += len(
                        list(read_cases(io.BytesIO(json.dumps(mangled).encode()), form, report, options=OPTIONS))
                    )
                except MalformedError:
                    continue
                refused += report.refused
                assert report.read == report.accepted + report.refused
    assert refused
    assert read


def test_an_odd_text_in_any_element_of_a_hotline_report_is_refused_or_read() -> None:
    raw = (DATA / "hotline.xml").read_bytes()
    chance = random.Random(7)
    texts = ("", " ", "-1", "999", "1000", "x" * 300, "a\nb", "&lt;", "\u2028", "<a/>", "<a>b</a>c", "\u00a0", "1e9")
    starts = [place for place in range(len(raw)) if raw[place : place + 1] == b">"]
    read = 0
    for start in starts:
        end = raw.find(b"<", start)
        odd = chance.choice(texts).encode()
        report = AdapterReport("hotline")
        try:
            source = io.BytesIO(raw[: start + 1] + odd + raw[end:])
            read += len(list(read_cases(source, "hotline", report, options=OPTIONS)))
        except MalformedError:
            continue
        assert report.read == report.accepted + report.refused
    assert read


@pytest.mark.parametrize("form", [*SAMPLES, "hotline"])
def test_a_file_that_is_cut_off_is_refused_whole(form: str) -> None:
    raw = (DATA / (SAMPLES | {"hotline": "hotline.xml"})[form]).read_bytes().rstrip()
    for end in range(0, len(raw) - 1, 97):
        with pytest.raises(MalformedError):
            list(read_cases(io.BytesIO(raw[:end]), form, AdapterReport(form), options=OPTIONS))
