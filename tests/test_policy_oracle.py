"""The gateway's decisions beside those of a plain evaluator: random rules, labels, partners, surfaces and purposes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import cedarpy
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from cedar_oracle import Answer, Oracle, Party, forms_of
from gateway import policy
from gateway.config import read_policies
from gateway.model import HandlingCode, Label, Restriction, Surface, VictimStatus
from gateway.policy import Action, Grid, LabelInSet, PartnerRef, Purpose, Question, Reason

FOLDER = Path(__file__).parent.parent / "policies"
SCHEMA = (FOLDER / policy.SCHEMA).read_text()
DAY = date(2026, 11, 22)
AGREEMENTS = {"xa-xb": {"XB"}, "xa-xb-xc": {"XB", "XC"}, "xa": {"XA"}}
FILES = {"xa-xb": "XA/agreement-xb.cedar", "xa-xb-xc": "XA/agreement-xb-xc.cedar", "xa": "XA/agreement-xa.cedar"}
PARTNERS = tuple(PartnerRef(agency, agency[:2]) for agency in ("XB-NCVI", "XB-COAST", "XC-NCVI", "XA-COAST", "XD-NCVI"))
ASKED = tuple(
    Question(action, purpose)
    for action in Action
    for purpose in ((*Purpose, None) if action in (Action.LOOK_UP, Action.REFER) else (None, Purpose.STATISTICS))
    if purpose is None or action in (Action.LOOK_UP, Action.REFER)
)

# Rules as text. Each atom is of the right type; some overflow for some labels, which is an error at run time.

handling, status, tag, surface = (
    st.sampled_from([f'{kind}::"{word}"' for word in words])
    for kind, words in (
        ("Handling", HandlingCode),
        ("VictimStatus", VictimStatus),
        ("Restriction", Restriction),
        ("Surface", Surface),
    )
)
text_of = {
    "resource.category": ["icse:1", "icse:2", "local:x"],
    "resource.evaluation.source": list("ABCDEF"),
    "resource.jurisdiction": ["XA", "XB", "XC"],
    "resource.originator": ["XA-NCVI", "XB-NCVI"],
    "resource.set_name": ["XA-NCVI/list"],
    "principal.agency": ["XB-NCVI", "XC-NCVI"],
    "principal.jurisdiction": ["XB", "XC"],
}
country = st.sampled_from(['"XB"', '"XC"', "principal.jurisdiction", "resource.jurisdiction"])


def listed(words: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(words, min_size=1, max_size=3, unique=True).map(lambda some: f"[{', '.join(some)}]")


def texts_of(attribute: str) -> st.SearchStrategy[str]:
    return st.sampled_from([f'"{word}"' for word in text_of[attribute]])


text_atoms = st.sampled_from(sorted(text_of)).flatmap(
    lambda name: st.one_of(
        st.tuples(st.sampled_from(["==", "!="]), texts_of(name)).map(lambda two: f"{name} {two[0]} {two[1]}"),
        listed(texts_of(name)).map(lambda some: f"{some}.contains({name})"),
    )
)
information = st.sampled_from(
    [
        "resource.evaluation.information",
        "resource.evaluation.information * 2",
        "resource.evaluation.information - 3",
        f"resource.evaluation.information * {2**61}",  # more than a Long holds from 4 on
        f"resource.evaluation.information + {2**63 - 4}",  # likewise
    ]
)
atoms = st.one_of(
    st.tuples(st.sampled_from(["==", "!="]), handling).map(lambda two: f"resource.handling {two[0]} {two[1]}"),
    listed(handling).map(lambda some: f"{some}.contains(resource.handling)"),
    listed(status).map(lambda some: f"{some}.contains(resource.victim_status)"),
    status.map(lambda one: f"resource.victim_status == {one}"),
    tag.map(lambda one: f"resource.restrictions.contains({one})"),
    listed(tag).map(lambda some: f"resource.restrictions.containsAny({some})"),
    listed(tag).map(lambda some: f"resource.restrictions.containsAll({some})"),
    st.just("resource.restrictions.isEmpty()"),
    country.map(lambda one: f"resource.onward.contains({one})"),
    st.just("resource.jurisdiction == principal.jurisdiction"),
    st.sampled_from(["icse:*", "*:x", "*"]).map(lambda one: f'resource.category like "{one}"'),
    surface.map(lambda one: f"context.surface == {one}"),
    st.tuples(information, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), st.integers(-3, 8)).map(
        lambda three: f"{three[0]} {three[1]} {three[2]}"
    ),
    text_atoms,
)
purposes = listed(st.sampled_from([f'Purpose::"{word}"' for word in Purpose])).map(
    lambda some: f"{some}.contains(context.purpose)"
)


def expressions(leaf: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
            inner.map(lambda one: f"!({one})"),
            st.tuples(inner, inner, inner).map(lambda t: f"(if {t[0]} then {t[1]} else {t[2]})"),
        ),
        max_leaves=5,
    )


@st.composite
def rule(draw: st.DrawFn, kind: str, agreement: str, number: int) -> str:
    """A permit or a forbid: of an agreement, or of national law where there is none."""
    asking = draw(st.booleans())
    named = [Action.LOOK_UP, Action.REFER] if asking else list(Action)
    chosen = draw(st.lists(st.sampled_from(named), min_size=1, max_size=6, unique=True))
    words = ", ".join([f'Action::"{one}"' for one in chosen])
    scopes = [f"action in [{words}]", f'action == Action::"{chosen[0]}"']
    if kind == "forbid" and not asking:
        scopes += ["action", 'action in Action::"share"', 'action in [Action::"disclose", Action::"receive"]']
    action = draw(st.sampled_from(scopes))
    leaf = st.one_of(atoms, purposes) if asking else atoms
    conditions = draw(st.lists(st.tuples(st.sampled_from(["when", "unless"]), expressions(leaf)), max_size=2))
    principal = f'principal in Agreement::"{agreement}"' if agreement else "principal"
    notes = f'@id("r-{number}")\n@law("Act")\n@says("So it is.")\n@reviewed_by("desk")\n@valid_until("2030-12-31")\n'
    body = " ".join(f"{word} {{ {expression} }}" for word, expression in conditions)
    return f"{notes}{kind} ({principal}, {action}, resource) {body};\n"


@st.composite
def folder(draw: st.DrawFn) -> dict[str, str]:
    """A policy folder of XA with some agreements, national law and a rule of the federation."""
    numbers = itertools.count()
    texts = {"schema.cedarschema": SCHEMA}
    for agreement, path in FILES.items():
        kinds = draw(st.lists(st.sampled_from(["permit", "permit", "permit", "forbid"]), max_size=4))
        texts[path] = "".join(draw(rule(kind, agreement, next(numbers))) for kind in kinds)
    forbids = draw(st.integers(0, 2))
    texts["XA/national.cedar"] = "".join(draw(rule("forbid", "", next(numbers))) for _ in range(forbids))
    texts["00-federation/base.cedar"] = draw(rule("forbid", "", next(numbers)))
    return texts


@st.composite
def labels(draw: st.DrawFn) -> Label:
    owner = draw(st.sampled_from(["XA", "XB", "XC", "XD"]))
    return Label(
        originator=f"{owner}-NCVI",
        jurisdiction=owner,
        handling=draw(st.sampled_from(HandlingCode)),
        category=draw(st.sampled_from(["icse:1", "icse:3", "local:x"])),
        victim_status=draw(st.sampled_from(VictimStatus)),
        evaluation=draw(st.sampled_from("ABCDEF")) + draw(st.sampled_from("123456")),
        legal_basis="Act",
        restrictions=tuple(sorted(draw(st.sets(st.sampled_from(Restriction), max_size=2)))),
        onward=tuple(sorted(draw(st.sets(st.sampled_from(["XB", "XC", "XD"]), max_size=2)))),
    )


def oracle_of(texts: dict[str, str], us: str, agreements: dict[str, set[str]]) -> Oracle:
    parsed = [json.loads(cedarpy.policies_to_json_str(text)) for path, text in texts.items() if path != policy.SCHEMA]
    return Oracle(forms_of(parsed), us, agreements)


def compared(rules: policy.PolicySet, oracle: Oracle, held: Sequence[LabelInSet], surface: Surface) -> set[Reason]:
    """Every question about every label and partner, decided by both; the reasons that were met."""
    rows = rules.decide_all(Grid(PARTNERS, surface, tuple(held), ASKED))
    met = set()
    for (one, partner), row in zip(itertools.product(held, PARTNERS), rows, strict=True):
        words: dict[str, Any] = {**one.label.to_json(), "set_name": one.set_name}
        party = Party(partner.agency, partner.jurisdiction)
        for question, decision in zip(ASKED, row, strict=True):
            expected = oracle.decide(party, str(question.action), words, str(surface), str(question.purpose or ""))
            found = Answer(decision.allowed, decision.rule_ids, decision.reason is Reason.ENGINE_ERROR)
            assert found == expected, (question, partner.agency, words)
            met.add(decision.reason)
    return met


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(folder(), st.lists(labels(), min_size=1, max_size=6), st.sampled_from(Surface))
def test_random_rules_decide_as_the_plain_evaluator_does(
    texts: dict[str, str], some: list[Label], surface: Surface
) -> None:
    rules = policy.load(texts, on=DAY)
    oracle = oracle_of(texts, "XA", AGREEMENTS)
    met = compared(rules, oracle, [LabelInSet("XA-NCVI/list", label) for label in some], surface)
    for reason in met:
        event(str(reason))


@pytest.mark.parametrize("us", ["XA", "XB", "XC", "XD", "XE"])
def test_the_rules_that_ship_decide_as_the_plain_evaluator_does(us: str) -> None:
    texts = read_policies(FOLDER, us)
    rules = policy.load(texts, on=DAY)
    agreements = {
        "-".join(sorted({us.lower(), *path.split("agreement-")[1].removesuffix(".cedar").split("-")})): set(
            path.split("agreement-")[1].removesuffix(".cedar").upper().split("-")
        )
        for path in texts
        if "agreement-" in path
    }
    oracle = oracle_of(texts, us, agreements)
    axes = itertools.product((us, "XB", "XD"), HandlingCode, ("lead", "identified"), ((), ("embargo",)), ("A1", "D5"))
    held = []
    for owner, code, word, tags, grade in axes:
        status, restrictions = VictimStatus(word), tuple(map(Restriction, tags))
        label = Label(f"{owner}-NCVI", owner, code, "icse:1", status, grade, "Act", restrictions, ("XC",))
        held.append(LabelInSet(f"{us}-NCVI/list", label))
    met = compared(rules, oracle, held, Surface.SEALED)
    assert {Reason.PERMITTED, Reason.NO_RULE, Reason.FORBIDDEN} <= met


def test_a_rule_that_errs_is_met_and_denies_on_both_sides() -> None:
    errs = f"when {{ resource.evaluation.information * {2**61} > 0 }}"
    notes = '@law("Act")\n@says("So.")\n@reviewed_by("desk")\n@valid_until("2030-12-31")\n'
    texts = {
        "schema.cedarschema": SCHEMA,
        "00-federation/base.cedar": f'@id("fed")\n{notes}forbid (principal, action, resource) {errs};',
        "XA/agreement-xb.cedar": f'@id("list")\n{notes}permit (principal in Agreement::"xa-xb", '
        'action == Action::"share_existence", resource);',
    }
    held = [
        LabelInSet("XA-NCVI/list", Label("XA-NCVI", "XA", HandlingCode.H1, "icse:1", VictimStatus.LEAD, grade, "Act"))
        for grade in ("A1", "A6")
    ]
    rules, oracle = policy.load(texts, on=DAY), oracle_of(texts, "XA", {"xa-xb": {"XB"}})
    assert Reason.ENGINE_ERROR in compared(rules, oracle, held, Surface.SEALED)
