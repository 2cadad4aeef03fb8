"""Certificates: what a court gets verifies with files alone; whatever is changed in it, or revoked, does not."""

from __future__ import annotations

import ast
import base64
import json
import runpy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from factory import FakeClock, SeededRandom, drafts, events, make_node, make_set, sha256, signed_card_of
from gateway.approvals import DONE
from gateway.audit import EventKind
from gateway.cases.assertions import Wish
from gateway.certificates import CERTIFICATE_TYPE, REVOCATION_TYPE, page, sign, statement_in
from gateway.crypto import canonical
from gateway.crypto.keys import SigningKey
from gateway.errors import ConflictError, MalformedError
from gateway.exchange import Exchange
from gateway.exchange.lookup import format_entry
from gateway.interchange import parse_card
from gateway.keyadmin import approvals, bootstrap_administrator
from gateway.keystore import PersonalKey
from gateway.model import VictimStatus
from partner_simulator import held_entries, refused

SCRIPT = Path(__file__).parents[1] / "scripts" / "verify_certificate.py"
MAIN = runpy.run_path(str(SCRIPT))["main"]
VECTORS = json.loads((Path(__file__).parent / "vectors" / "certificate.json").read_text())
ONE, TWO = (PersonalKey(name, SigningKey.generate(SeededRandom(name))) for name in ("one", "two"))
COURT = "Regional court of XA, 12 Kls 34/26"
IDENTIFIED = Wish(VictimStatus.IDENTIFIED)
Value = dict[str, object]


@dataclass
class Court:
    """A gateway with one identified child, and its certificates in files."""

    folder: Path
    exchange: Exchange
    set_name: str
    entry: str

    def assert_status(self, wish: Wish = IDENTIFIED) -> str:
        return self.exchange.statuses.set_entries(self.set_name, [self.entry], wish, actor="tester").assertion.id

    def issue(self, reference: str = COURT) -> bytes:
        node, certificates = self.exchange.node, self.exchange.statuses.certificates
        act = certificates.issue(self.exchange.shelf, self.set_name, self.entry, reference)
        desk = approvals(node)
        number = desk.propose(*act, by=ONE.name)
        assert desk.sign(number, ONE).state != DONE, "one alone certifies nothing"
        desk.sign(number, TWO)
        return certificates.all()[0].file

    def verify(self, file: bytes, *more: str, card: bytes | None = None) -> int:
        (self.folder / "file").write_bytes(file)
        (self.folder / "card").write_bytes(card or signed_card_of(self.exchange.node))
        return int(MAIN([str(self.folder / "file"), "--card", str(self.folder / "card"), *more]))


def court_of(tmp_path: Path, agency: str = "XA-NCVI") -> Court:
    node = make_node(tmp_path, agency, clock=FakeClock(), quorum=2)
    for key in (ONE, TWO):
        bootstrap_administrator(node, key.name, key.signing_key.public)
    exchange = Exchange(node)
    name = make_set(exchange, "found", drafts(3))
    found = {one["sha256"]: entry for entry, one in held_entries(exchange, name).items()}
    return Court(tmp_path, exchange, name, format_entry(found[sha256("made-up 1")]))


@pytest.fixture(scope="module")
def court(tmp_path_factory: pytest.TempPathFactory) -> Court:
    made = court_of(tmp_path_factory.mktemp("court"))
    made.assert_status()
    return made


@pytest.fixture(scope="module")
def good(court: Court) -> bytes:
    return court.issue()


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


# A good one


