"""The rules that ship: examples decided as written, every rule used, every mutant noticed, every allow lawful."""

from __future__ import annotations

import copy
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path

import cedarpy
import pytest

from gateway import policy
from gateway.config import read_examples, read_policies
from gateway.errors import ConfigError
from gateway.model import ENTRY_GROUPS, FieldGroup, HandlingCode, Label, Restriction, Surface, VictimStatus

FOLDER = Path(__file__).parent.parent / "policies"
DAY = date(2026, 11, 22)
COUNTRIES = ("XA", "XB", "XC", "XD", "XE")
TEMPLATE = FOLDER / "templates" / "eu-2016-680"
ADAPTED = "XT"  # the template as a country's folder, once an office has reviewed it
EVERY = (*COUNTRIES, ADAPTED)


@cache
def texts(country: str) -> dict[str, str]:
    if country != ADAPTED:
        return read_policies(FOLDER, country)
    shared = {path: text for path, text in texts("XA").items() if not path.startswith("XA/")}
    reviewed = '@reviewed_by("XT Ministry of Justice")'
    own = {f"XT/{path.name}": path.read_text(encoding="utf-8") for path in TEMPLATE.glob("*.cedar")}
    return {**shared, **{path: text.replace(MARKER, reviewed) for path, text in own.items()}}


MARKER = '@reviewed_by("nobody: template")'
FILES = sorted({path for country in EVERY for path in texts(country)} - {policy.SCHEMA})


@cache
def policies(country: str) -> policy.PolicySet:
    return policy.load(texts(country), on=DAY)


@cache
def examples(country: str) -> tuple[policy.Example, ...]:
    """The examples that this country's gateway decides: its own, and the federation's that name it."""
    found = read_examples(FOLDER, "XA" if country == ADAPTED else country)
    if country == ADAPTED:
        found[ADAPTED] = (TEMPLATE / "examples.toml").read_text(encoding="utf-8")
    every = [example for folder in sorted(found) for example in policy.parse_examples(found[folder], folder)]
    return tuple(example for example in every if example.us == country)


@pytest.mark.parametrize(
    "example", [e for country in EVERY for e in examples(country)], ids=lambda example: example.place
)
def test_worked_example_is_decided_as_written(example: policy.Example) -> None:
    assert policy.try_example(example, policies(example.us)) == (), example.why


@pytest.mark.parametrize("country", EVERY)
def test_every_rule_decides_at_least_one_example(country: str) -> None:
    own = {rule.id for rule in policies(country).rules.values() if not rule.path.startswith(policy.FEDERATION)}
    assert own <= {rule for example in examples(country) for rule in example.rules}


def test_every_rule_of_the_federation_decides_at_least_one_example() -> None:
    shared = {rule.id for rule in policies("XA").rules.values() if rule.path.startswith(policy.FEDERATION)}
    assert shared <= {rule for country in COUNTRIES for example in examples(country) for rule in example.rules}


@pytest.mark.parametrize("country", COUNTRIES)
def test_no_rule_that_ships_lapses_soon(country: str) -> None:
    assert policies(country).lapsed == ()
    good_until = policies(country).good_until
    assert good_until is not None
    assert good_until >= date(2034, 1, 1)


# --- the template ---


