"""The whole policy as a table: every cell, in every form that it is given, is what policy decides."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from typer.testing import CliRunner

from gateway import policy
from gateway.cli import app
from gateway.config import read_policies
from gateway.model import HandlingCode, Label, Restriction, Surface, VictimStatus
from gateway.policy import Action, Decision, Grid, LabelInSet, PartnerRef, PolicySet, Purpose, Question, ShareRequest
from gateway.policy.looking import looks_at
from gateway.policy.matrix import (
    COLUMNS,
    SHARED,
    Matrix,
    described,
    described_partners,
    marks,
    told,
)

FOLDER = Path(__file__).parent.parent / "policies"
DAY = date(2026, 11, 22)
COUNTRIES = ("XA", "XB", "XC")
ASKED = (
    *SHARED,
    Question(Action.FORWARD),
    Question(Action.RECEIVE),
    *(Question(action, purpose) for action in (Action.LOOK_UP, Action.REFER) for purpose in Purpose),
)
SVG = "{http://www.w3.org/2000/svg}"


@cache
def policies(us: str) -> PolicySet:
    return policy.load(read_policies(FOLDER, us), on=DAY)


@cache
def matrix(us: str, surface: Surface = Surface.SEALED) -> Matrix:
    """Some of everything: own, a partner's and a third country's entries, with and without leave."""
    rules = policies(us)
    partners = tuple(PartnerRef(f"{code}-NCVI", code) for code in COUNTRIES if code != us)
    owners = ((us, ()), *((code, leave) for code in (*COUNTRIES, "ZZ") if code != us for leave in ((), COUNTRIES)))
    axes = itertools.product(
        owners, HandlingCode, (VictimStatus.LEAD, VictimStatus.IDENTIFIED), [(), *zip(Restriction)]
    )
    labels = {
        f"{number} =1+1": LabelInSet(
            f"{us}-NCVI/list", Label(f"{code}-NCVI", code, handling, "icse:1", status, "B3", "=cmd(1)", tags, leave)
        )
        for number, ((code, leave), handling, status, tags) in enumerate(axes)
    }
    grid = Grid(partners, surface, tuple(labels.values()), ASKED)
    return Matrix.of(rules, grid, list(labels), rules.decide_all(grid))


def decided(made: Matrix, partner: str, held: LabelInSet, question: Question) -> Decision:
    """The one decision, asked by itself."""
    request = ShareRequest(PartnerRef(partner, partner[:2]), question.action, made.grid.surface, held, question.purpose)
    return made.policies.decide(request)


def in_words(decision: Decision) -> dict[str, object]:
    return {
        "effect": str(decision.effect),
        "reason": str(decision.reason),
        "step": str(decision.action),
        "rules": [rule.id for rule in decision.rules],
        "obligations": [str(duty) for duty in decision.obligations],
    }


@pytest.mark.parametrize("us", COUNTRIES)
def test_every_cell_is_what_policy_decides(us: str) -> None:
    made = matrix(us, Surface.TLS_ONLY if us == "XC" else Surface.SEALED)
    assert len(made.cells) == len(made.grid.labels) * len(made.grid.partners)
    assert {bool(cell.allowed) for cell in made.cells} == {True, False}
    for name, held, cells in made.rows():
        for cell, partner in zip(cells, made.grid.partners, strict=True):
            assert (cell.name, cell.held, cell.partner) == (name, held, partner)
            alone = tuple(decided(made, partner.agency, held, question) for question in ASKED)
            assert cell.decisions == alone
            assert cell.allowed == sum(decision.allowed for decision in alone)


def test_the_json_taken_apart_is_what_policy_decides() -> None:
    made = matrix("XA")
    document = json.loads(json.dumps(made.to_json()))
    assert (document["policy"], document["on"], document["jurisdiction"]) == (made.policies.digest, "2026-11-22", "XA")
    labels = {one["name"]: LabelInSet(one["set"], Label.from_json(one["label"])) for one in document["labels"]}
    seen = set()
    for cell in document["cells"]:
        for one in cell["decisions"]:
            question = Question(Action(one["action"]), Purpose(one["purpose"]) if one["purpose"] else None)
            expected = in_words(decided(made, cell["partner"], labels[cell["label"]], question))
            assert {name: one[name] for name in expected} == expected
            seen.add((cell["partner"], cell["label"], question))
    assert len(seen) == made.grid.cells


def test_the_csv_taken_apart_is_what_policy_decides_and_holds_no_formula() -> None:
    made = matrix("XB")
    sink = io.StringIO(newline="")
    made.dump_csv(sink)
    lines = list(csv.DictReader(io.StringIO(sink.getvalue(), newline="")))
    assert tuple(lines[0]) == COLUMNS
    assert len(lines) == made.grid.cells
    for line in lines:
        assert not any(value.startswith(("=", "+", "-", "@")) for value in line.values())
        label = Label(
            line["originator"],
            line["jurisdiction"],
            HandlingCode(line["handling"]),
            line["category"],
            VictimStatus(line["victim_status"]),
            line["evaluation"],
            line["legal_basis"].removeprefix("'"),
            tuple(map(Restriction, line["restrictions"].split())),
            tuple(line["onward"].split()),
        )
        question = Question(Action(line["action"]), Purpose(line["purpose"]) if line["purpose"] else None)
        expected = in_words(decided(made, line["partner"], LabelInSet(line["set"], label), question))
        found = {name: line[name].split() if name in ("rules", "obligations") else line[name] for name in expected}
        assert found == expected
        assert (line["policy"], line["on"], line["surface"]) == (made.policies.digest, str(DAY), "sealed")


def test_the_picture_has_a_square_for_each_cell_that_tells_what_policy_decides() -> None:
    made = matrix("XA")
    raw = made.draw_svg().encode()
    root = etree.fromstring(raw)
    squares = root.findall(f"{SVG}g")
    assert len(squares) == len(made.cells)
    for square, cell in zip(squares, made.cells, strict=True):
        title, rect, figure = square
        assert title.text == told(cell, ASKED)
        assert (rect.get("class"), figure.get("class")) == (f"s{cell.allowed}", f"t{cell.allowed}")
        assert figure.text == str(cell.allowed or "–")
        rules = {i for decision in cell.decisions if decision.allowed for i in decision.rule_ids}
        assert all(rule in title.text for rule in rules)
        assert all(str(duty) in title.text for duty in cell.obligations)
    names = [text.text for text in root.findall(f"{SVG}text") if text.get("text-anchor") == "end"]
    assert names == list(made.names)
    assert b"prefers-color-scheme: dark" in raw
    assert not {"script", "image", "foreignObject", "use"} & {etree.QName(one).localname for one in root.iter()}
    assert not any("href" in name or name.startswith("on") for one in root.iter() for name in one.attrib)
    legend = [one.text for one in root.findall(f"{SVG}text") if (one.get("class") or "").startswith("t")]
    assert legend == ["–", *(str(step) for step in range(1, len(ASKED) + 1))]


def test_what_an_agency_wrote_cannot_break_the_picture() -> None:
    made = matrix("XA")
    nasty = replace(made, names=tuple(f'<script>{n}"&\x00\u202e' for n in made.names))
    names = [one.text for one in etree.fromstring(nasty.draw_svg().encode()).findall(f"{SVG}text")]
    assert '<script>0 =1+1"&??' in names


def test_marks_are_letters_for_what_is_allowed() -> None:
    made = matrix("XA")
    found = {marks(cell.decisions, ASKED) for cell in made.cells}
    assert "-" in found
    assert any("E" in one and "·" in one for one in found)
    for cell in made.cells:
        word = marks(cell.decisions, ASKED)
        assert sum(letter not in "·-" for letter in word) == cell.allowed


# --- labels by their words ---


@pytest.mark.parametrize(("us", "asked"), [("XA", SHARED), ("XB", SHARED[-1:]), ("XC", (Question(Action.RECEIVE),))])
def test_folding_loses_nothing(us: str, asked: tuple[Question, ...]) -> None:
    rules = policies(us)
    partners = described_partners(rules)
    words = described(rules, f"{us}-NCVI/list", partners, asked)
    grid = Grid(partners, Surface.SEALED, words.labels, asked)
    whole = Matrix.of(rules, grid, words.names, rules.decide_all(grid))
    folded = words.folded(whole)
    assert len(folded.names) < len(whole.names) / 5
    counts = [int(name.rpartition("(")[2].rstrip(")").replace(",", "")) for name in folded.names]
    assert sum(counts) == len(whole.names)
    # Each class is decided as each label whose words its name allows; no label is in two.
    for values, (_, _, cells) in zip(itertools.product(*words.axes), whole.rows(), strict=True):
        fitting = [row for row in folded.rows() if names_all(row[0], values, words.axes)]
        assert len(fitting) == 1
        assert [cell.decisions for cell in fitting[0][2]] == [cell.decisions for cell in cells]


def names_all(name: str, values: tuple[str, ...], axes: tuple[tuple[str, ...], ...]) -> bool:
    """Whether a class's name allows these words: one part for each attribute that matters, in their order."""
    parts = name.rpartition(" (")[0].split(", ")
    for part in [] if parts == ["every label"] else parts:
        said = part.removeprefix("not ").split("/")
        (axis,) = [number for number, every in enumerate(axes) if set(said) <= set(every)]
        if (values[axis] in said) == part.startswith("not "):
            return False
    return True


