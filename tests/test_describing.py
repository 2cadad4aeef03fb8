"""Rules in words: the sheets that ship are true, nothing of a rule is left out, and what has no words is refused."""

from __future__ import annotations

import errno
import itertools
import json
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import sheet_reader
from gateway import policy
from gateway.cli import app
from gateway.config import read_policies, read_sheets
from gateway.errors import ConfigError
from gateway.model import Surface
from gateway.policy.words import strictest
from test_policies import BASIS, COUNTRIES, EVERY, FILES, FOLDER, examples, matrix, mutants, policies, texts

WITH_PURPOSE = (policy.Action.LOOK_UP, policy.Action.REFER)
SCHEMA = (FOLDER / policy.SCHEMA).read_text()
NOTES = '@id("one") @law("Act 1") @says("It.") @reviewed_by("desk") @valid_until("2030-12-31")'


def sheet(rule: str, *, agreement: str = "", notes: str = NOTES) -> str:
    """The sheet of a folder XA whose one rule this is."""
    base = NOTES.replace('"one"', '"base"') + "forbid (principal, action, resource);"
    name = f"XA/agreement-{agreement}.cedar" if agreement else "XA/national.cedar"
    return policy.describe({policy.SCHEMA: SCHEMA, "00-federation/base.cedar": base, name: f"{notes} {rule}"})[
        "XA/share.md"
    ]


def words(condition: str) -> str:
    """What the sheet says of a forbid on referrals under this condition."""
    text = sheet(f'forbid (principal, action == Action::"refer", resource) when {{ {condition} }};')
    return re.search(r"- If (.+): no partner may be referred cases\.", text)[1]


# --- the sheets that ship ---


@pytest.mark.parametrize("country", COUNTRIES)
def test_every_sheet_that_ships_is_what_its_rules_say(country: str) -> None:
    assert read_sheets(FOLDER, country) == policy.describe(texts(country)), "run `gateway policy describe policies`"


@pytest.mark.parametrize("country", COUNTRIES)
def test_every_note_of_every_rule_stands_on_its_sheet(country: str) -> None:
    sheets = policy.describe(texts(country))
    for path in texts(country).keys() - {policy.SCHEMA}:
        shown = sheets[f"{path.split('/')[0]}/share.md"]
        for form in json.loads(cedarpy.policies_to_json_str(texts(country)[path]))["staticPolicies"].values():
            notes = form["annotations"]
            paragraph = re.search(rf"\*\*{notes['id']}\*\* – .*?(?=\n\*\*|\n## |\Z)", shown, re.S)[0]
            row = re.search(rf"^\| [^|]+ \| {notes['id']} \|.*$", shown, re.M)[0]
            for name in ("law", "valid_until"):
                assert policy.plain(notes[name]) in row
            for name in ("law", "valid_until", "says", "reviewed_by"):
                assert policy.plain(notes[name]) in paragraph
            for days in re.findall(r"\d+", notes.get("obligation", "")):
                assert days in row
                assert days in paragraph


@pytest.mark.parametrize("path", FILES)
def test_every_mutant_of_every_rule_reads_differently(path: str) -> None:
    country = "XA" if path.startswith(policy.FEDERATION) else path[:2]
    name = f"{path.split('/', maxsplit=1)[0]}/share.md"
    document = json.loads(cedarpy.policies_to_json_str(texts(country)[path]))
    before, same = policy.describe(texts(country))[name], []
    for key, form in document["staticPolicies"].items():
        for mutation, mutant in mutants(form):
            if mutant is None:
                continue
            rules = {**document["staticPolicies"], key: mutant}
            text = cedarpy.policies_from_json_str(json.dumps({**document, "staticPolicies": rules}))
            try:
                after = policy.describe({**texts(country), path: text})[name]
            except ConfigError:
                continue  # the loader, or a list of one word turned into none
            if without_order(after) == without_order(before):
                same.append(f"{form['annotations']['id']}: {mutation}")
    assert same == []


def without_order(text: str) -> list[str]:
    """A sheet's lines: writing rules back from the engine's form may order them anew."""
    return sorted(text.splitlines())