def test_a_good_certificate_is_verified_step_by_step_with_files_alone(
    court: Court, good: bytes, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(good)
    (tmp_path / "card").write_bytes(signed_card_of(court.exchange.node))
    words = parse_card(signed_card_of(court.exchange.node)).fingerprint
    digest = sha256("made-up 1").hex()
    command = [sys.executable, "-I", str(SCRIPT), "file", "--card", "card", "--fingerprint", words, "--digest", digest]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    steps = done.stdout.splitlines()
    assert [line.split()[0] for line in steps[:6]] == ["1", "2", "3", "4", "5", "6"]
    assert COURT in steps[4]
    assert "a real child, identified since 2026-11-18 11:06:40 UTC" in steps[4]
    assert steps[6] == "  no revocation given; ask the agency whether there is one"
    assert steps[7] == "verified"
    assert "does not prove" in steps[8]


def test_the_script_needs_nothing_but_python_and_cryptography() -> None:
    tree = ast.parse(SCRIPT.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) == {"cryptography"}


def test_no_name_and_nothing_but_digests_of_the_material_stands_in_it(court: Court, good: bytes) -> None:
    statement = statement_in(good)
    assert statement["digests"] == [["sha256", sha256("made-up 1").hex()]]
    assert set(statement) == {
        *("certificate", "id", "agency", "assertion", "version", "status", "since", "issued"),
        *("court_reference", "digests", "says"),
    }
    issued = events(court.exchange.node, EventKind.CERTIFICATE_ISSUED)[0]
    assert COURT not in issued.encode().decode()
    assert sha256("made-up 1").hex() not in issued.encode().decode()


def test_the_page_for_a_printer_says_the_same_and_runs_nothing(good: bytes) -> None:
    shown = page(good, "441e 3247")
    assert sha256("made-up 1").hex() in shown
    assert "441e 3247" in shown
    assert not any(word in shown for word in ("<script", "http:", "https:", "src="))


# Attacks


def changed(value: object) -> Iterator[object]:
    """Other values of the same kind."""
    match value:
        case bool():
            yield not value
        case int():
            yield value + 1
            yield 0
        case str():
            yield value + "0"
            yield value[:-1] + ("0" if value[-1:] != "0" else "1")
            yield ""
        case list():
            yield [*value, *value[:1]]
            yield []


def variants(whole: Value) -> Iterator[tuple[str, Value]]:
    """The object with one member changed, left out or added."""
    for name, value in whole.items():
        for other in changed(value):
            yield f"{name} changed", {**whole, name: other}
        yield f"without {name}", {key: one for key, one in whole.items() if key != name}
    yield "another member", {**whole, "name": "somebody"}


def parsed(raw: bytes) -> Value:
    value = json.loads(raw)
    assert isinstance(value, dict)
    return value


def test_every_changed_field_of_file_statement_and_event_is_refused(
    court: Court, good: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    file = parsed(good)
    tried = 0
    for what, other in variants(file):
        assert court.verify(canonical.encode(other)) == 4, what
        tried += 1
    for what, other in variants(parsed(str(file["event"]).encode())):
        event = canonical.encode(other).decode()
        assert court.verify(canonical.encode({**file, "event": event})) == 4, f"event: {what}"
        tried += 1
    envelope = parsed(str(file["signed"]).encode())
    for what, other in variants(statement_in(good)):
        payload = base64.b64encode(canonical.encode(other)).decode()
        signed = canonical.encode({**envelope, "payload": payload}).decode()
        assert court.verify(canonical.encode({**file, "signed": signed})) == 4, f"statement: {what}"
        tried += 1
    assert tried > 60
    assert court.verify(good) == 0
    assert all("NOT VERIFIED" in line for line in said(capsys) if line.startswith("2 N"))


def test_a_statement_that_the_right_keys_signed_but_the_log_does_not_hold_is_refused(
    court: Court, good: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = canonical.encode({**statement_in(good), "court_reference": "another court"})
    signed = sign(forged, CERTIFICATE_TYPE, court.exchange.node.keystore.signing_key).decode()
    assert court.verify(canonical.encode({**parsed(good), "signed": signed})) == 4
    assert said(capsys)[-1].endswith("the log's event is of another statement")
    as_other = sign(canonical.encode(statement_in(good)), REVOCATION_TYPE, court.exchange.node.keystore.signing_key)
    assert court.verify(canonical.encode({**parsed(good), "signed": as_other.decode()})) == 4
    assert "another kind of statement" in said(capsys)[-1]


def test_another_agencys_key_card_or_log_does_not_stand_in(
    court: Court, good: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = court_of(tmp_path, "XB-NCVI")
    other.assert_status()
    theirs, card = other.issue(), signed_card_of(other.exchange.node)
    assert other.verify(theirs) == 0
    assert court.verify(theirs) == 4
    assert court.verify(good, card=card) == 4
    key = other.exchange.node.keystore.signing_key
    signed = sign(canonical.encode(statement_in(good)), CERTIFICATE_TYPE, key).decode()
    assert court.verify(canonical.encode({**parsed(good), "signed": signed})) == 4
    assert "other keys than the card's" in said(capsys)[-1]
    mine = parsed(signed_card_of(court.exchange.node))
    payload = parsed(base64.b64decode(str(mine["payload"])))
    with_their_log = {**payload, "log": parse_card(card).log}
    forged = canonical.encode({**mine, "payload": base64.b64encode(canonical.encode(with_their_log)).decode()})
    assert court.verify(good, card=forged) == 4
    assert court.verify(good, "--fingerprint", parse_card(card).fingerprint) == 4
    assert court.verify(good, "--digest", sha256("made-up 2").hex()) == 4
    capsys.readouterr()


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[" * 100_000, b"{}", b" " * 2_000_000, b"1" * 10_000])
def test_hostile_bytes_are_refused_without_a_traceback(
    court: Court, good: bytes, raw: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert court.verify(raw) == 4
    assert court.verify(good, card=raw or b"x") == 4
    (court.folder / "revocation").write_bytes(raw)
    assert court.verify(good, "--revocation", str(court.folder / "revocation")) == 4
    assert all("NOT VERIFIED" in line for line in said(capsys) if "VERIFIED" in line)


# Revoking


def test_lowering_revokes_what_was_certified_and_the_verifier_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    court = court_of(tmp_path)
    court.assert_status()
    first = court.issue()
    court.issue("another court")
    certificates = court.exchange.statuses.certificates
    done = court.exchange.statuses.set_entries(
        court.set_name, [court.entry], Wish(VictimStatus.UNIDENTIFIED, "another child"), actor="tester"
    )
    assert len(done.revoked) == 2
    by_reference = {one.court_reference: one for one in certificates.all()}
    assert all(one.revoked for one in by_reference.values())
    files = {name: tmp_path / str(at) for at, name in enumerate(by_reference)}
    for name, path in files.items():
        path.write_bytes(by_reference[name].revocation)
    assert court.verify(first) == 0  # nobody can tell from the certificate alone
    assert court.verify(first, "--revocation", str(files["another court"])) == 0
    capsys.readouterr()
    assert court.verify(first, "--revocation", str(files[COURT])) == 4
    assert "REVOKED on 2026-11-18" in said(capsys)[-1]
    forged = parsed(by_reference[COURT].revocation)
    files[COURT].write_bytes(canonical.encode({**forged, "signed": str(parsed(first)["signed"])}))
    assert court.verify(first, "--revocation", str(files[COURT])) == 4
    assert "another kind of statement" in said(capsys)[-1]
    assert isinstance(refused(court.issue), ConflictError)  # and nothing new is certified


def test_only_what_we_assert_ourselves_as_identified_is_certified(tmp_path: Path) -> None:
    court = court_of(tmp_path)
    assert isinstance(refused(court.issue), ConflictError)
    number = court.assert_status(Wish(VictimStatus.LEAD))
    assert isinstance(refused(court.issue), ConflictError)
    court.assert_status()
    assert isinstance(refused(lambda: court.issue("two\nlines")), MalformedError)
    one = court.exchange.statuses.certificates
    assert statement_in(court.issue())["assertion"] == number
    issued = one.all()[0]
    assert one.revoke(issued.id[:12], "issued by mistake", actor="tester").revoked
    assert isinstance(refused(lambda: one.revoke(issued.id, "again", actor="tester")), ConflictError)
    assert len(events(court.exchange.node, EventKind.CERTIFICATE_REVOKED)) == 1


def test_what_waits_for_a_signature_is_not_certified_once_the_status_is_lowered(tmp_path: Path) -> None:
    court = court_of(tmp_path)
    number = court.assert_status()
    desk = approvals(court.exchange.node)
    proposal = desk.propose(*court.exchange.statuses.certificates.issue_for(number, COURT), by=ONE.name)
    desk.sign(proposal, ONE)
    court.assert_status(Wish(VictimStatus.LEAD, "not sure any more"))
    assert isinstance(refused(lambda: desk.sign(proposal, TWO)), ConflictError)
    assert court.exchange.statuses.certificates.all() == []


# The contract's vectors


@pytest.mark.parametrize("vector", VECTORS["certificates"], ids=lambda one: one["name"])
def test_every_frozen_certificate_verifies_or_not_as_its_word_says(
    vector: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {name: tmp_path / name for name in ("certificate", "card", "revocation")}
    paths["certificate"].write_text(vector["certificate"])
    paths["card"].write_text(VECTORS["cards"][vector["card"]])
    paths["revocation"].write_text(vector.get("revocation", ""))
    more = ["--revocation", str(paths["revocation"])] if "revocation" in vector else []
    status = MAIN([str(paths["certificate"]), "--card", str(paths["card"]), *more])
    assert (status == 0) == (vector["expect"] == "success")
    assert vector["says"] in said(capsys)[-3 if status == 0 else -1]
