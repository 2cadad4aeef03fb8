"""`gateway backup`: what people type from the first key to the gateway that goes on, and what they are told."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.crypto.keys import OpeningKey

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
    """A demo gateway with two administrators who must both sign, and an offline key in its settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", "passphrase")
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
    for name in ("passphrase", *(f"{one}.pass" for one in PEOPLE)):
        (tmp_path / name).write_text(f"a long passphrase for {name}\n")
        (tmp_path / name).chmod(0o600)
    gateway("--home", "xa", "init", "--demo", "--quorum", "2", "--agency", "XA-NCVI", "--name", "Unit of XA")
    monkeypatch.setenv("GATEWAY_HOME", "xa")
    for name in PEOPLE:
        gateway("admin", "add", name, "--admin-passphrase-file", f"{name}.pass")
    made = json_of("backup", "key", "offline.key", "--plain")
    settings = tmp_path / "xa" / "gateway.toml"
    text = settings.read_text()
    assert 'backup_recipients = ""' in text
    settings.write_text(text.replace('backup_recipients = ""', f'backup_recipients = "{made["recipient"]}"'))
    return tmp_path


def test_a_key_is_printed_as_the_settings_want_it_and_its_file_is_an_identity_of_age(desk: Path) -> None:
    printed = gateway("backup", "key", "another.key", "--plain").stdout
    lines = (desk / "another.key").read_text().splitlines()
    key = OpeningKey.parse(lines[1])
    assert f'backup_recipients = "{key.public}"' in printed
    assert stat.S_IMODE((desk / "another.key").stat().st_mode) == 0o600
    gateway("backup", "key", "another.key", "--plain", exit_code=9)  # its backups would be lost


def test_from_a_backup_to_the_gateway_that_goes_on(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 1. Written, and proved without the gateway.
    made = json_of("backup", "create", "xa.age")
    assert stat.S_IMODE((desk / "xa.age").stat().st_mode) == 0o600
    assert json_of("audit", "list", "--kind", "backup_created")[0]["details"]["digest"] == made["sha256"]
    card = json_of("identity", "show")
    gateway("identity", "export", "xa.card")
    shutil.rmtree(desk / "xa")
    inside = json_of("backup", "verify", "xa.age", "--key", "offline.key", "--card", "xa.card")
    assert (inside["agency"], inside["fingerprint"]) == ("XA-NCVI", card["fingerprint"])
    assert (inside["log_size"], inside["administrators"], inside["quorum"]) == (made["log_size"], 2, 2)
    assert card["fingerprint"] in gateway("backup", "verify", "xa.age", "--key", "offline.key").stdout
    # 2. Restored, and shut.
    arguments = ("xa.age", "--key", "offline.key", "--folder", "new")
    told = gateway("backup", "restore", *arguments).stdout
    assert "gateway --home new backup resume --admin NAME" in told
    gateway("backup", "restore", *arguments, exit_code=9)  # never over what exists
    monkeypatch.setenv("GATEWAY_HOME", "new")
    for command in (("serve",), ("identity", "show"), ("set", "list"), ("key", "list"), ("backup", "create", "y.age")):
        assert "waits for its restore statement" in gateway(*command, exit_code=9).stderr
    assert {one["name"] for one in json_of("admin", "list")} == set(PEOPLE)
    # 3. Signed by two; each is shown what changes.
    proposed = json_of("backup", "resume", *by("alice"))
    assert (proposed["act"], proposed["state"], proposed["signers"]) == ("gateway_restore", "open", ["alice"])
    shown = gateway("approval", "show", proposed["id"]).stdout
    assert "audit log: partner-exchange/XA-NCVI/log/1 > partner-exchange/XA-NCVI/log/2" in shown
    gateway("set", "list", exit_code=9)
    assert "Done: go on from a restored backup" in gateway("approval", "sign", proposed["id"], *by("bob")).stdout
    # 4. It goes on, in a log that is proved; and so is the one that ended.
    assert json_of("set", "list") == []
    assert json_of("audit", "verify")["origin"] == "partner-exchange/XA-NCVI/log/2"
    ended = json_of("audit", "verify", "--folder", "new/logs/1", "--outside", "new/logs/1/checkpoint")
    assert (ended["origin"], ended["size"]) == ("partner-exchange/XA-NCVI/log/1", made["log_size"])
    assert all(one["ok"] for one in json_of("doctor"))
    assert json_of("identity", "show")["number"] == card["number"] + 1000
    gateway("backup", "create", "new.age")
    gateway("backup", "resume", *by("alice"), exit_code=7)  # there is nothing to sign any more


def test_what_does_not_open_or_was_changed_says_so(desk: Path) -> None:
    gateway("backup", "create", "xa.age")
    gateway("backup", "create", "xa.age", exit_code=9)
    gateway("backup", "key", "other.key", "--plain")
    assert "another key" in gateway("backup", "verify", "xa.age", "--key", "other.key", exit_code=4).stderr
    raw = (desk / "xa.age").read_bytes()
    (desk / "cut.age").write_bytes(raw[:-1])
    gateway("backup", "verify", "cut.age", "--key", "offline.key", exit_code=4)
    gateway("backup", "restore", "cut.age", "--key", "offline.key", "--folder", "new", exit_code=4)
    assert not (desk / "new").exists()
    (desk / "text.age").write_text("hello")
    gateway("backup", "verify", "text.age", "--key", "offline.key", exit_code=3)
    gateway("backup", "verify", "none.age", "--key", "offline.key", exit_code=9)
    (desk / "offline.key").chmod(0o644)
    assert "others may read" in gateway("backup", "verify", "xa.age", "--key", "offline.key", exit_code=9).stderr


def test_a_key_under_a_passphrase_is_asked_for_it(desk: Path) -> None:
    made = json_of("backup", "key", "sealed.key", "--key-passphrase-file", "alice.pass")
    gateway("backup", "create", "xa.age", "--recipient", made["recipient"])
    opened = ("backup", "verify", "xa.age", "--key", "sealed.key", "--key-passphrase-file")
    assert json_of(*opened, "alice.pass")["agency"] == "XA-NCVI"
    assert "passphrase" in gateway(*opened, "bob.pass", exit_code=9).stderr
    gateway("backup", "verify", "xa.age", "--key", "offline.key", exit_code=4)  # it was sealed for the other alone


def test_settings_with_a_recipient_that_is_none_open_nothing(desk: Path) -> None:
    settings = desk / "xa" / "gateway.toml"
    settings.write_text(settings.read_text().replace("age1pq1", "age1pq2"))
    assert "backup_recipients" in gateway("backup", "create", "xa.age", exit_code=9).stderr