def test_described_labels_have_every_word_that_a_rule_looks_at_and_no_other() -> None:
    rules = policies("XA")
    partners = described_partners(rules)
    assert [partner.jurisdiction for partner in partners] == sorted(frozenset().union(*rules.agreements.values()))
    own = described(rules, "XA-NCVI/list", partners, SHARED)
    assert {held.label.handling for held in own.labels} == set(HandlingCode)
    assert {held.label.jurisdiction for held in own.labels} == {"XA"}
    assert {held.label.category for held in own.labels} == {"unspecified:0"}
    assert {held.label.evaluation for held in own.labels} == {"A1"}  # only what is received depends on it
    taken = described(rules, "XA-NCVI/list", partners, [Question(Action.RECEIVE)])
    assert len({held.label.evaluation for held in taken.labels}) > 1
    assert len(set(own.labels)) == len(own.labels) == len(set(own.names))
    every = described(rules, "XA-NCVI/list", partners, SHARED, foreign=True)
    assert {held.label.jurisdiction for held in every.labels} == {"XA", "ZZ", *(p.jurisdiction for p in partners)}


def looked(condition: str) -> dict[str, frozenset[str]]:
    import cedarpy

    text = f"permit (principal, action, resource) when {{ {condition} }};"
    return looks_at(json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values())


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('resource.category == "icse:1"', {"category": {"icse:1"}}),
        ('["a:1", "b:2"].contains(resource.category)', {"category": {"a:1", "b:2"}}),
        ('resource.category like "icse:*"', {"category": {"icse:1"}}),
        ("resource.evaluation.information <= 3", {"evaluation.information": set()}),
        (
            '!(resource.evaluation.source == "A" && principal.agency == "XB-NCVI")',
            {"evaluation.source": {"A"}, "principal.agency": {"XB-NCVI"}},
        ),
        (
            "resource.onward.contains(principal.jurisdiction)",
            {"onward": set(), "principal.jurisdiction": set()},
        ),
        (
            'if context.purpose == Purpose::"statistics" then resource.legal_basis == "b" else true',
            {"context.purpose": set(), "legal_basis": {"b"}},
        ),
        (
            'resource.evaluation == {source: "A", information: 1}',
            {"evaluation.source": {"A"}, "evaluation.information": {"A"}},
        ),
    ],
)
def test_what_a_rule_looks_at(condition: str, expected: dict[str, set[str]]) -> None:
    assert looked(condition) == expected