@pytest.mark.parametrize("country", EVERY)
def test_who_decides_by_the_sheet_alone_decides_as_the_engine_does(country: str) -> None:
    lines = sheet_reader.read(policy.describe(texts(country)).values())
    assert sorted(line.rule for line in lines) == sorted(policies(country).rules)
    asked = [*requests(country), *(request for example in examples(country) for request in example.requests)]
    for step, decision in zip(asked, map(policies(country).decide, asked), strict=True):
        if decision.action is not step.action:
            continue  # an earlier step was denied, and is asked by itself as well
        if decision.reason is policy.Reason.ENGINE_ERROR:
            continue  # a purpose where none belongs: not the rules' doing
        # An allow also has the rules of the steps before it, so those are asked too.
        read = [sheet_reader.decide(lines, replace(step, action=action)) for action in before(step, country)]
        assert decision.allowed == all(allowed for allowed, _, _ in read), (step, read)
        if decision.allowed:
            assert list(decision.rule_ids) == sorted({rule for _, rules, _ in read for rule in rules})
            duties = [policy.Obligation.parse(duty) for _, _, found in read for duty in found]
            assert decision.obligations == strictest(duties)
            assert decision.needs_approval == any(line.approved for line in lines if line.rule in decision.rule_ids)
        else:
            assert list(decision.rule_ids) == read[-1][1], step


def before(step: policy.ShareRequest, us: str) -> list[policy.Action]:
    """The steps of an action, the action itself last (contracts/policy-1.md, 17 and 18)."""
    foreign = step.held.label.jurisdiction not in (us, step.partner.jurisdiction)
    actions = [policy.Action.FORWARD] if foreign and step.action is not policy.Action.RECEIVE else []
    if step.action.shares:
        actions.append(policy.Action.SHARE_EXISTENCE)
    return list(dict.fromkeys([*actions, step.action]))


def requests(us: str) -> Iterator[policy.ShareRequest]:
    """Every action with every partner over every surface, for labels that differ in all that rules look at."""
    chosen = random.Random(us)
    labels = [*matrix(us).values()]
    partners = [policy.PartnerRef(f"{them}-NCVI", them) for them in (*EVERY, "XM", "XU", "XV", "XW", "XY")]
    for partner, surface, action in itertools.product(partners, Surface, policy.Action):
        for held in chosen.sample(labels, 12):
            graded = chosen.choice("ABCDEF") + chosen.choice("123456")
            basis = chosen.choice(["unspecified", *BASIS.values(), "XA Police Data Act 2019, section 12"])
            label = replace(held.label, evaluation=graded, legal_basis=basis)
            purpose = chosen.choice([*policy.Purpose]) if action in WITH_PURPOSE else None
            yield policy.ShareRequest(partner, action, surface, replace(held, label=label), purpose)


# --- words ---


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ('resource.handling == Handling::"H1"', "the handling code is H1"),
        ('resource.victim_status != VictimStatus::"lead"', "the victim status is not lead"),
        ('context.purpose == Purpose::"victim_identification"', "the purpose is victim identification"),
        ('context.surface == Surface::"tls_only"', "the surface is TLS alone"),
        ("resource.evaluation.information <= 3", "the grade of the information is at most 3"),
        ("resource.evaluation.information > 3", "the grade of the information is above 3"),
        ('["A", "B"].contains(resource.evaluation.source)', "the grade of the source is one of “A”, “B”"),
        ("resource.onward.contains(principal.jurisdiction)", "the onward grant includes the partner's jurisdiction"),
        ('resource.onward.containsAll(["XB", "XC"])', "the onward grant includes all of “XB”, “XC”"),
        ('resource.onward.containsAny(["XB", "XC"])', "the onward grant includes any of “XB”, “XC”"),
        ('["XB", "XC"].containsAll(resource.onward)', "everything in the onward grant is one of “XB”, “XC”"),
        ('["XB", "XC"].containsAny(resource.onward)', "something in the onward grant is one of “XB”, “XC”"),
        ("resource.onward.isEmpty()", "the onward grant is empty"),
        ('resource.legal_basis like "XA Act, *"', "the legal basis begins with “XA Act, ”"),
        ('resource.category like "*:1"', "the category ends with “:1”"),
        ('resource.set_name like "*victims*"', "the set has in it “victims”"),
        ('principal.agency == "XB-NCVI"', "the partner's agency is “XB-NCVI”"),
        ('!(principal.agency == "XB-NCVI")', "not (the partner's agency is “XB-NCVI”)"),
        (
            'resource.handling == Handling::"H0" || principal.agency == "XB-NCVI" && resource.onward.isEmpty()',
            "the handling code is H0 or (the partner's agency is “XB-NCVI” and the onward grant is empty)",
        ),
        (
            '(resource.handling == Handling::"H0" || principal.agency == "XB-NCVI") && resource.onward.isEmpty()',
            "(the handling code is H0 or the partner's agency is “XB-NCVI”) and the onward grant is empty",
        ),
    ],
)
def test_a_condition_reads(condition: str, said: str) -> None:
    assert words(condition) == said


