"""What the public is shown: a releasable person alone, nothing that names a case or a child, once two have signed."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from case_builders import SECRETS, case_record
from factory import FakeClock, SeededRandom, events, make_node
from gateway.audit import EventKind
from gateway.caserecord import Contact, Mark, MarkKind, SeriesName
from gateway.cases import Casebook
from gateway.cases.alerts import AlertForm, Alerts, alert_of
from gateway.crypto.keys import SigningKey
from gateway.errors import ConflictError, DeniedError, MalformedError, NotFoundError
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keystore import PersonalKey
from gateway.model import Restriction
from gateway.node import Node
from gateway.vidx import dump_case

ONE, TWO = (PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in ("one", "two"))
DIGEST = hashlib.sha256(b"made-up").hexdigest()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = make_node(tmp_path, clock=FakeClock(), quorum=2)
    for key in (ONE, TWO):
        bootstrap_administrator(node, key.name, key.signing_key.public)
    return node


def kept(node: Node, **changes: Any) -> tuple[Alerts, str]:
    book = Casebook(node)
    [taken] = book.take_in([case_record(**changes)], form="vidx")
    return Alerts(node, book), taken.case


def persons(**changes: Any) -> tuple[Any, ...]:
    first, second = case_record().persons
    return (replace(first, **changes), second)


def signed(node: Node, desk: Alerts, case: str, form: AlertForm, *keys: PersonalKey) -> str:
    identifier = approvals(node).propose(*desk.propose(case, "P-1", form), by="one")
    for key in keys:
        approvals(node).sign(identifier, key)
    return identifier


@pytest.mark.parametrize("form", AlertForm)
def test_exactly_the_bytes_that_two_have_signed_are_released(node: Node, form: AlertForm) -> None:
    desk, case = kept(node)
    with pytest.raises(DeniedError, match="two administrators"):
        desk.release(case, "P-1", form)
    identifier = approvals(node).propose(*desk.propose(case, "P-1", form), by="one")
    [change] = approvals(node).difference(identifier)
    assert "P-1" not in repr(approvals(node).get(identifier))
    approvals(node).sign(identifier, ONE)
    with pytest.raises(DeniedError):
        desk.release(case, "P-1", form)
    approvals(node).sign(identifier, TWO)
    raw = desk.release(case, "P-1", form)
    assert raw.decode() == change.then  # what they saw is what goes
    [event] = events(node, EventKind.CASE_RELEASED)
    assert event.details == {
        "case": case,
        "form": str(form),
        "digest": hashlib.sha256(raw).hexdigest(),
        "proposal": identifier,
    }
    node.clock.advance(40 * 86_400)  # type: ignore[attr-defined]
    assert desk.release(case, "P-1", form) == raw
    for other, who in ((form, "P-2"), (next(one for one in AlertForm if one is not form), "P-1")):
        with pytest.raises(DeniedError):
            desk.release(case, who, other)


def test_it_holds_marks_description_age_sex_and_whom_to_call_and_nothing_else(node: Node) -> None:
    desk, case = kept(node)
    signed(node, desk, case, AlertForm.JSON, ONE, TWO)
    value = json.loads(desk.release(case, "P-1", AlertForm.JSON))
    assert value == {
        "alert": "alert 1",
        "agency": "XA-NCVI",
        "issued": "2026-11-18",
        "person": {
            "sex": "male",
            "age": {"low": 30, "high": 40},
            "description": "speaks with a soft voice",
            "marks": [{"kind": "tattoo", "where": "left forearm", "text": "an anchor"}],
        },
        "contact": {"unit": "XA victim identification unit", "telephone": "+00 1", "email": "unit@xa.example"},
    }
    told = json.dumps(value)
    hidden = {*SECRETS, "P-1", "+00 2", bytes(range(32)).hex()} - {"speaks with a soft voice"}
    assert not any(secret in told for secret in hidden)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"persons": persons(releasable=False)}, DeniedError),
        ({"restrictions": (Restriction.EMBARGO,)}, DeniedError),
        ({"restrictions": (Restriction.COURT_ORDER,)}, DeniedError),
        ({"persons": persons(marks=(), description="")}, MalformedError),
        ({"persons": ()}, NotFoundError),
        ({"contact": None}, ConflictError),  # a case that lacks something is not open
    ],
)
def test_who_may_not_be_shown_is_not_shown(node: Node, changes: dict[str, Any], error: Any) -> None:
    desk, case = kept(node, **changes)
    with pytest.raises(error):
        desk.propose(case, "P-1", AlertForm.JSON)
    with pytest.raises(error):
        desk.release(case, "P-1", AlertForm.JSON)


@pytest.mark.parametrize(
    "words",
    [
        DIGEST,
        DIGEST.upper(),
        DIGEST[:24],
        " ".join(DIGEST[at : at + 4] for at in range(0, 64, 4)),
        ":".join(DIGEST[at : at + 2] for at in range(0, 32, 2)),
        "\u200b".join(DIGEST),
        "".join(chr(ord(one) + 0xFEE0) for one in DIGEST),  # full-width digits and letters
        "AAECAwQFBgcICQoLDA0ODw==",
        "see K-2026-0417",
        "see k 2026 0417",
        "see K\u00ad-2026\u200b-0417",
        "of the child V-17",
        "the BLUE  DOOR pictures",
        "the Azure Gate pictures",
        "with P-2",
        "B\u0301lue Door",
    ],
)
@pytest.mark.parametrize("place", ["description", "mark", "where", "unit"])
def test_a_text_that_names_a_digest_a_case_a_child_or_a_series_is_refused(words: str, place: str, node: Node) -> None:
    changes: dict[str, Any] = {"series": (SeriesName("Blue Door", "XA-NCVI", ("Azure Gate",)),)}
    match place:
        case "description":
            changes["persons"] = persons(description=f"an anchor, {words}")
        case "mark":
            changes["persons"] = persons(marks=(Mark(MarkKind.TATTOO, "", words),))
        case "where":
            changes["persons"] = persons(marks=(Mark(MarkKind.TATTOO, words, "an anchor"),))
        case _:
            changes["contact"] = Contact(words)
    desk, case = kept(node, **changes)
    with pytest.raises(DeniedError, match=r"digest|names the case") as refused:
        desk.propose(case, "P-1", AlertForm.JSON)
    assert words not in str(refused.value)


def test_ordinary_words_go(node: Node) -> None:
    words = (
        "wears a red coat; says “dead feed” often; 1.80 m, about 30-40 years; call +49 30 1234567 or come to room V-171"
    )
    desk, case = kept(node, persons=persons(description=words))
    desk.propose(case, "P-1", AlertForm.HTML)
    assert alert_of(Casebook(node).get(case), "P-1", node.today).person.description == words


def test_html_of_hostile_texts_runs_nothing(node: Node) -> None:
    hostile = '</td><script>alert(1)</script><img src=x onerror="a()">\n\'"&{agency}{{x}}'
    changes = {
        "persons": persons(description=hostile, marks=(Mark(MarkKind.OTHER, '"><svg onload=a()>', hostile),)),
        "contact": Contact('<a href="javascript:a()">unit</a>'),
    }
    book = Casebook(node)
    [taken] = book.take_in([case_record(**changes)], form="vidx")
    page = alert_of(book.get(taken.case), "P-1", node.today).dump(AlertForm.HTML).decode()
    tags = set(re.findall(r"<(/?[a-zA-Z]+)", page))
    plain = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h",
        "table",
        "tr",
        "th",
        "td",
        "ul",
        "li",
        "b",
        "p",
        "br",
    }
    assert {tag.strip("/") for tag in tags} <= plain
    assert "&lt;script&gt;" in page
    assert "{agency}" in page
    assert not re.search(r"https?://|url\(|@import", page)
    assert "default-src 'none'" in page


def test_an_approval_is_for_the_case_as_it_was_and_for_nothing_that_was_put_into_the_database(node: Node) -> None:
    desk, case = kept(node)
    signed(node, desk, case, AlertForm.JSON, ONE, TWO)
    desk.release(case, "P-1", AlertForm.JSON)
    book = Casebook(node)
    book.take_in([case_record(version=2, persons=persons(description="another"))], form="vidx", update=True)
    with pytest.raises(DeniedError):
        desk.release(case, "P-1", AlertForm.JSON)
    # A proposal of before cannot be signed through either.
    stale = signed(node, desk, case, AlertForm.JSON, ONE)
    book.take_in([case_record(version=3, persons=persons(releasable=False))], form="vidx", update=True)
    with pytest.raises(DeniedError):
        approvals(node).sign(stale, TWO)
    # A draft that says of itself that it was approved was not: only the log tells so.
    book.take_in([case_record(version=4)], form="vidx", update=True)
    _, arguments = desk.propose(case, "P-1", AlertForm.HTML)
    with node.store.transaction() as tx:
        draft = tx.cases.draft(str(arguments["digest"]))
        assert draft is not None
        tx.cases.put_draft(draft.model_copy(update={"proposal": stale}))
    with pytest.raises(DeniedError):
        desk.release(case, "P-1", AlertForm.HTML)


def test_a_partners_case_is_not_ours_to_show(node: Node) -> None:
    book = Casebook(node)
    row = book.new_row(case_record("XB-NCVI"), "XB-NCVI")
    from gateway.vidx import parse_case

    with node.store.transaction() as tx:
        report = parse_case(dump_case(case_record("XB-NCVI"), list(case_groups())))
        book.put(tx, row, report, deed="received", details={"partner": "XB-NCVI"})
    with pytest.raises(DeniedError, match="only its originator"):
        Alerts(node, book).propose(row.id, "P-1", AlertForm.JSON)


def case_groups() -> tuple[Any, ...]:
    from gateway.caserecord import CASE_GROUPS

    return CASE_GROUPS
