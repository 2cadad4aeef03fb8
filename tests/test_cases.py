"""The casebook: what is kept of a case, who may change it, what is missing, and when it goes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from case_builders import CLUE, DESCRIPTION, SECRETS, SUMMARY, case_record, draft_record
from factory import FakeClock, events, make_node
from gateway import alarms
from gateway.audit import EventKind
from gateway.caserecord import Contact, Urgency
from gateway.cases import Casebook, CaseState, Statements
from gateway.cli import app
from gateway.errors import ConflictError, DeniedError, GatewayError, MalformedError, NotFoundError
from gateway.model import HandlingCode, Purpose, Restriction
from gateway.node import Node
from gateway.vidx import dump_case

DAY = 86_400
LAW = "XA Police Data Act 2019, section 12"
WHOLE = Statements(
    handling=HandlingCode.H1,
    legal_basis=LAW,
    purpose=Purpose.SAFEGUARDING,
    review_on=date(2027, 1, 31),
    contact=Contact("XA unit"),
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def node(tmp_path: Path, clock: FakeClock) -> Node:
    return make_node(tmp_path, clock=clock)


@pytest.fixture
def book(node: Node) -> Casebook:
    return Casebook(node)


def take(book: Casebook, *records: Any, update: bool = False) -> list[str]:
    return [one.case for one in book.take_in(records, form="vidx", update=update)]


def test_a_case_is_kept_whole_and_nothing_of_it_is_readable_outside_its_report(book: Casebook, node: Node) -> None:
    record = case_record()
    [case] = take(book, record)
    held = book.get(case[:8])
    assert (held.record, held.row.state, held.row.missing) == (record, "open", "")
    with node.store.reading() as tx:
        row = repr(tx.cases.find(case))
    told = "".join(map(repr, events(node, EventKind.CASE_CHANGED)))
    for secret in SECRETS:
        assert secret not in row + told
    assert node.settings.database_url.startswith("postgresql") or not any(
        secret.encode() in (node.settings.folder / "gateway.db").read_bytes() for secret in SECRETS
    )


def test_what_law_needs_and_nobody_stated_keeps_a_case_in_the_inbox_until_a_person_states_it(book: Casebook) -> None:
    first, second = take(
        book,
        draft_record(reference="K-1", urgency=Urgency.ROUTINE),
        draft_record(reference="K-2", urgency=Urgency.CHILD_AT_RISK),
    )
    assert [row.id for row in book.inbox()] == [second, first]  # the child at risk first
    assert book.inbox()[0].missing.split() == ["handling", "legal_basis", "purpose", "review_on", "contact"]
    assert book.complete(first, Statements(handling=HandlingCode.H2)).row.state == CaseState.INBOX
    with pytest.raises(ConflictError, match="handling is stated already"):
        book.complete(first, Statements(handling=HandlingCode.H0))
    done = book.complete(first, replace(WHOLE, handling=None))
    assert (done.row.state, done.record.handling, done.record.legal_basis) == (CaseState.OPEN, HandlingCode.H2, LAW)
    assert [row.id for row in book.inbox()] == [second]
    with pytest.raises(MalformedError):
        book.complete(second, Statements())


def test_a_newer_version_keeps_what_a_person_stated_and_an_older_one_is_refused(book: Casebook) -> None:
    [case] = take(book, draft_record(version=3))
    book.complete(case, WHOLE)
    [again] = book.take_in([draft_record(version=3)], form="vidx")
    assert (again.case, again.outcome) == (case, "known")
    newer = draft_record(version=4, summary="seen a fourth time", handling=HandlingCode.H2)
    with pytest.raises(ConflictError, match="newer version"):
        take(book, newer)
    assert take(book, newer, update=True) == [case]
    held = book.get(case)
    assert (held.row.version, held.record.summary, held.row.state) == (4, "seen a fourth time", "open")
    assert (held.record.handling, held.record.legal_basis) == (HandlingCode.H2, LAW)
    for record, match in [
        (draft_record(version=3), "older version"),
        (replace(newer, summary="other words"), "same version"),
        (draft_record(version=9, reference="unknown"), "no such case"),
    ]:
        with pytest.raises(ConflictError, match=match):
            take(book, record, update=True)
    assert book.get(case).record == held.record


def test_a_file_with_another_agencys_case_changes_nothing(book: Casebook) -> None:
    with pytest.raises(DeniedError, match="our own cases only"):
        take(book, case_record(), case_record("XB-NCVI"))
    assert book.all() == []


def test_a_closed_case_stays_closed_until_it_is_reopened(book: Casebook) -> None:
    [case] = take(book, case_record())
    assert book.close(case).state == CaseState.CLOSED
    with pytest.raises(ConflictError):
        book.close(case)
    take(book, case_record(version=2), update=True)
    assert book.get(case).row.state == CaseState.CLOSED
    assert book.reopen(case).state == CaseState.OPEN
    for wrong in ("", "f" * 32, case[:5]):
        with pytest.raises(NotFoundError):
            book.get(wrong)


def test_a_review_date_that_passes_alarms_and_at_last_the_case_is_erased(
    book: Casebook, node: Node, clock: FakeClock
) -> None:
    today = node.today
    [case] = take(book, case_record(review_on=today))
    [held] = take(book, case_record(reference="held", review_on=today, restrictions=(Restriction.LEGAL_HOLD,)))
    assert (alarms.sweep(node), book.keep_house()) == ([], 0)
    clock.advance(DAY)
    assert {(one.kind, one.subject) for one in alarms.sweep(node)} == {
        (alarms.AlarmKind.CASE_REVIEW_DUE, case),
        (alarms.AlarmKind.CASE_REVIEW_DUE, held),
    }
    clock.advance((node.settings.case_erase_days - 1) * DAY)
    assert book.keep_house() == 0
    clock.advance(DAY)
    assert book.keep_house() == 1
    [row] = book.all([CaseState.ERASED])
    assert (row.id, row.sealed_report, row.victim_status) == (case, b"", "")
    with pytest.raises(ConflictError, match="gone"):
        book.get(case)
    assert [(one.details["case"], one.details["deed"]) for one in events(node, EventKind.CASE_CHANGED)][-1] == (
        case,
        "erased",
    )
    assert [one.subject for one in alarms.sweep(node)] == [held]  # a legal hold keeps it, and its alarm
    [again] = take(book, case_record(version=7))  # the reference may come again: as another case
    assert again != case


def test_a_new_review_date_puts_the_end_off(book: Casebook, node: Node, clock: FakeClock) -> None:
    [case] = take(book, case_record(review_on=node.today))
    clock.advance(DAY)
    book.complete(case, Statements(review_on=date(2028, 1, 1)))
    assert alarms.sweep(node) == []
    clock.advance((node.settings.case_erase_days + 1) * DAY)
    assert book.keep_house() == 0


def test_the_newest_version_wins_whatever_order_they_come_in(book: Casebook) -> None:
    for number, order in enumerate(permutations(range(1, 4))):
        reference, newest = f"K-{number}", order[0]
        [case] = take(book, case_record(reference=reference, version=newest))
        for version in order[1:]:
            record = case_record(reference=reference, version=version)
            if version < newest:
                with pytest.raises(ConflictError, match="older"):
                    take(book, record, update=True)
            else:
                assert take(book, record, update=True) == [case]
                newest = version
        assert book.get(case).row.version == 3


def test_whoever_writes_the_database_neither_erases_a_case_nor_lifts_its_duties(
    book: Casebook, node: Node, clock: FakeClock
) -> None:
    cases = {
        name: take(book, case_record(reference=name))[0] for name in ("until", "duties", "review", "garbage", "own")
    }
    changes = {
        "until": {"keep_until": clock()},
        "duties": {"obligations": "retain_days(1)"},
        "review": {"review_on": "2020-01-01"},
        "garbage": {"review_on": "0"},
    }
    with node.store.transaction() as tx:
        for name, values in changes.items():
            row = tx.cases.find(cases[name])
            assert row is not None
            tx.cases.replace(row.model_copy(update=values))
    clock.advance(300 * DAY)
    assert book.keep_house() == 0
    assert {row.state for row in book.all()} == {CaseState.OPEN}
    for name in ("until", "duties"):
        with pytest.raises(GatewayError):
            book.get(cases[name])
    # Somebody has to look, and nothing else waits for that.
    assert {one.subject for one in alarms.sweep(node)} == set(cases.values())


def test_a_row_under_another_id_or_version_does_not_open(book: Casebook, node: Node) -> None:
    """Who writes the database cannot put an old report, or another case's, in a case's place."""
    [case] = take(book, case_record())
    [other] = take(book, case_record(reference="another"))
    with node.store.transaction() as tx:
        mine, foreign = tx.cases.find(case), tx.cases.find(other)
        assert mine is not None
        assert foreign is not None
        mine.sealed_report = foreign.sealed_report
        tx.cases.replace(mine)
        foreign.version = 2
        tx.cases.replace(foreign)
    for one in (case, other):
        with pytest.raises(GatewayError):
            book.get(one)


# On the command line


def gateway(*arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments, prog_name="gateway")
    assert result.exit_code == exit_code, (arguments, result.output, result.stderr)
    return result


def json_of(*arguments: str) -> Any:
    return json.loads(gateway(*arguments, "--json").stdout)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_HOME", str(tmp_path / "xa"))
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", str(tmp_path / "gateway.pass"))
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
    for name in ("gateway.pass", "alice.pass"):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text("only invented data is behind this\n")
    gateway("init", "--demo", "--agency", "XA-NCVI", "--name", "A unit")
    return tmp_path


def test_people_bring_in_complete_read_and_close_a_case(desk: Path) -> None:
    (desk / "case.xml").write_bytes(dump_case(draft_record()))
    [taken] = json_of("case", "import", "case.xml")["cases"]
    assert taken["missing"] == ["handling", "legal_basis", "purpose", "review_on", "contact"]
    case = taken["case"]
    said = gateway("case", "inbox").stdout
    assert case in said
    assert not any(secret in said for secret in SECRETS)
    stated = ("--handling", "H1", "--legal-basis", LAW, "--purpose", "safeguarding", "--review-on", "2027-01-31")
    assert json_of("case", "complete", case, *stated)["missing"] == ["contact"]
    gateway("case", "complete", case, "--telephone", "+00 1", exit_code=3)
    assert "may be referred" in gateway("case", "complete", case, "--contact", "XA unit", "--telephone", "+00 1").stdout
    # Texts stay folded until they are asked for.
    folded = gateway("case", "show", case).stdout + json.dumps(json_of("case", "show", case))
    assert not any(text in folded for text in (CLUE, SUMMARY, DESCRIPTION))
    assert CLUE in gateway("case", "show", case, "--clues").stdout
    opened = gateway("case", "show", case, "--descriptions").stdout
    assert SUMMARY in opened
    assert DESCRIPTION in opened
    assert json_of("case", "show", case, "--clues")["clue_texts"][0]["text"] == CLUE
    (desk / "case.xml").write_bytes(dump_case(draft_record(version=2)))
    assert json_of("case", "update", "case.xml")["cases"] == [{"case": case, "outcome": "newer", "missing": []}]
    assert json_of("case", "close", case)["state"] == "closed"
    assert [one["case"] for one in json_of("case", "list", "--state", "closed")] == [case]
    assert json_of("case", "reopen", case)["state"] == "open"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("case", "import", "nothing.xml"), 9),
        (("case", "import", "case.xml", "--format", "morse"), 3),
        (("case", "show", "0123456789"), 7),
        (("case", "complete", "0123456789", "--review-on", "tomorrow"), 3),
    ],
)
def test_what_cannot_be_done_with_a_case_is_a_sentence_and_an_exit_code(
    desk: Path, arguments: tuple[str, ...], code: int
) -> None:
    (desk / "case.xml").write_bytes(dump_case(draft_record()))
    said = gateway(*arguments, exit_code=code).stderr
    assert said.startswith("Error: ")
    assert not any(secret in said for secret in SECRETS)


@pytest.mark.parametrize(
    ("name", "references"), [("hotline.xml", 2), ("vics-2.0-cases.json", 2), ("stix-2.1-cases.json", 3)]
)
def test_cases_of_foreign_files_wait_for_a_person(desk: Path, name: str, references: int) -> None:
    told = json_of("case", "import", str(Path(__file__).parent / "data_adapters" / name))
    assert [one["outcome"] for one in told["cases"]] == ["new"] * references
    assert told["dropped"]
    waiting = json_of("case", "inbox")
    assert len(waiting) == references
    assert all("legal_basis" in one["missing"] for one in told["cases"])


def test_a_file_of_more_cases_than_are_taken_together_changes_nothing(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.cli.cases.MAX_FILE_CASES", 1)
    gateway("case", "import", str(Path(__file__).parent / "data_adapters" / "hotline.xml"), exit_code=3)
    assert json_of("case", "list") == []


def test_what_cannot_be_referred_is_a_sentence_and_messages_show_no_words_of_cases(desk: Path) -> None:
    (desk / "case.xml").write_bytes(dump_case(case_record()))
    case = json_of("case", "import", "case.xml")["cases"][0]["case"]
    assert json_of("case", "proposals") == []
    assert "no unit of this country is a partner" in gateway("case", "refer", case, "--to", "XD", exit_code=7).stderr
    assert json_of("case", "thread", case) == {"threads": [], "messages": []}
    for words in (("accept", case), ("decline", case, "--reason", "no")):
        assert gateway("case", *words, exit_code=5).stderr.startswith("Error: this case is our own")
    gateway("case", "say", case, "--text", "hello", exit_code=7)
    gateway("case", "recall", case, "--from", "XB-NCVI", "--reason", "wrong", exit_code=7)


ALICE = ("--admin", "alice", "--admin-passphrase-file", "alice.pass")


def test_people_print_a_chain_of_custody_and_release_an_alert(desk: Path) -> None:
    (desk / "case.xml").write_bytes(dump_case(case_record()))
    case = json_of("case", "import", "case.xml")["cases"][0]["case"]
    told = json_of("case", "custody", case, "--html", "custody.html")
    assert (told["verdict"], [one["deed"] for one in told["steps"]]) == ("verified", ["imported"])
    assert "Chain of custody" in (desk / "custody.html").read_text()
    assert "The whole chain: verified." in gateway("case", "custody", case).stdout
    gateway("admin", "add", "alice", "--admin-passphrase-file", "alice.pass")
    for form in ("json", "html"):
        gateway("case", "alert", case, "P-1", "--format", form, exit_code=5)
        assert "done" in gateway("case", "alert", case, "P-1", "--format", form, *ALICE).stdout.lower()
    assert json.loads(gateway("case", "alert", case, "P-1").stdout)["alert"] == "alert 1"
    gateway("case", "alert", case, "P-1", "--format", "html", "--out", "alert.html")
    assert (desk / "alert.html").read_text().startswith("<!doctype html>")
    gateway("case", "alert", case, "P-2", *ALICE, exit_code=5)