def test_a_permit_reads_in_the_table_and_in_sentences() -> None:
    shown = sheet(
        'permit (principal in Agreement::"xa-xb-xc", action in [Action::"share_existence", Action::"share_series",'
        ' Action::"forward", Action::"receive"], resource) when { resource.onward.isEmpty() }'
        ' unless { resource.handling == Handling::"H3" };',
        agreement="xb-xc",
        notes=NOTES.replace("Act 1", "Act | 1_2") + '@obligation("retain_days(1), no_onward")',
    )
    assert (
        "| XB, XC | one | may | receive existence and series; be passed the entries of a third jurisdiction; give"
        " entries to XA | if the onward grant is empty, and unless the handling code is H3 | pass on to nobody; delete"
        " after 1 day | Act \\| 1\\_2 | 2030-12-31 |\n"
    ) in shown
    assert (
        "- If the onward grant is empty, and unless the handling code is H3: XB, XC may receive existence and series;"
        " XB, XC may be passed the entries of a third jurisdiction; XA may take entries from XB, XC.\n"
        "- Duties of the receiver: pass on to nobody; delete after 1 day.\n"
        "- Law: Act \\| 1\\_2. Reviewed by: desk.\n"
        "- It permits until 2030-12-31, that day included.\n"
    ) in shown


def test_a_forbid_about_everything_reads_on_both_sides() -> None:
    shown = sheet("forbid (principal, action, resource);")
    assert "| every partner | one | never | be told anything; give entries to XA | always | none | Act 1 |" in shown
    assert "- Always: no partner may be told anything; XA may not take entries from any partner.\n" in shown
    assert "it forbids after that day as well" in shown


def test_a_national_rule_for_one_agreement_names_its_parties() -> None:
    rule = f'{NOTES} forbid (principal in Agreement::"xa-xb", action in Action::"share", resource);'
    other = f'{NOTES.replace("one", "two")} forbid (principal in Agreement::"xa-xb", action, resource);'
    base = f"{NOTES.replace('one', 'base')} forbid (principal, action, resource);"
    files = {"00-federation/base.cedar": base, "XA/national.cedar": rule, "XA/agreement-xb.cedar": other}
    assert (
        "- Always: XB may not receive any field group.\n"
        in policy.describe({policy.SCHEMA: SCHEMA, **files})["XA/share.md"]
    )


def test_a_folder_without_rules_has_a_sheet_that_says_so() -> None:
    base = f"{NOTES} forbid (principal, action, resource);"
    files = {policy.SCHEMA: SCHEMA, "00-federation/base.cedar": base, "XA/national.cedar": "// none yet"}
    assert "There is no rule yet: nothing is given, taken or answered." in policy.describe(files)["XA/share.md"]


# --- what has no words ---


