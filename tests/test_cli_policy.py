"""Commands about policy: what a change would do is told before, exactly and in a file if wanted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app

PEOPLE = ("alice", "bob")
LAW = "XA Police Data Act 2019, section 12"


def gateway(*arguments: str, exit_code: int = 0) -> Result:
    """One command, in this process."""
    result = CliRunner().invoke(app, list(arguments), prog_name="gateway")
    assert result.exit_code == exit_code, (arguments, result.exit_code, result.stdout, result.stderr)
    return result


def json_of(*arguments: str) -> Any:
    return json.loads(gateway(*arguments, "--json").stdout)


def by(name: str) -> tuple[str, ...]:
    return "--admin", name, "--admin-passphrase-file", f"{name}.pass"


def signed(*arguments: str) -> str:
    """A guarded act, signed by both; returns its proposal."""
    proposed = json_of(*arguments, *by("alice"))
    gateway("approval", "sign", proposed["id"], *by("bob"))
    return str(proposed["id"])


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A demo gateway XA with two administrators who must both sign, one partner and a set; a draft of its policy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", "passphrase")
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
    for name in ("passphrase", *(f"{one}.pass" for one in PEOPLE)):
        (tmp_path / name).write_text(f"a long passphrase for {name}\n")
        (tmp_path / name).chmod(0o600)
    for home, agency in (("xa", "XA-NCVI"), ("xb", "XB-NCVI")):
        gateway("--home", home, "init", "--demo", "--quorum", "2", "--agency", agency, "--name", f"Unit {agency}")
    gateway("--home", "xb", "identity", "export", "xb.card")
    monkeypatch.setenv("GATEWAY_HOME", "xa")
    for name in PEOPLE:
        gateway("admin", "add", name, "--admin-passphrase-file", f"{name}.pass")
    signed("partner", "add", "xb.card")
    gateway("set", "create", "found", "--purpose", "tests", "--legal-basis", LAW, "--handling", "H1")
    listed = "".join(f"{number:064x}  {number}.bin\n" for number in range(1, 6))
    (tmp_path / "list.txt").write_text(listed)
    gateway("import", "list.txt", "--set", "found", "--format", "digest_list")
    shutil.copytree("xa/policies", "draft")
    return tmp_path


def end_agreement() -> None:
    """The draft's agreement with XB is gone, and so are the examples that speak of it."""
    for name in ("XA/agreement-xb.cedar", "XA/examples.toml", "00-federation/examples.toml"):
        Path("draft", name).unlink()


def test_a_draft_tells_what_it_would_take_back_before_it_is_in_force(desk: Path) -> None:
    assert json_of("policy", "diff", "draft")["changes"] == []
    assert "Nothing would be shared" in gateway("policy", "diff", "draft").stdout
    end_agreement()
    told = json_of("policy", "diff", "draft", "--entries", "entries.tsv")
    (change,) = told["changes"]
    assert (change["partner"], change["set"], change["entries"]) == ("XB-NCVI", "XA-NCVI/found", 5)
    assert {group: count for group, count in change["stopped"].items() if count} == {
        "cryptographic_digests": 5, "existence": 5
    }  # fmt: skip
    assert change["rules_before"]
    assert change["rules_after"] == []
    assert told["entries_written"] == 5
    first, *lines = Path("entries.tsv").read_text().splitlines()
    assert first == "partner\tset\tentry\tstarted\tstopped"
    assert lines[0] == "XB-NCVI\tXA-NCVI/found\t0001-000000000001\t\tcryptographic_digests,existence"
    shown = gateway("policy", "diff", "draft", "--partner", "XB-NCVI").stdout
    assert "-existence (5)" in shown
    gateway("policy", "diff", "draft", "--partner", "XC-NCVI", exit_code=7)
    gateway("policy", "diff", "draft", "--entries", "entries.tsv", exit_code=9)  # nothing is written over
    assert "there is no such folder of policies (nowhere)" in gateway("policy", "diff", "nowhere", exit_code=9).stderr


def test_a_draft_is_activated_by_two_on_a_day_and_taken_back(desk: Path) -> None:
    before = json_of("policy", "status")
    assert (before["proposal"], before["waiting"]) == ("", None)
    end_agreement()
    gateway("policy", "activate", "--folder", "draft", "--on", "2001-01-01", *by("alice"), exit_code=3)
    proposal = signed("policy", "activate", "--folder", "draft", "--on", "2999-12-31")
    waiting = json_of("policy", "status")
    assert waiting["policy"] == before["policy"]
    assert (waiting["waiting"]["on"], waiting["waiting"]["proposal"]) == ("2999-12-31", proposal)
    assert "From 2999-12-31 (UTC)" in gateway("policy", "status").stdout
    signed("policy", "cancel")
    gateway("policy", "cancel", *by("alice"), exit_code=7)
    assert json_of("policy", "status") == before


def test_what_would_change_is_shown_before_signing_and_the_folder_follows(desk: Path) -> None:
    end_agreement()
    proposed = json_of("policy", "activate", "--folder", "draft", *by("alice"))
    shown = json_of("approval", "show", proposed["id"])["difference"]
    (moved,) = [change for change in shown if change["what"].startswith("XB-NCVI")]
    assert moved["what"] == "XB-NCVI, XA-NCVI/found, label 1, 5 entries"
    assert "existence (5)" in moved["now"]
    assert moved["then"] == "gives back (no rule)"
    assert Path("xa/policies/XA/agreement-xb.cedar").exists()
    gateway("approval", "sign", proposed["id"], *by("bob"))
    assert not Path("xa/policies/XA/agreement-xb.cedar").exists()
    assert json_of("policy", "status")["proposal"] == proposed["id"]
    gateway("doctor")
    # Whoever edits the folder itself is told what to do, by name of the file.
    with Path("xa/policies/XA/national.cedar").open("a") as file:
        file.write("// nobody signed this\n")
    refused = gateway("policy", "status", exit_code=9)
    assert "XA/national.cedar" in refused.stderr
    assert "policy activate --folder" in refused.stderr


def test_a_legal_hold_is_set_shown_and_lifted(desk: Path) -> None:
    entry, digest = "0001-000000000001", f"{1:064x}"
    words = ("--reference", "Regional Court, case 12", "--reason", "a trial", "--until", "2999-12-31")
    gateway("hold", "set", "--set", "found", *words, *by("alice"), exit_code=9)  # neither entries nor a label
    hold = signed("hold", "set", entry, "--set", "found", *words)[:16]
    (row,) = json_of("hold", "list")
    assert (row["hold"], row["set"], row["entries"], row["gone"]) == (hold, "XA-NCVI/found", 1, 0)
    assert json_of("where", entry, "--set", "found")["holds"] == [
        {"hold": hold, "reference": "Regional Court, case 12", "until": "2999-12-31"}
    ]
    gateway("set", "withdraw", "found", entry, "--reason", "listed wrongly")
    for where in (json_of("where", digest), [json_of("where", entry, "--set", "found")]):
        (place,) = where
        assert (place["listed"], place["set"], place["holds"][0]["hold"]) == (False, "XA-NCVI/found", hold)
    assert f"legal hold {hold} keeps it until 2999-12-31" in gateway("where", digest).stdout
    signed("hold", "lift", hold[:8], "--reason", "the trial is over")
    assert json_of("hold", "list") == []
    assert json_of("where", digest) == []
    gateway("where", entry, "--set", "found", exit_code=7)
    gateway("where", entry, exit_code=9)  # of which set?
    assert json_of("where", f"{2:064x}")[0]["listed"]
