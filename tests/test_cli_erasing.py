"""Erasing, reinstating and the never-again list as people do it on the command line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app

ALICE = ("--admin", "alice", "--admin-passphrase-file", "alice.pass")
LAW = "XA Police Data Act 2019, section 12"
DIGESTS = [hashlib.sha256(f"made-up {number}".encode()).hexdigest() for number in range(4)]


def gateway(*arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments, prog_name="gateway")
    assert result.exit_code == exit_code, (arguments, result.output, result.stderr)
    return result


def json_of(*arguments: str) -> Any:
    return json.loads(gateway(*arguments, "--json").stdout)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A demo gateway, where one administrator is enough, with a set of four entries."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_HOME", str(tmp_path / "xa"))
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", str(tmp_path / "gateway.pass"))
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
    for name in ("gateway.pass", "alice.pass"):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text("only invented data is behind this\n")
    gateway("init", "--demo", "--agency", "XA-NCVI", "--name", "A unit")
    gateway("admin", "add", "alice", "--admin-passphrase-file", "alice.pass")
    gateway("set", "create", "found", "--purpose", "tests", "--legal-basis", LAW)
    (tmp_path / "list.csv").write_text("sha256\n" + "".join(f"{digest}\n" for digest in DIGESTS))
    gateway("import", "list.csv", "--set", "found")
    return tmp_path


def test_what_was_withdrawn_is_left_out_and_named_until_it_is_reinstated(desk: Path) -> None:
    [hit] = json_of("look-up", DIGESTS[2])
    gateway("set", "withdraw", "found", hit["entry"], "--reason", "listed wrongly")
    told = json_of("import", "list.csv", "--set", "found", "--refused-file", "refused.csv")
    assert (told["accepted"], told["refused"], told["unchanged"], told["never_again"]) == (4, 0, 3, 1)
    [row] = told["never_again_rows"]
    assert (row["row"], row["field"]) == (3, "sha256")
    said = gateway("import", "list.csv", "--set", "found").stdout
    assert "never again: 1 row not taken" in said
    assert "accepted row 3, sha256: withdrawn as wrong before" in said
    assert DIGESTS[2] not in said + json.dumps(told)
    (desk / "digests.txt").write_text(f"# an order\n{DIGESTS[2]}\n\n")
    gateway("set", "reinstate", "--file", "digests.txt", "--reason", "it was right after all", *ALICE)
    assert json_of("import", "list.csv", "--set", "found")["added"] == 1
    [listed] = json_of("set", "never-again", "list", "--all")
    assert (listed["kind"], listed["binds"], listed["state"]) == ("wrong", "XA-NCVI", "reinstated")
    assert json_of("set", "never-again", "list") == []


@pytest.mark.sqlite
def test_an_order_erases_and_the_list_survives_the_database(desk: Path) -> None:
    before = (desk / "xa" / "gateway.db").read_bytes()
    done = json_of("set", "erase", DIGESTS[1], "--order", "District Court, order 7 of 2026", *ALICE)
    assert (done["state"], done["subject"]) == ("done", "District Court, order 7 of 2026")
    assert DIGESTS[1] not in json.dumps(done)
    assert gateway("look-up", DIGESTS[1]).stdout.strip() == "Not listed here."
    said = gateway("set", "never-again", "list").stdout
    assert "erased" in said
    assert "everybody" in said
    told = json_of("set", "never-again", "export", "list.jsonl")
    assert told["rows"] == len((desk / "list.jsonl").read_text().splitlines()) - 1
    gateway("set", "never-again", "export", "list.jsonl", exit_code=9)
    gateway("doctor")
    gateway("audit", "verify")
    # The database of before is back, by whatever way: the folder knows better, and says so.
    (desk / "xa" / "gateway.db").write_bytes(before)
    assert "never-again import" in gateway("doctor", exit_code=9).stderr
    assert json_of("set", "never-again", "import", "list.jsonl") == {"changed": 1, "withdrawn": 0, "erased": 1}
    assert json_of("import", "list.csv", "--set", "found")["never_again"] == 1
    gateway("doctor")
    gateway("set", "never-again", "import", "list.csv", exit_code=3)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("set", "erase", "--order", "order 7", *ALICE), 9),
        (("set", "erase", "abc", "--order", "order 7", *ALICE), 3),
        (("set", "reinstate", DIGESTS[0], "--reason", "no listing", *ALICE), 7),
        (("set", "never-again", "import", "nothing.jsonl"), 9),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_an_exit_code(desk: Path, arguments: tuple[str, ...], code: int) -> None:
    said = gateway(*arguments, exit_code=code).stderr
    assert said.startswith("Error: ")
    assert DIGESTS[0] not in said


def test_what_was_taken_back_is_listed_with_whom_it_waits_for(desk: Path) -> None:
    [hit] = json_of("look-up", DIGESTS[2])
    words = ("--reason", "listed wrongly", "--reference", "XA court 7/26", "--within", "10")
    gateway("set", "withdraw", "found", hit["entry"], *words)
    [row] = json_of("withdrawal", "list")
    assert (row["kind"], row["set"], row["reference"]) == ("withdrawal", "XA-NCVI/found", "XA court 7/26")
    assert (row["entries"], row["holders"], row["outstanding"]) == (1, 0, 0)
    assert row["due"] - row["created"] == 10 * 86_400
    assert json_of("withdrawal", "status", row["id"][:8], "--outstanding") == []
    assert "No partner held any of it." in gateway("withdrawal", "status", row["id"][:8]).stdout
    assert "Nothing that a partner held was taken back." in gateway("withdrawal", "status").stdout
    gateway("withdrawal", "refuse", row["id"], "--because", "a court file", exit_code=5)
    gateway("withdrawal", "status", "ffff", exit_code=7)
    gateway("set", "withdraw", "found", hit["entry"], "--reason", "two\nlines", exit_code=3)


def test_evidence_is_of_entries_of_partners(desk: Path) -> None:
    [hit] = json_of("look-up", DIGESTS[1])
    gateway("set", "evidence", "found", hit["entry"], exit_code=7)
