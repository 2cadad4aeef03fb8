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
    """The draft's agreement with XB, and its examples, are gone."""
    Path("draft/XA/agreement-xb.cedar").unlink()
    Path("draft/XA/examples.toml").unlink()


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
    gateway("policy", "diff", "nowhere", exit_code=9)