@pytest.mark.parametrize(
    "rule",
    [
        "forbid (principal is Partner, action, resource);",
        "forbid (principal, action, resource is Label);",
        'forbid (principal == Partner::"0", action, resource);',
        'forbid (principal in Agreement::"xa-xz", action, resource);',
        'forbid (principal, action, resource == Label::"0");',
        "forbid (principal, action, resource) when { true };",
        "forbid (principal, action, resource) when { resource has onward };",
        'forbid (principal, action, resource) when { principal in Agreement::"xa-xb" };',
        "forbid (principal, action, resource) when { resource.evaluation.information + 1 == 3 };",
        "forbid (principal, action, resource) when { if resource.onward.isEmpty() then true else false };",
        'forbid (principal, action, resource) when { resource.legal_basis like "a*b" };',
        'forbid (principal, action, resource) when { resource.legal_basis like "a\\*b*" };',
        'forbid (principal, action, resource) when { resource.legal_basis like "*" };',
        'forbid (principal, action, resource) when { resource.legal_basis == "two\\nlines" };',
        'forbid (principal, action, resource) when { resource.legal_basis == "a “quotation”" };',
        "forbid (principal, action, resource) when { [principal.agency].contains(resource.originator) };",
        'forbid (principal, action, resource) when { resource.evaluation == {source: "A", information: 1} };',
    ],
)
def test_a_rule_without_words_is_refused_by_name(rule: str) -> None:
    with pytest.raises(ConfigError, match="no plain words") as caught:
        sheet(rule)
    assert caught.value.place == "XA/national.cedar, rule one"


# --- no two conditions read the same ---

ATOMS = st.sampled_from(
    [
        'resource.handling == Handling::"H0"',
        'resource.handling != Handling::"H0"',
        '[Handling::"H0", Handling::"H1"].contains(resource.handling)',
        "resource.evaluation.information <= 2",
        "resource.evaluation.information < 2",
        'resource.legal_basis like "a, b*"',
        '["a", "b"].contains(resource.legal_basis)',
        '["a, b"].contains(resource.legal_basis)',
        '["XB", "XC"].containsAll(resource.onward)',
        'resource.onward.containsAll(["XB", "XC"])',
        'context.surface == Surface::"sealed"',
    ]
)
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        inner.map(lambda text: f"!({text})"),
    ),
    max_leaves=6,
)


def meaning(node: object) -> object:
    """A form in which (a and b) and c is a and (b and c), and every other difference is kept."""
    if isinstance(node, dict):
        for operator in ("&&", "||"):
            if operator in node:
                sides = [meaning(node[operator]["left"]), meaning(node[operator]["right"])]
                return [
                    operator,
                    *(p for s in sides for p in (s[1:] if isinstance(s, list) and s[0] == operator else [s])),
                ]
        return {key: meaning(value) for key, value in node.items()}
    return [",", *map(meaning, node)] if isinstance(node, list) else node


def form_of(condition: str) -> object:
    text = f"forbid (principal, action, resource) when {{ {condition} }};"
    return json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]["policy0"]["conditions"][0]["body"]


@given(CONDITIONS, CONDITIONS)
def test_conditions_that_differ_read_differently(one: str, other: str) -> None:
    assert (words(one) == words(other)) == (meaning(form_of(one)) == meaning(form_of(other)))


# --- the command ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "policies"
    shutil.copytree(FOLDER, target, copy_function=shutil.copyfile)
    return target


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["policy", "describe", *words], prog_name="gateway")
    return result.exit_code, result.output


def test_a_stale_sheet_fails_the_check_until_it_is_written(folder: Path) -> None:
    (folder / "XA" / "share.md").write_text("XB may receive everything\n")
    code, output = run(str(folder), "--jurisdiction", "XA", "--check")
    assert code == 9
    assert "not what the rules say" in output
    assert "XA/share.md" in output
    assert "`gateway policy describe`" in output
    assert run(str(folder), "--jurisdiction", "XA") == (
        0,
        "00-federation/share.md: as the rules say\nXA/share.md: written\n",
    )
    assert run(str(folder), "--jurisdiction", "XA", "--check")[0] == 0
    assert read_sheets(folder, "XA") == read_sheets(FOLDER, "XA")


def test_a_missing_sheet_fails_the_check(folder: Path) -> None:
    (folder / "00-federation" / "share.md").unlink()
    assert run(str(folder), "--jurisdiction", "XA", "--check")[0] == 9


def test_a_sheet_is_no_part_of_the_policy(folder: Path) -> None:
    before = read_policies(folder, "XA")
    (folder / "XA" / "share.md").unlink()
    assert read_policies(folder, "XA") == before


def test_a_sheet_that_cannot_be_written_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "XA" / "share.md").unlink()

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    code, output = run(str(folder), "--jurisdiction", "XA", "--json")
    assert code == 9
    assert "the sheet cannot be written: No space left on device" in output
    assert str(folder) not in output