def test_the_template_is_marked_and_is_refused_where_it_is_copied_unchanged(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    shutil.copy(FOLDER / policy.SCHEMA, folder)
    shutil.copytree(FOLDER / policy.FEDERATION, folder / policy.FEDERATION)
    shutil.copytree(TEMPLATE, folder / ADAPTED)
    for text in (path.read_text(encoding="utf-8") for path in TEMPLATE.glob("*.cedar")):
        assert text.startswith("// TEMPLATE, reviewed by nobody.")
        assert text.count(MARKER) == text.count("@reviewed_by")
    with pytest.raises(ConfigError, match="nobody has reviewed it"):
        policy.load(read_policies(folder, ADAPTED), on=DAY)
    # One rule that is left as it came is enough.
    for path in (folder / ADAPTED).glob("*.cedar"):
        path.write_text(path.read_text().replace(MARKER, '@reviewed_by("XT Ministry of Justice")'))
    assert policy.load(read_policies(folder, ADAPTED), on=DAY).digest == policies(ADAPTED).digest
    last = folder / ADAPTED / "agreement-xy.cedar"
    last.write_text(MARKER.join(last.read_text().rsplit('@reviewed_by("XT Ministry of Justice")', 1)))
    with pytest.raises(ConfigError, match="nobody has reviewed it"):
        policy.load(read_policies(folder, ADAPTED), on=DAY)


def test_no_gateway_loads_a_template() -> None:
    assert not (FOLDER / ADAPTED).exists()
    assert not any("templates" in path for country in COUNTRIES for path in texts(country))


def test_each_rule_of_the_template_cites_article_and_paragraph() -> None:
    own = [rule for rule in policies(ADAPTED).rules.values() if rule.path.startswith("XT/")]
    cited = [re.match(r"Directive \(EU\) 2016/680, Article (3[5-9])\(\d\)", rule.law) for rule in own]
    assert all(cited)
    assert {found[1] for found in cited} == {"35", "36", "37", "38", "39"}
    for rule, found in zip(own, cited, strict=True):
        assert rule.id.startswith(f"eu-{found[1]}-")


# --- mutants: a slip in any rule must change at least one example ---


def mutants(form: dict) -> Iterator[tuple[str, dict | None]]:
    """One rule, broken in each of the ways that a tired hand breaks a rule. None: the rule is gone."""
    yield "removed", None
    yield "flipped", {**form, "effect": "forbid" if form["effect"] == "permit" else "permit"}
    for i, condition in enumerate(form["conditions"]):
        rest = form["conditions"][:i] + form["conditions"][i + 1 :]
        yield f"condition {i} dropped", {**form, "conditions": rest}
        other = "unless" if condition["kind"] == "when" else "when"
        yield f"condition {i} negated", {**form, "conditions": [*rest, {**condition, "kind": other}]}
        for name, body in broken(condition["body"]):
            yield f"condition {i}: {name}", {**form, "conditions": [*rest, {**condition, "body": body}]}
    scope = form["action"]
    for i in range(len(scope.get("entities", []))):
        listed = scope["entities"][:i] + scope["entities"][i + 1 :]
        yield f"action {i} dropped", {**form, "action": {"op": "in", "entities": listed}}
    if form["effect"] == "forbid" and scope["op"] != "All":
        yield "any action", {**form, "action": {"op": "All"}}
    notes = form["annotations"]
    if "obligation" in notes:
        yield "no obligation", {**form, "annotations": {k: v for k, v in notes.items() if k != "obligation"}}
        longer = re.sub(r"\d+", lambda days: str(int(days[0]) + 1), notes["obligation"])
        if longer != notes["obligation"]:
            yield "longer obligation", {**form, "annotations": {**notes, "obligation": longer}}
        duties = notes["obligation"].split(", ")
        for i in range(len(duties) if len(duties) > 1 else 0):
            fewer = ", ".join(duties[:i] + duties[i + 1 :])
            yield f"duty {i} gone", {**form, "annotations": {**notes, "obligation": fewer}}
    if "approval" in notes:
        yield "no approval", {**form, "annotations": {k: v for k, v in notes.items() if k != "approval"}}


def broken(body: dict) -> Iterator[tuple[str, dict]]:
    """An expression with one node changed: a side of && or || alone, a word gone from a list, a comparison moved."""
    for path in paths(body, ()):
        node = at(body, path)
        for name, changed in slips(node):
            whole = copy.deepcopy(body)
            if path:
                at(whole, path[:-1])[path[-1]] = changed
            else:
                whole = changed
            yield f"{name} at {'.'.join(map(str, path)) or 'top'}", whole


def slips(node: object) -> Iterator[tuple[str, object]]:
    if not isinstance(node, dict):
        return
    for operator, swapped in (("&&", "||"), ("||", "&&")):
        if operator in node:
            yield "left alone", node[operator]["left"]
            yield "right alone", node[operator]["right"]
            yield "and for or", {swapped: node[operator]}
    for operator, swapped in (
        ("==", "!="),
        ("!=", "=="),
        ("containsAll", "containsAny"),
        ("containsAny", "containsAll"),
    ):
        if operator in node:
            yield f"{swapped} for {operator}", {swapped: node[operator]}
    if "like" in node:
        yield "like anything", {"like": {**node["like"], "pattern": ["Wildcard"]}}
        yield "like more", {"like": {**node["like"], "pattern": [node["like"]["pattern"][0], "Wildcard"]}}
    if "<=" in node:
        yield "less", {"<": node["<="]}
        yield "one more", {"<=": {**node["<="], "right": {"Value": node["<="]["right"]["Value"] + 1}}}
    if "Set" in node and len(node["Set"]) > 1:
        for i in range(len(node["Set"])):
            yield f"word {i} gone", {"Set": node["Set"][:i] + node["Set"][i + 1 :]}


def paths(node: object, here: tuple) -> Iterator[tuple]:
    yield here
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in items:
        yield from paths(child, (*here, key))


def at(node: object, path: tuple) -> object:
    for key in path:
        node = node[key]
    return node


def noticed(country: str, path: str, text: str, rule: str) -> bool:
    """True if the loader refuses the text or one of the country's examples is decided otherwise."""
    try:
        changed = policy.load({**texts(country), path: text}, on=DAY)
    except ConfigError:
        return True
    first = sorted(examples(country), key=lambda example: rule not in example.rules)
    return any(policy.try_example(example, changed) for example in first)


@pytest.mark.parametrize("path", FILES)
def test_every_mutant_of_every_rule_changes_an_example(path: str) -> None:
    countries = COUNTRIES if path.startswith(policy.FEDERATION) else (path[:2],)
    document = json.loads(cedarpy.policies_to_json_str(texts(countries[0])[path]))
    survivors = []
    for key, form in document["staticPolicies"].items():
        rule = form["annotations"]["id"]
        for name, mutant in mutants(form):
            rules = {k: v for k, v in document["staticPolicies"].items() if k != key}
            if mutant is not None:
                rules[key] = mutant
            text = cedarpy.policies_from_json_str(json.dumps({**document, "staticPolicies": rules}))
            if not any(noticed(country, path, text, rule) for country in countries):
                survivors.append(f"{rule}: {name}")
    assert survivors == []


# --- the whole matrix ---

BASIS = dict.fromkeys(COUNTRIES, "invented") | {"XE": "XE Code of Criminal Procedure, article 85"}


def matrix(us: str) -> dict[int, policy.LabelInSet]:
    """Each handling code with each status and each restriction, for our own entries and others', with leave or not."""
    owners = [(us, ()), *((owner, COUNTRIES) for owner in COUNTRIES if owner != us)]
    restrictions = [(), *((tag,) for tag in Restriction)]
    axes = itertools.product(owners, HandlingCode, VictimStatus, restrictions)
    labels = [
        Label(f"{owner}-NCVI", owner, handling, "icse:1", status, "A1", "invented", tags, onward)
        for (owner, onward), handling, status, tags in axes
        # Leave or no leave is a matter of the tag-free entries; status and tag are judged apart from each other.
        if not tags or status is VictimStatus.IDENTIFIED
    ]
    labels += [replace(label, onward=()) for label in labels if label.onward and not label.restrictions]
    return {number: policy.LabelInSet(f"{us}-NCVI/identified-victims", label) for number, label in enumerate(labels)}


@pytest.mark.parametrize("us", COUNTRIES)
def test_every_allow_of_the_whole_matrix_has_a_law_and_breaks_no_promise(us: str) -> None:
    rules, labels = policies(us).rules, matrix(us)
    for them, surface in itertools.product(set(COUNTRIES) - {us}, Surface):
        rows = policies(us).table(policy.PartnerRef(f"{them}-NCVI", them), surface, labels)
        for number, rights in rows.items():
            label = labels[number].label
            assert bool(rights.groups) == bool(rights.permits)
            assert all(rules[i].law and rules[i].kind is policy.RuleKind.PERMIT for i in rights.permits)
            if not rights.groups:
                continue
            assert FieldGroup.EXISTENCE in rights.groups
            assert not {Restriction.EMBARGO, Restriction.COURT_ORDER} & set(label.restrictions)
            assert label.jurisdiction in (us, them) or them in label.onward
            near_imagery = FieldGroup.PERCEPTUAL_DIGESTS in rights.groups
            assert not (near_imagery and (them == "XC" or surface is Surface.TLS_ONLY))
            assert rights.groups <= set(ENTRY_GROUPS)


def test_any_two_of_the_five_treat_a_third_differently() -> None:
    def rights(us: str, them: str) -> list[object]:
        """What a country gives to another of its own, by handling code, and for what it answers and refers."""
        own = Label(f"{us}-NCVI", us, HandlingCode.H0, "icse:1", VictimStatus.UNIDENTIFIED, "B2", BASIS[us])
        labels = [policy.LabelInSet(f"{us}-NCVI/found", replace(own, handling=code)) for code in HandlingCode]
        partner = policy.PartnerRef(f"{them}-NCVI", them)
        table = policies(us).table(partner, Surface.SEALED, dict(enumerate(labels)))
        asked = itertools.product((policy.Action.LOOK_UP, policy.Action.REFER), labels, policy.Purpose)
        requests = [policy.ShareRequest(partner, a, Surface.SEALED, held, why) for a, held, why in asked]
        return [
            *((r.groups, r.obligations) for r in table.values()),
            *(policies(us).decide(r).allowed for r in requests),
        ]

    for one, other in itertools.combinations(COUNTRIES, 2):
        thirds = [them for them in COUNTRIES if them not in (one, other)]
        assert any(rights(one, them) != rights(other, them) for them in thirds), (one, other)
        assert all(any(any(rights(us, them)) for them in thirds) for us in (one, other))


def test_xa_and_xb_treat_each_handling_code_differently() -> None:
    label = Label("XA-NCVI", "XA", HandlingCode.H0, "icse:1", VictimStatus.IDENTIFIED, "A1", "invented")
    coded = [replace(label, handling=code) for code in HandlingCode]
    labels = {n: policy.LabelInSet("XA-NCVI/identified-victims", label) for n, label in enumerate(coded)}
    for country, sizes in (("XB", [5, 5, 4, 1]), ("XC", [4, 4, 0, 0])):
        rows = policies("XA").table(policy.PartnerRef(f"{country}-NCVI", country), Surface.SEALED, labels)
        assert [len(rows[n].groups) for n in labels] == sizes