def test_a_rule_that_takes_the_label_whole_looks_at_all_of_it() -> None:
    assert {"handling", "onward", "legal_basis", "evaluation.source"} <= set(looked('resource == Label::"x"'))


# --- the command ---


def gateway(*arguments: str, exit_code: int = 0) -> Any:
    result = CliRunner().invoke(app, list(arguments), prog_name="gateway")
    assert result.exit_code == exit_code, (arguments, result.exit_code, result.stdout, result.stderr)
    return result


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A demo gateway that has enrolled nobody and holds no set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_PASSPHRASE_FILE", "passphrase")
    monkeypatch.setenv("GATEWAY_DEMO_ARGON2_KIB", "8192")
    monkeypatch.setenv("GATEWAY_HOME", "xa")
    (tmp_path / "passphrase").write_text("a long passphrase of a test\n")
    (tmp_path / "passphrase").chmod(0o600)
    gateway("init", "--demo", "--agency", "XA-NCVI", "--name", "Unit of XA")
    return tmp_path


def test_the_command_shows_all_that_the_rules_can_tell_apart(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATEWAY_PASSPHRASE_FILE")  # it needs none
    shown = gateway("policy", "matrix", "--describe", "--csv", "all.csv", "--svg", "all.svg").stdout
    assert "no tag/legal_hold/originator_control, H2 (" in shown
    document = json.loads(gateway("policy", "matrix", "--describe", "--partner", "XB-NCVI", "--json").stdout)
    assert document["partners"] == ["XB-NCVI"]
    assert document["policy"] == policies("XA").digest
    lines = list(csv.DictReader((desk / "all.csv").open(newline="", encoding="utf-8")))
    assert f"{len(lines):,} decisions" in shown
    assert etree.fromstring((desk / "all.svg").read_bytes()).tag == f"{SVG}svg"
    refused = gateway("policy", "matrix", "--describe", "--csv", "all.csv", exit_code=9)
    assert "exists already" in refused.stderr


def test_the_command_shows_the_labels_of_the_gateways_sets(desk: Path) -> None:
    assert "no set has a label yet" in gateway("policy", "matrix", exit_code=7).stderr
    gateway("set", "create", "list", "--legal-basis", "invented", "--purpose", "tests", "--handling", "H1")
    (desk / "list.txt").write_text(hashlib.sha256(b"made up").hexdigest())
    gateway("import", "list.txt", "--set", "list", "--format", "digest_list")
    shown = gateway("policy", "matrix", "--partner", "XB-NCVI", "--partner", "XC-NCVI").stdout
    (line,) = [line.split() for line in shown.splitlines() if line.startswith("list 1: H1, unknown")]
    assert line[-2:] == ["ECPSV", "EC·S·"]
    more = gateway("policy", "matrix", "--set", "list", "--action", "look_up", "--action", "forward").stdout
    assert "F forward, L look up" not in more
    assert "L look up, F forward" in more
    gateway("policy", "matrix", "--set", "none", exit_code=7)
    gateway("policy", "matrix", "--foreign", exit_code=3)
