"""Referring cases on the command line, with a partner at the other end of the mailbox."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from case_builders import CLUE, SECRETS, case_record
from factory import FakeClock, card_of, enrol, make_node
from gateway.caserecord import ClueSource, Place
from gateway.cli import app
from gateway.exchange import Exchange
from gateway.home import open_home
from gateway.model import Purpose
from gateway.vidx import dump_case

PASSPHRASE = "a long passphrase of a test"
XA, XB = "XA-NCVI", "XB-NCVI"


def gateway(*arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments, prog_name="gateway")
    assert result.exit_code == exit_code, (arguments, result.output, result.stderr)
    return result


def json_of(*arguments: str) -> Any:
    return json.loads(gateway(*arguments, "--json").stdout)


@dataclass
class Desk:
    """Our gateway, used by commands alone, and a partner's in this process."""

    folder: Path
    peer: Exchange

    def carry(self) -> None:
        """All mail goes both ways, as the schedules would carry it."""
        node = open_home(self.folder / "xa", PASSPHRASE)
        ours = Exchange(node)
        for here, there in ((ours, self.peer), (self.peer, ours), (ours, self.peer)):
            sender, receiver = here.node.agency, there.node.agency
            while (body := here.mailbox_for(receiver, there.mailbox.last_received(sender))) is not None:
                there.take_mail(sender, body)
        node.store.close()

    def imported(self, **changes: Any) -> str:
        (self.folder / "case.xml").write_bytes(dump_case(case_record(**changes)))
        return str(json_of("case", "import", "case.xml")["cases"][0]["case"])


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", "passphrase")
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
    monkeypatch.setenv("GATEWAY_HOME", "xa")
    (tmp_path / "passphrase").write_text(f"{PASSPHRASE}\n")
    (tmp_path / "passphrase").chmod(0o600)
    gateway("init", "--demo", "--agency", XA, "--name", "Unit of XA")
    node = open_home(tmp_path / "xa", PASSPHRASE)
    peer = make_node(tmp_path, XB, clock=FakeClock(node.clock()), case_duty_contact="XB duty, +00 3")
    enrol(node, card_of(peer))
    enrol(peer, card_of(node))
    node.store.close()
    yield Desk(tmp_path, Exchange(peer))
    peer.store.close()


def test_a_person_sees_what_would_go_refers_it_and_follows_what_becomes_of_it(desk: Desk) -> None:
    case = desk.imported(places=(Place("XB", "", "", 80, ClueSource.ANALYST),))
    [pointer] = json_of("case", "proposals")
    assert (pointer["partner"], pointer["confidence"]) == (XB, 80)
    [shown] = json_of("case", "refer", case, "--to", "XB", "--dry-run")
    assert shown["allowed"]
    assert {one["group"]: one["goes"] for one in shown["groups"]}["clues"]
    said = gateway("case", "refer", case, "--to", "XB", "--dry-run").stdout
    assert "goes   clues: XB-NCVI receives clues of XA-NCVI/cases" in said
    assert "perceptual digests (this case holds nothing of it)" in said
    assert said.strip() in gateway("policy", "explain", "--partner", XB, "--case", case).stdout
    assert json_of("case", "thread", case)["threads"] == []  # nothing was sent
    [sent] = json_of("case", "refer", case, "--to", "XB", "--note", "please look at the switch")
    assert (sent["partner"], sent["number"]) == (XB, 1)
    gateway("case", "refer", case, "--to", XB, exit_code=7)
    assert json_of("case", "proposals") == []
    desk.carry()
    [row] = desk.peer.cases.inbox()
    desk.peer.talk.accept(row.id)
    desk.carry()
    told = json_of("case", "thread", case)
    assert [one["state"] for one in told["threads"]] == ["accepted"]
    assert [one["word"] for one in told["messages"]] == ["priority", "received", "accepted"]
    said = gateway("case", "thread", case).stdout
    assert "XB duty, +00 3" in said
    assert "please look at the switch" in said
    gateway("case", "say", case, "--text", "it is the inside of the door")
    listed = gateway("message", "list").stdout + json.dumps(json_of("message", "list"))
    assert not any(secret in listed for secret in (*SECRETS, "switch", "inside"))
    assert json_of("case", "custody", case)["verdict"] == "verified"
    assert json_of("case", "recall", case, "--from", XB, "--reason", "it was wrong")["state"] == "recalled"
    desk.carry()
    assert desk.peer.cases.inbox() == []
    assert [one["state"] for one in json_of("case", "thread", case)["threads"]] == ["deleted"]


def test_a_person_reads_accepts_and_at_last_declines_what_a_partner_referred(desk: Desk) -> None:
    [taken] = desk.peer.cases.take_in([case_record(XB)], form="vidx")
    desk.peer.referrals.refer(taken.case, XA, Purpose.SAFEGUARDING)
    desk.carry()
    [waiting] = json_of("case", "inbox")
    assert waiting["from"] == XB
    case = waiting["case"]
    said = gateway("case", "show", case).stdout
    assert "what is not named was withheld" in said
    assert CLUE not in said
    desk.carry()
    assert [one.state for one in desk.peer.talk.threads(taken.case)] == ["read"]
    gateway("case", "complete", case, "--review-on", "2027-01-31", exit_code=5)
    assert json_of("case", "accept", case)["state"] == "open"
    gateway("case", "ask", case, "--text", "who saw the door?")
    assert json_of("case", "custody", case)["verdict"] == "verified"
    gateway("case", "alert", case, "P-1", exit_code=5)
    assert json_of("case", "decline", case, "--reason", "it is not ours")["state"] == "declined"
    gateway("case", "show", case, exit_code=7)
    desk.carry()
    assert [one.state for one in desk.peer.talk.threads(taken.case)] == ["declined"]
    assert [one.text for one in desk.peer.talk.lines(taken.case) if one.word == "ask"] == ["who saw the door?"]
