"""`gateway case convert` and `case validate`: files of cases, without any gateway."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from case_strategies import full_case
from gateway.cli import app
from gateway.model import FieldGroup
from gateway.vidx import dump_case, parse_case

DAY = "2026-08-29"


def gateway(*arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["case", *arguments], prog_name="gateway")
    assert result.exit_code == exit_code, (arguments, result.stdout, result.stderr)
    return result


def value_of(*arguments: str, exit_code: int = 0) -> Any:
    return json.loads(gateway(*arguments, "--json", exit_code=exit_code).stdout)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a full report, and no gateway anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_HOME", str(tmp_path / "none"))
    (tmp_path / "full.xml").write_bytes(dump_case(full_case()))
    return tmp_path


def test_a_report_becomes_json_and_the_same_report_again(desk: Path) -> None:
    said = gateway("convert", "full.xml", "full.json", "--to", "case_json")
    assert (said.stdout, said.stderr) == ("Written: 1 case, as case_json.\n", "")
    gateway("convert", "full.json", "again.xml", "--from", "case_json", "--to", "vidx")
    assert (desk / "again.xml").read_bytes() == (desk / "full.xml").read_bytes()
    assert (desk / "again.xml").stat().st_mode & 0o077 == 0


def test_a_row_of_a_table_becomes_a_draft_and_what_it_lacks_is_named(desk: Path) -> None:
    header = "originator,reference,version,opened,updated,handling"
    rows = [f"XA-NCVI,SECRET-1,1,{DAY},{DAY},H1", f"XA-NCVI,SECRET-2,1,{DAY},{DAY},SECRET"]
    (desk / "cases.csv").write_text("\n".join([header, *rows, ""]))
    told = value_of("convert", "cases.csv", "draft.xml", "--to", "vidx")
    missing = ["category", "evaluation", "legal_basis", "purpose", "review_on", "contact"]
    assert told["missing"] == [{"case": 1, "missing": missing}]
    assert told["refused"] == [{"line": 3, "field": "handling", "reason": "is not one of H0, H1, H2, H3"}]
    assert parse_case((desk / "draft.xml").read_bytes(), drafts=True).record.reference == "SECRET-1"
    said = gateway("convert", "cases.csv", "cases.json", "--to", "case_json")
    assert "SECRET" not in said.stderr + said.stdout
    assert "Left out: 3, handling: is not one of" in said.stderr
    assert "Not stated in case 1: category, evaluation," in said.stderr


def test_a_file_is_there_whole_or_not_at_all(desk: Path) -> None:
    (desk / "two.json").write_text(
        json.dumps({"format": "case-json 1", "cases": [{"originator": "XA-NCVI"}, {"reference": "C-1"}]})
    )
    refused = gateway("convert", "two.json", "new.xml", "--to", "vidx", exit_code=3)
    assert "holds no case that could be taken" in refused.stderr
    assert "Left out: 1, version: is missing" in refused.stderr
    gateway("convert", "full.xml", "full.xml", "--to", "vidx", exit_code=9)
    gateway("convert", "absent.xml", "new.xml", "--to", "vidx", exit_code=9)
    gateway("convert", "full.xml", "new.xml", "--to", "word", exit_code=3)
    gateway("convert", "full.xml", "new.xml", "--to", "vidx", "--from", "word", exit_code=3)
    (desk / "strange").write_text("strange")
    assert "--from" in gateway("convert", "strange", "new.xml", "--to", "vidx", exit_code=3).stderr
    assert not (desk / "new.xml").exists()


def test_a_report_without_some_groups_is_valid_and_becomes_nothing_else(desk: Path) -> None:
    groups = [FieldGroup.EXISTENCE, FieldGroup.SERIES]
    (desk / "part.xml").write_bytes(dump_case(full_case(), groups))
    told = value_of("validate", "part.xml")
    assert told == {
        "format": "vidx",
        "draft": False,
        "missing": [],
        "groups": [str(g) for g in groups],
        "canonical": True,
    }
    assert "only a part" in gateway("convert", "part.xml", "part.json", "--to", "case_json", exit_code=3).stderr


def test_validate_says_what_a_report_is(desk: Path) -> None:
    lines = gateway("validate", "full.xml").stdout.splitlines()
    assert lines[0] == "A case report, complete."
    assert lines[2] == "  canonical     yes"
    tight = re.sub(r">\s*\n\s*<", "><", (desk / "full.xml").read_text())
    (desk / "tight.xml").write_text(tight)
    assert value_of("validate", "tight.xml")["canonical"] is False
    (desk / "draft.xml").write_text(
        tight.replace("CaseReport", "CaseDraft").replace("<EvaluationCode>B2</EvaluationCode>", "")
    )
    assert "missing       evaluation" in gateway("validate", "draft.xml").stdout
    (desk / "bad.xml").write_text(tight.replace("B2", "SECRET"))
    bad = gateway("validate", "bad.xml", exit_code=3)
    assert "EvaluationCode" in bad.stderr
    assert "SECRET" not in bad.stderr


def test_validate_of_a_file_with_a_refused_case_fails(desk: Path) -> None:
    good = {"originator": "XA-NCVI", "reference": "C-1", "version": 1, "opened": DAY, "updated": DAY}
    (desk / "cases.json").write_text(json.dumps({"format": "case-json 1", "cases": [good, {**good, "version": 0}]}))
    said = gateway("validate", "cases.json", exit_code=3)
    assert said.stdout == "1 case as the contract says.\n"
    assert "1 of 2 cases would be refused" in said.stderr
    (desk / "cases.json").write_text(json.dumps({"format": "case-json 1", "cases": [good]}))
    assert value_of("validate", "cases.json")["accepted"] == 1


def test_a_table_comes_into_the_inbox_as_a_report_does(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
    (desk / "pass").write_text("a long passphrase\n")
    (desk / "pass").chmod(0o600)
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", "pass")
    founded = CliRunner().invoke(app, ["init", "--demo", "--agency", "XA-NCVI", "--name", "Unit"], prog_name="gateway")
    assert founded.exit_code == 0, founded.stderr
    header = "originator,reference,version,opened,updated,place_1_country,place_1_confidence,place_1_source\n"
    (desk / "cases.csv").write_text(
        f"{header}XA-NCVI,A-1,1,{DAY},{DAY},XD,80,analyst\nXA-NCVI,A-2,1,{DAY},{DAY},xd,1,x\n"
    )
    told = value_of("import", "cases.csv")
    assert (told["format"], told["read"], len(told["cases"])) == ("case_csv", 2, 1)
    assert told["refused"] == [{"line": 3, "field": "place_1_source", "reason": told["refused"][0]["reason"]}]
    assert value_of("inbox")[0]["case"] == told["cases"][0]["case"]
    (desk / "part.xml").write_bytes(dump_case(full_case(), [FieldGroup.EXISTENCE]))
    assert "only a part" in gateway("import", "part.xml", exit_code=3).stderr
