"""Statuses, series and certificates as people type them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from factory import sha256
from gateway.cli import app

SCRIPT = Path(__file__).parents[1] / "scripts" / "verify_certificate.py"
DIGESTS = [sha256(f"made-up {number}").hex() for number in range(3)]


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
    gateway("admin", "add", "alice", "--admin-passphrase-file", "alice.pass")
    gateway("set", "create", "found", "--purpose", "victim_identification", "--legal-basis", "XA Act 1")
    lines = [f"{one},Blue Door" for one in DIGESTS]
    (tmp_path / "list.csv").write_text("\n".join(["sha256,series", *lines]) + "\n")
    gateway("import", "list.csv", "--set", "found")
    return tmp_path


def test_people_identify_certify_and_take_back(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [hit] = json_of("look-up", DIGESTS[0])
    entry = hit["entry"]
    assert json_of("status", "worklist")["counts"] == {"XA-NCVI/found": 3}
    for wrong, code in (
        (("status", "set", "found", entry, "--to", "found"), 3),
        (("status", "set", "found", "--to", "identified"), 9),
        (("status", "set", "found", entry, "--case", "x", "--to", "identified"), 9),
        (("status", "set", "found", "0001-0000000000ff", "--to", "identified"), 7),
        (("certificate", "issue", "found", entry, "--court-reference", "12 Kls 3", "--admin", "alice"), 7),
    ):
        more = ("--admin-passphrase-file", "alice.pass") if wrong[0] == "certificate" else ()
        gateway(*wrong, *more, exit_code=code)
    said = gateway("status", "set", "found", entry, "--to", "identified", "--contact", "Unit 4").stdout
    assert "is identified (version 1)" in said
    assert "series Blue Door: name it with --series" in said
    assert f"{entry}: identified" in gateway("status", "show", "found", entry).stdout
    assert json_of("status", "worklist", "--limit", "1")["counts"] == {"XA-NCVI/found": 2}
    assert "1 of 2 entries are shown" in gateway("status", "worklist", "--limit", "1").stdout
    [line] = json_of("status", "list", "--ours")
    assert json_of("status", "told", line["assertion"][:8]) == []
    assert json_of("status", "list", "--new") == []

    signed = ("--admin", "alice", "--admin-passphrase-file", "alice.pass")
    gateway("certificate", "issue", "found", entry, "--court-reference", "12 Kls 3", *signed)
    [certificate] = json_of("certificate", "list")
    gateway("certificate", "save", certificate["certificate"][:8], "c.json")
    gateway("certificate", "save", certificate["certificate"][:8], "c.html", "--html")
    gateway("certificate", "save", certificate["certificate"], "r.json", "--revocation", exit_code=7)
    gateway("identity", "export", "card.json")
    assert DIGESTS[0] in (desk / "c.html").read_text()
    verify = runpy.run_path(str(SCRIPT))["main"]
    assert verify(["c.json", "--card", "card.json", "--digest", DIGESTS[0]]) == 0
    assert "for 12 Kls 3" in capsys.readouterr().out

    gateway("status", "set", "found", entry, "--to", "unidentified", exit_code=3)
    said = gateway("status", "set", "found", entry, "--to", "unidentified", "--reason", "another child").stdout
    assert f"certificate {certificate['certificate'][:12]}" in said
    gateway("certificate", "save", certificate["certificate"], "r.json", "--revocation")
    assert verify(["c.json", "--card", "card.json", "--revocation", "r.json"]) == 4
    assert "REVOKED" in capsys.readouterr().out
    gateway("certificate", "revoke", certificate["certificate"], "--reason", "again", exit_code=7)
    gateway("status", "change", line["assertion"][:8], "--to", "lead")
    assert json_of("status", "show", line["assertion"])["status"] == "lead"
    assert "lead" in gateway("status", "worklist").stdout
    gateway("status", "seen", line["assertion"][:8])
    assert json_of("claim", "list") == []
    gateway("claim", "agree", "00", "--contact", "x", exit_code=7)
    gateway("claim", "decline", "00", exit_code=7)


def test_people_merge_and_part_series(desk: Path) -> None:
    assert desk.exists()
    signed = ("--admin", "alice", "--admin-passphrase-file", "alice.pass")
    gateway("series", "merge", "Blue Door", "Door, blue", "--reason", "the same room", *signed)
    [one] = json_of("series", "list")
    assert (one["names"], one["state"], one["origin"]) == (["Blue Door", "Door, blue"], "merged", "XA-NCVI")
    gateway("series", "merge", "Door, blue", "Blue Door", "--reason", "again", *signed, exit_code=7)
    gateway("series", "decline", one["merge"], exit_code=7)
    gateway("series", "split", one["merge"][:8], *signed)
    assert json_of("series", "list")[0]["state"] == "split"
    gateway("series", "accept", "00", *signed, exit_code=7)
