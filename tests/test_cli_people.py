"""Commands of administrators: pending partners, what an act would change, and what a broken roster does."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app

PEOPLE = ("alice", "bob")


def gateway(*arguments: str, exit_code: int = 0) -> Result:
    """One command, in this process."""
    result = CliRunner().invoke(app, list(arguments), prog_name="gateway")
    assert result.exit_code == exit_code, (arguments, result.exit_code, result.stdout, result.stderr)
    return result


def json_of(*arguments: str) -> Any:
    return json.loads(gateway(*arguments, "--json").stdout)


def by(name: str) -> tuple[str, ...]:
    return "--admin", name, "--admin-passphrase-file", f"{name}.pass"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two demo gateways, the first with two administrators who must both sign, and the card of the second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", "passphrase")
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
    for name in ("passphrase", *(f"{one}.pass" for one in (*PEOPLE, "carol"))):
        (tmp_path / name).write_text(f"a long passphrase for {name}\n")
        (tmp_path / name).chmod(0o600)
    for home, agency in (("xa", "XA-NCVI"), ("xb", "XB-NCVI")):
        gateway("--home", home, "init", "--demo", "--quorum", "2", "--agency", agency, "--name", f"Unit {agency}")
    gateway("--home", "xb", "identity", "export", "xb.card")
    monkeypatch.setenv("GATEWAY_HOME", "xa")
    for name in PEOPLE:
        gateway("admin", "add", name, "--admin-passphrase-file", f"{name}.pass")
    return tmp_path


def test_a_partner_is_pending_until_two_have_signed(desk: Path) -> None:
    proposed = json_of("partner", "add", "xb.card", *by("alice"))
    (row,) = json_of("partner", "list")
    assert (row["state"], row["signers"], row["missing"]) == ("pending", ["alice"], 1)
    shown = gateway("partner", "show", "XB-NCVI").stdout
    assert "pending: 1 more signature needed" in shown
    assert "signed by        alice (1 of 2)" in shown
    assert row["fingerprint"] in shown
    gateway("pause", "XB-NCVI", exit_code=7)  # there is no such partner yet
    gateway("approval", "sign", proposed["id"], *by("bob"))
    (row,) = json_of("partner", "list")
    assert (row["state"], "missing" in row) == ("active", False)
    gateway("partner", "show", "XC-NCVI", exit_code=7)


def test_what_an_act_would_change_is_shown_before_it_is_signed(desk: Path) -> None:
    proposed = json_of("partner", "add", "xb.card", *by("alice"))
    shown = json_of("approval", "show", proposed["id"])
    assert {"what": "name", "now": "", "then": "Unit XB-NCVI"} in shown["difference"]
    signing = gateway("approval", "sign", proposed["id"], *by("bob"))
    assert "name: - > Unit XB-NCVI" in signing.stderr
    suspended = json_of("partner", "suspend", "XB-NCVI", "--reason", "in doubt", *by("bob"))
    shown = json_of("approval", "show", suspended["id"])
    assert {"what": "state", "now": "active", "then": "suspended"} in shown["difference"]


def test_a_demo_has_no_test_to_lift(desk: Path) -> None:
    gateway("approval", "sign", json_of("partner", "add", "xb.card", *by("alice"))["id"], *by("bob"))
    lifting = json_of("partner", "lift-test", "XB-NCVI", *by("alice"))
    gateway("approval", "sign", lifting["id"], *by("bob"), exit_code=7)
    gateway("approval", "withdraw", lifting["id"], *by("bob"), exit_code=5)
    assert json_of("approval", "withdraw", lifting["id"], *by("alice"))["state"] == "withdrawn"


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE administrator SET keys = (SELECT keys FROM administrator WHERE name = 'bob')", "alice"),
        ("DELETE FROM administrator WHERE name = 'bob'", "bob"),
        ("UPDATE meta SET value = replace(value, '\"founding\":2', '\"founding\":1') WHERE key = 'standing'", ""),
    ],
)
def test_doctor_and_audit_verify_name_what_was_changed_in_the_database(desk: Path, statement: str, named: str) -> None:
    with sqlite3.connect(desk / "xa" / "gateway.db") as database:
        database.execute(statement)
    assert named in gateway("doctor", exit_code=10).stdout
    assert named in gateway("audit", "verify", exit_code=10).stderr
    # Nothing else is done meanwhile.
    gateway("admin", "add", "carol", "--admin-passphrase-file", "carol.pass", exit_code=10)
