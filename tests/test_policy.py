"""gateway.policy: what it refuses to load, how it decides, and that every fault ends in a deny."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import model, policy
from gateway.errors import ConfigError, MalformedError
from gateway.model import ENTRY_GROUPS, FieldGroup, HandlingCode, Label, Restriction, Surface, VictimStatus
from gateway.policy import (
    Action,
    Duty,
    Effect,
    Grid,
    LabelInSet,
    Obligation,
    PartnerRef,
    Purpose,
    Question,
    Reason,
    ShareRequest,
    deciding,
)

SCHEMA = (Path(__file__).parent.parent / "policies" / "schema.cedarschema").read_text()
DAY = date(2027, 1, 15)
NOTES = {"id": "xa-xb-list", "law": "Act 1", "says": "XB gets it.", "reviewed_by": "desk", "valid_until": "2030-12-31"}
XB = PartnerRef("XB-NCVI", "XB")
LABEL = Label("XA-NCVI", "XA", HandlingCode.H1, "icse:1", VictimStatus.IDENTIFIED, "B2", "Act 1")
HELD = LabelInSet("XA-NCVI/identified-victims", LABEL)
PERMIT = 'permit (principal in Agreement::"xa-xb", action in [{actions}], resource) {when};'
FORBID = "forbid (principal, action, resource) {when};"


ONLY_H0 = 'when { resource.handling == Handling::"H0" }'


def annotated(body: str, **notes: str) -> str:
    """A rule with all annotations; a keyword replaces one, None drops it."""
    merged = {**NOTES, **notes}
    return "\n".join([*(f'@{name}("{text}")' for name, text in merged.items() if text is not None), body])


def permit(*actions: Action, when: str = "", **notes: str) -> str:
    named = ", ".join(f'Action::"{action}"' for action in actions or Action)
    return annotated(PERMIT.format(actions=named, when=when), **notes)


def forbid(when: str = "", **notes: str) -> str:
    return annotated(FORBID.format(when=when), **{"id": "fed-one", **notes})


def texts(*rules: str, federation: str = "", **files: str) -> dict[str, str]:
    """A folder with one harmless federation rule and `rules` as XA's agreement with XB."""
    return {
        "schema.cedarschema": SCHEMA,
        "00-federation/base.cedar": federation or forbid('when { resource.set_name == "none" }', id="fed-base"),
        "XA/agreement-xb.cedar": "\n".join(rules),
        **files,
    }


def load(*rules: str, on: date = DAY, **files: str) -> policy.PolicySet:
    return policy.load(texts(*rules, **files), on=on)


def ask(action: Action = Action.SHARE_EXISTENCE, held: LabelInSet = HELD, **changes: object) -> ShareRequest:
    purpose = Purpose.SAFEGUARDING if action in (Action.LOOK_UP, Action.REFER) else None
    return replace(ShareRequest(XB, action, Surface.SEALED, held, purpose), **changes)


# --- loading ---


@pytest.mark.parametrize("name", sorted(NOTES))
def test_rule_without_a_required_annotation_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"@{name} is missing") as caught:
        load(permit(**{name: None}))
    assert caught.value.place.startswith("XA/agreement-xb.cedar, rule ")


@pytest.mark.parametrize("name", sorted(NOTES))
def test_rule_with_an_empty_annotation_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"@{name} is missing or empty"):
        load(permit(**{name: " "}))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (permit(when="when { resource.colour == 1 }"), "attribute `colour`"),
        (permit(when='when { resource.handling == Handling::"H4" }'), '"H4"'),
        (permit(when='when { resource.handling == "H1" }'), "not compatible"),
        (permit(when='when { context.purpose == Purpose::"safeguarding" }'), "purpose"),
        (permit(valid_until="2030-2-31"), "not a date"),
        (permit(valid_until="2030-02-31"), "not a day of the calendar"),
        (permit(valid_until="20300228"), "not a date"),
        (permit(obligation="retain_forever"), "closed list"),
        (permit(obligation="retain_days"), "number of days"),
        (permit(obligation="retain_days(0)"), "closed list"),
        (permit(obligation="retain_days(99999)"), "number of days"),
        (permit(obligation="no_onward(3)"), "number of days"),
        (permit(obligation="no_onward, no_onward"), "twice"),
        (permit(obligation=""), "closed list"),
        (permit(reviewed_by="nobody: template"), "nobody has reviewed it"),
        (permit(reviewed_by="Nobody yet"), "nobody has reviewed it"),
        (permit(obligatoin="no_onward"), "unknown annotation @obligatoin"),
        (permit(Action.REFER, approval="one"), '@approval says "two"'),
        (permit(Action.REFER, approval=""), '@approval says "two"'),
        (permit(Action.REFER, Action.LOOK_UP, approval="two"), "for a permit of refer alone"),
        (forbid(id="xa-one", approval="two"), "for a permit of refer alone"),
        (permit(id="Not An Id"), "@id is not"),
        (permit(says="two\\nlines"), "not one line"),
        (permit(law="x" * 257), "longer than 256"),
        (permit() + permit(), "this @id is used twice"),
        (forbid(id="xa-one"), "not for principal in Agreement"),
        (permit().replace("xa-xb", "xa-xc"), "@id is not|not for principal in Agreement"),
        (permit().replace('principal in Agreement::"xa-xb"', "principal"), "not for principal in Agreement"),
        (annotated('permit (principal in Agreement::"xa-xb", action, resource);'), "must name each action"),
        (annotated('permit (principal in Agreement::"xa-xb", action in Action::"share", resource);'), "name each"),
        (annotated('permit (principal == ?principal, action == Action::"forward", resource);'), "decides nothing"),
        ("permit (", "cannot be read"),
        ('@id("a") @id("b") permit (principal, action, resource);', "duplicate annotation"),
    ],
)
def test_unsound_rule_is_refused_with_its_file(rule: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(rule)
    assert caught.value.place.startswith("XA/agreement-xb.cedar")


def test_the_schemas_complaint_names_the_rule_by_its_id() -> None:
    with pytest.raises(ConfigError) as caught:
        load(permit(id="good"), permit(id="bad", when="when { resource.colour == 1 }"))
    assert caught.value.place == "XA/agreement-xb.cedar, rule bad"


def test_an_id_used_in_two_files_is_refused() -> None:
    with pytest.raises(ConfigError, match="used twice"):
        load(permit(), **{"XA/national.cedar": forbid(id=NOTES["id"])})


def test_a_forbid_with_an_obligation_is_refused() -> None:
    with pytest.raises(ConfigError, match="a forbid carries no @obligation"):
        load(permit(), **{"XA/national.cedar": forbid(id="xa-no", obligation="no_onward")})


@pytest.mark.parametrize("path", ["XA/national.cedar", "00-federation/more.cedar"])
def test_a_permit_outside_an_agreement_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="a permit outside an agreement's file"):
        load(**{path: permit(id="stray")})


@pytest.mark.parametrize(
    "path",
    ["agreement.cedar", "XA/deep/a.cedar", "xa/a.cedar", "XA/A.cedar", "../a.cedar", "XA/a.cedar.bak", "XA/a b.cedar"],
)
def test_a_file_in_the_wrong_place_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="wrong place"):
        load(permit(), **{path: ""})


def test_a_set_without_schema_federation_or_country_is_refused() -> None:
    for missing in ("schema.cedarschema", "00-federation/base.cedar", "XA/agreement-xb.cedar"):
        whole = texts(permit())
        del whole[missing]
        with pytest.raises(ConfigError):
            policy.load(whole, on=DAY)


def test_two_countries_at_once_are_refused() -> None:
    with pytest.raises(ConfigError, match="exactly one jurisdiction"):
        load(permit(), **{"XB/national.cedar": ""})


def test_an_empty_federation_folder_is_refused() -> None:
    with pytest.raises(ConfigError, match="holds no rule"):
        load(permit(), federation="// nothing")


@pytest.mark.parametrize(
    ("old", "new"),
    [('"H3"', '"H4"'), ('"withheld"', '"hidden"'), ('"legal_hold"', '"hold"'), ("legal_basis", "basis")],
)
def test_a_schema_that_does_not_know_our_labels_is_refused(old: str, new: str) -> None:
    with pytest.raises(ConfigError, match="does not describe this program's labels"):
        load("", **{"schema.cedarschema": SCHEMA.replace(old, new)})


@pytest.mark.parametrize(("old", "new"), [("share_clues", "share_hints"), ('"statistics"', '"counting"')])
def test_a_schema_that_does_not_know_our_actions_is_refused(old: str, new: str) -> None:
    with pytest.raises(ConfigError, match="does not describe this program's actions"):
        load("", **{"schema.cedarschema": SCHEMA.replace(old, new)})


def test_an_unreadable_schema_is_refused() -> None:
    with pytest.raises(ConfigError, match="the policy schema cannot be read"):
        load("", **{"schema.cedarschema": "entity entity"})


def test_there_is_an_action_for_each_field_group_and_no_other() -> None:
    assert {Action.share(group) for group in FieldGroup} == {action for action in Action if action.shares}


def test_digest_is_over_length_prefixed_sorted_texts() -> None:
    whole = texts(permit())
    hashed = hashlib.sha256(b"policy 1\n")
    for path, text in sorted(whole.items()):
        for raw in (path.encode(), text.encode()):
            hashed.update(len(raw).to_bytes(8, "big") + raw)
    assert policy.load(dict(reversed(whole.items())), on=DAY).digest == hashed.hexdigest()
    assert load(permit() + " ").digest != hashed.hexdigest()


# --- lapse ---


def test_a_permit_holds_through_its_last_day_and_not_one_longer() -> None:
    rule = permit(valid_until="2027-01-15")
    assert load(rule).decide(ask()).allowed
    after = load(rule, on=date(2027, 1, 16))
    assert after.decide(ask()).reason is Reason.NO_RULE
    assert [lapsed.id for lapsed in after.lapsed] == ["xa-xb-list"]


def test_a_forbid_past_its_date_stays_in_force_and_is_listed() -> None:
    stale = forbid(valid_until="2020-01-01")
    policies = load(permit(), **{"XA/national.cedar": stale.replace("fed-one", "xa-stale")})
    assert policies.decide(ask()).rule_ids == ("xa-stale",)
    assert [rule.id for rule in policies.lapsed] == ["xa-stale"]


def test_good_until_is_the_last_day_of_the_first_permit_to_lapse() -> None:
    policies = load(permit(id="a", valid_until="2029-01-01"), permit(id="b", valid_until="2028-01-01"))
    assert policies.good_until == date(2028, 1, 1)
    assert load("").good_until is None


# --- deciding ---


def test_no_rule_is_deny() -> None:
    decision = load("").decide(ask())
    assert (decision.effect, decision.reason, decision.rules) == (Effect.DENY, Reason.NO_RULE, ())


def test_any_forbid_wins_and_is_named() -> None:
    national = forbid('when { resource.handling == Handling::"H1" }', id="xa-no")
    decision = load(permit(), **{"XA/national.cedar": national}).decide(ask())
    assert (decision.effect, decision.reason, decision.rule_ids) == (Effect.DENY, Reason.FORBIDDEN, ("xa-no",))


def test_an_allow_names_every_deciding_permit_and_the_strictest_duties() -> None:
    policies = load(
        permit(Action.SHARE_EXISTENCE, id="a", obligation="retain_days(90), court_use_needs_leave"),
        permit(Action.SHARE_EXISTENCE, Action.SHARE_SERIES, id="b", obligation="retain_days(30), no_onward"),
    )
    decision = policies.decide(ask(Action.SHARE_SERIES))
    assert decision.allowed
    assert decision.rule_ids == ("a", "b")
    assert decision.obligations == (
        Obligation(Duty.COURT_USE_NEEDS_LEAVE),
        Obligation(Duty.NO_ONWARD),
        Obligation(Duty.RETAIN_DAYS, 30),
    )
    assert decision.rules[0].law == "Act 1"
    assert decision.rules[0].says == "XB gets it."


def test_four_eyes_are_needed_where_any_deciding_permit_asks_for_them() -> None:
    refer = ShareRequest(XB, Action.REFER, Surface.SEALED, HELD, Purpose.SAFEGUARDING)
    free, guarded = permit(Action.REFER, id="free"), permit(Action.REFER, id="guarded", approval="two")
    assert not load(free).decide(refer).needs_approval
    assert load(guarded).decide(refer).needs_approval
    assert load(free, guarded).decide(refer).needs_approval
    # What is denied needs nobody's approval, and none would help.
    closed = load(guarded, federation=forbid())
    assert (closed.decide(refer).allowed, closed.decide(refer).needs_approval) == (False, False)


def test_without_existence_no_group_is_shared() -> None:
    policies = load(permit(Action.SHARE_SERIES))
    decision = policies.decide(ask(Action.SHARE_SERIES))
    assert (decision.reason, decision.action) == (Reason.NO_RULE, Action.SHARE_EXISTENCE)
    assert policies.table(XB, Surface.SEALED, {1: HELD})[1].groups == frozenset()


@pytest.mark.parametrize("action", [Action.SHARE_EXISTENCE, Action.SHARE_CLUES, Action.LOOK_UP, Action.REFER])
def test_a_third_countrys_entry_needs_leave_to_go_onward(action: Action) -> None:
    foreign = LabelInSet("XA-NCVI/list", replace(LABEL, originator="XC-NCVI", jurisdiction="XC"))
    without = load(permit(*(a for a in Action if a is not Action.FORWARD)))
    decision = without.decide(ask(action, foreign))
    assert (decision.reason, decision.action) == (Reason.NO_RULE, Action.FORWARD)
    assert load(permit()).decide(ask(action, foreign)).allowed


def test_a_partners_own_entry_goes_home_without_the_onward_rule() -> None:
    home = LabelInSet("XA-NCVI/list", replace(LABEL, originator="XB-NCVI", jurisdiction="XB"))
    assert load(permit(Action.SHARE_EXISTENCE)).decide(ask(held=home)).allowed


def test_an_agreement_reaches_its_parties_only() -> None:
    policies = load(permit())
    for other in (PartnerRef("XC-NCVI", "XC"), PartnerRef("XA-COAST", "XA")):
        assert policies.decide(ask(partner=other)).reason is Reason.NO_RULE


def test_an_agreement_of_several_countries_reaches_all_of_them() -> None:
    rule = permit().replace('"xa-xb"', '"xa-xb-xc"')
    whole = texts("")
    del whole["XA/agreement-xb.cedar"]
    policies = policy.load({**whole, "XA/agreement-xc-xb.cedar": rule}, on=DAY)
    for code in ("XB", "XC"):
        assert policies.decide(ask(partner=PartnerRef(f"{code}-NCVI", code))).allowed
    assert not policies.decide(ask(partner=PartnerRef("XD-NCVI", "XD"))).allowed


def test_agencies_of_our_own_country_need_an_agreement_that_names_it() -> None:
    rule = permit().replace('"xa-xb"', '"xa"')
    policies = load("", **{"XA/agreement-xa.cedar": rule})
    assert policies.decide(ask(partner=PartnerRef("XA-COAST", "XA"))).allowed
    assert not policies.decide(ask()).allowed


@pytest.mark.parametrize("action", [Action.LOOK_UP, Action.REFER])
def test_a_question_without_purpose_is_denied(action: Action) -> None:
    assert load(permit()).decide(ask(action)).allowed
    assert load(permit()).decide(ask(action, purpose=None)).reason is Reason.ENGINE_ERROR


def test_a_purpose_where_none_belongs_is_denied() -> None:
    request = ask(Action.SHARE_EXISTENCE, purpose=Purpose.SAFEGUARDING)
    assert load(permit()).decide(request).effect is Effect.DENY


def test_partner_of_another_jurisdiction_than_its_code_is_refused() -> None:
    with pytest.raises(MalformedError, match="of another jurisdiction"):
        PartnerRef("XB-NCVI", "XA")


# --- tables ---


def test_table_says_what_decide_says_for_each_group() -> None:
    policies = load(
        permit(Action.SHARE_EXISTENCE, id="a"),
        permit(
            Action.SHARE_SERIES, id="b", when='when { resource.handling == Handling::"H0" }', obligation="no_onward"
        ),
    )
    labels = {n: LabelInSet(HELD.set_name, replace(LABEL, handling=code)) for n, code in enumerate(HandlingCode, 1)}
    rows = policies.table(XB, Surface.SEALED, labels)
    for number, held in labels.items():
        allowed = {g for g in ENTRY_GROUPS if policies.decide(ask(Action.share(g), held)).allowed}
        assert rows[number].groups == allowed
    assert rows[1].permits == ("a", "b")
    assert rows[1].obligations == (Obligation(Duty.NO_ONWARD),)
    assert rows[2].permits == ("a",)


def test_table_lists_the_forbids_behind_what_is_withheld() -> None:
    national = annotated('forbid (principal, action == Action::"share_series", resource);', id="xa-no-series")
    rights = load(permit(), **{"XA/national.cedar": national}).table(XB, Surface.SEALED, {7: HELD})[7]
    assert rights.groups == set(ENTRY_GROUPS) - {FieldGroup.SERIES}
    assert rights.forbids == ("xa-no-series",)


def test_table_answers_for_the_groups_that_are_asked() -> None:
    groups = (FieldGroup.EXISTENCE, FieldGroup.CLUES)
    assert load(permit()).table(XB, Surface.SEALED, {1: HELD}, groups=groups)[1].groups == set(groups)


def test_tables_are_kept_and_the_engine_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policies, asked = load(permit()), []
    real = cedarpy.is_authorized_batch

    def counting(requests: list, *rest: object) -> list:
        asked.extend(requests)
        return real(requests, *rest)

    monkeypatch.setattr(cedarpy, "is_authorized_batch", counting)
    first = policies.table(XB, Surface.SEALED, {1: HELD, 2: HELD})
    taken = policies.receivable(XB, Surface.SEALED, {1: HELD})
    assert len(asked) == len(ENTRY_GROUPS) + 1
    assert policies.table(XB, Surface.SEALED, {5: HELD}) == {5: first[1]}
    assert policies.receivable(XB, Surface.SEALED, {9: HELD}) == {9: taken[1]}
    assert len(asked) == len(ENTRY_GROUPS) + 1


def test_a_full_cache_starts_again_and_stays_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding, "MAX_CACHED", 2)
    policies = load(permit(when='when { resource.handling == Handling::"H1" }'))
    labels = {n: LabelInSet(HELD.set_name, replace(LABEL, handling=code)) for n, code in enumerate(HandlingCode)}
    for _ in range(3):
        for number, held in labels.items():
            assert bool(policies.table(XB, Surface.SEALED, {number: held})[number].groups) == (number == 1)
    assert len(policies._rights) <= 2


def test_a_large_table_is_asked_in_batches() -> None:
    labels = {n: LabelInSet(HELD.set_name, replace(LABEL, category=f"icse:{n}")) for n in range(300)}
    rows = load(permit(when='when { resource.category != "icse:7" }')).table(XB, Surface.SEALED, labels)
    assert [n for n in labels if not rows[n].groups] == [7]


def test_many_decisions_at_once_are_those_of_one_at_a_time() -> None:
    errs = f'when {{ resource.handling == Handling::"H0" && resource.evaluation.information * {2**62} > 0 }}'
    national = forbid(errs, id="xa-errs") + forbid('when { resource.handling == Handling::"H3" }', id="xa-no-h3")
    policies = load(permit(), **{"XA/national.cedar": national})
    partners = (XB, PartnerRef("XC-NCVI", "XC"), PartnerRef("XB-COAST", "XB"))
    owners = [LABEL, replace(LABEL, originator="XC-NCVI", jurisdiction="XC", onward=("XB",))]
    labels = tuple(LabelInSet(HELD.set_name, replace(one, handling=code)) for one in owners for code in HandlingCode)
    asked = tuple(
        Question(action, purpose)
        for action in Action
        for purpose in (Purpose if action in (Action.LOOK_UP, Action.REFER) else (None,))
    )
    rows = iter(policies.decide_all(Grid(partners, Surface.SEALED, labels, asked)))
    for held in labels:
        for partner in partners:
            alone = [
                policies.decide(ShareRequest(partner, one.action, Surface.SEALED, held, one.purpose)) for one in asked
            ]
            assert next(rows) == alone
    assert next(rows, None) is None


def test_an_engine_that_fails_in_the_middle_denies_that_batch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding, "MAX_BATCH", len(ENTRY_GROUPS))
    policies, real, calls = load(permit()), cedarpy.is_authorized_batch, []

    def failing_once(*arguments: Any) -> list:
        calls.append(arguments)
        if len(calls) == 2:
            raise RuntimeError
        return real(*arguments)

    monkeypatch.setattr(cedarpy, "is_authorized_batch", failing_once)
    labels = tuple(LabelInSet(HELD.set_name, replace(LABEL, category=f"icse:{n}")) for n in range(3))
    asked = tuple(Question(Action.share(group)) for group in ENTRY_GROUPS)
    rows = list(policies.decide_all(Grid((XB,), Surface.SEALED, labels, asked)))
    assert {decision.reason for decision in rows[0]} == {Reason.ENGINE_ERROR}
    assert all(decision.allowed for row in rows[1:] for decision in row)


def test_receivable_decides_label_by_label() -> None:
    policies = load(permit(Action.RECEIVE, when='when { resource.evaluation.source == "B" }', obligation="no_onward"))
    bad = LabelInSet(HELD.set_name, replace(LABEL, evaluation="C2"))
    decisions = policies.receivable(XB, Surface.SEALED, {1: HELD, 2: bad})
    assert decisions[1].allowed
    assert decisions[1].obligations == (Obligation(Duty.NO_ONWARD),)
    assert decisions[2].reason is Reason.NO_RULE


# --- every fault is a deny ---

ATTRIBUTES = deciding.label_attributes(LabelInSet(HELD.set_name, replace(LABEL, onward=("XB",))))
WRONG = [None, 7, 7.5, "zz", True, [], ["zz"], [7], {}, {"__entity": {"type": "Handling", "id": "H9"}}]


def faults() -> list[tuple[str, object]]:
    """Each attribute with each wrong value; a text stays a text, since any text is of the right type."""
    found: list[tuple[str, object]] = []
    for name, good in ATTRIBUTES.items():
        listed = [wrong for wrong in WRONG if not (isinstance(good, str) and isinstance(wrong, str))]
        # An empty list is a good value for a set, and so is a list of texts for a set of texts.
        listed = [w for w in listed if not (isinstance(good, list) and w == [])]
        listed = [w for w in listed if not (name == "onward" and w == ["zz"])]
        found += [(name, wrong) for wrong in listed]
    return found


def decide_with(policies: policy.PolicySet, monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> object:
    monkeypatch.setattr(deciding, name, lambda *_: value)
    return policies.decide(ask())


@pytest.mark.parametrize("name", sorted(ATTRIBUTES))
def test_a_label_without_one_attribute_is_denied(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = {key: value for key, value in ATTRIBUTES.items() if key != name}
    decision = decide_with(load(permit()), monkeypatch, "label_attributes", rest)
    assert (decision.effect, decision.reason) == (Effect.DENY, Reason.ENGINE_ERROR)


@pytest.mark.parametrize(("name", "wrong"), faults())
def test_a_label_with_a_wrong_attribute_is_denied(name: str, wrong: object, monkeypatch: pytest.MonkeyPatch) -> None:
    decision = decide_with(load(permit()), monkeypatch, "label_attributes", {**ATTRIBUTES, name: wrong})
    assert (decision.effect, decision.reason) == (Effect.DENY, Reason.ENGINE_ERROR)


@pytest.mark.parametrize(
    "attributes", [{}, {"agency": "XB-NCVI"}, {"jurisdiction": "XB"}, {"agency": 1, "jurisdiction": "XB"}]
)
def test_a_partner_with_a_faulty_attribute_is_denied(attributes: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    assert decide_with(load(permit()), monkeypatch, "partner_attributes", attributes).reason is Reason.ENGINE_ERROR


@pytest.mark.parametrize(
    "context", [{}, {"surface": "sealed"}, {"surface": {"__entity": {"type": "Surface", "id": "paper"}}}, {"x": 1}]
)
def test_a_request_with_a_faulty_context_is_denied(context: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    assert decide_with(load(permit()), monkeypatch, "context_of", context).reason is Reason.ENGINE_ERROR


def test_a_forbid_that_errs_denies_although_the_engine_would_allow() -> None:
    overflow = f"when {{ resource.evaluation.information * {2**62} > 0 }}"
    policies = load(permit(), **{"XA/national.cedar": forbid(overflow, id="xa-errs")})
    raw = cedarpy.is_authorized_batch(*engine_call(policies))[0]
    assert raw.decision is cedarpy.Decision.Allow
    assert policies.decide(ask()).reason is Reason.ENGINE_ERROR


def engine_call(policies: policy.PolicySet) -> tuple[list, object, object, object]:
    """The arguments with which the policy set asks its engine."""
    caught: list[tuple] = []

    def catch(*arguments: object) -> list:
        caught.append(arguments)
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cedarpy, "is_authorized_batch", catch)
        policies.decide(ask())
    return caught[0]


def answer(decision: str, reasons: list[str], errors: list[str]) -> cedarpy.AuthzResult:
    return cedarpy.AuthzResult({"decision": decision, "diagnostics": {"reason": reasons, "errors": errors}})


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (answer("Allow", [], []), Reason.NO_LAWFUL_PERMIT),
        (answer("Allow", ["policy0"], []), Reason.NO_LAWFUL_PERMIT),
        (answer("Allow", ["xa-xb-list", "policy7"], []), Reason.NO_LAWFUL_PERMIT),
        (answer("Allow", ["fed-base"], []), Reason.NO_LAWFUL_PERMIT),
        (answer("Allow", ["xa-xb-list"], ["while evaluating"]), Reason.ENGINE_ERROR),
        (answer("NoDecision", ["xa-xb-list"], []), Reason.ENGINE_ERROR),
        (answer("Perhaps", ["xa-xb-list"], []), Reason.ENGINE_ERROR),
        (answer("Deny", ["fed-base"], ["while evaluating"]), Reason.ENGINE_ERROR),
        (cedarpy.AuthzResult({}), Reason.ENGINE_ERROR),
        (None, Reason.ENGINE_ERROR),
    ],
)
def test_only_a_clean_allow_by_known_permits_counts(
    raw: object, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = load(permit())
    monkeypatch.setattr(cedarpy, "is_authorized_batch", lambda requests, *_: [raw] * len(requests))
    decision = policies.decide(ask())
    assert (decision.effect, decision.reason) == (Effect.DENY, reason)


@pytest.mark.parametrize("results", [[], [answer("Allow", ["xa-xb-list"], [])] * 2])
def test_an_engine_that_miscounts_is_denied(results: list, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = load(permit())
    monkeypatch.setattr(cedarpy, "is_authorized_batch", lambda *_: results)
    assert policies.decide(ask()).reason is Reason.ENGINE_ERROR


def test_an_engine_that_raises_denies_all_that_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    policies = load(permit())

    def broken(*_: object) -> list:
        raise RuntimeError

    monkeypatch.setattr(cedarpy, "is_authorized_batch", broken)
    assert policies.table(XB, Surface.SEALED, {1: HELD})[1].groups == frozenset()
    assert policies.receivable(XB, Surface.SEALED, {1: HELD})[1].reason is Reason.ENGINE_ERROR


def test_a_permit_whose_law_is_lost_does_not_count() -> None:
    policies = load(permit())
    bare = {i: replace(rule, law="") for i, rule in policies.rules.items()}
    assert replace(policies, rules=bare, _rights={}).decide(ask()).reason is Reason.NO_LAWFUL_PERMIT


# --- properties ---

CONDITIONS = [
    "",
    *(f'when {{ resource.handling == Handling::"{code}" }}' for code in HandlingCode),
    *(f'when {{ resource.restrictions.contains(Restriction::"{tag}") }}' for tag in Restriction),
    *(f'unless {{ resource.victim_status == VictimStatus::"{status}" }}' for status in VictimStatus),
    'when { context.surface == Surface::"tls_only" }',
    "unless { resource.onward.contains(principal.jurisdiction) }",
    "when { resource.evaluation.information > 3 }",
    'when { resource.jurisdiction != "XA" }',
    f"when {{ resource.evaluation.information * {2**62} > 0 }}",
]
codes = st.sampled_from(["XA", "XB", "XC"])
labels = st.builds(
    lambda owner, handling, status, source, information, tags, onward: Label(
        f"{owner}-NCVI",
        owner,
        handling,
        "icse:1",
        status,
        f"{source}{information}",
        "Act 1",
        tuple(sorted(tags)),
        tuple(sorted(onward)),
    ),
    codes,
    st.sampled_from(HandlingCode),
    st.sampled_from(VictimStatus),
    st.sampled_from("ABCDEF"),
    st.integers(1, 6),
    st.sets(st.sampled_from(Restriction)),
    st.sets(codes),
)
requests = st.builds(
    lambda code, action, surface, label: ask(
        action, LabelInSet("XA-NCVI/list", label), partner=PartnerRef(f"{code}-NCVI", code), surface=surface
    ),
    codes,
    st.sampled_from(Action),
    st.sampled_from(Surface),
    labels,
)
REAL = {
    path: (Path(__file__).parent.parent / "policies" / path).read_text()
    for path in ("schema.cedarschema", "00-federation/restrictions.cedar", "XA/agreement-xb.cedar", "XA/national.cedar")
}
WITHOUT_MORE = policy.load(REAL, on=DAY)
PERMISSIVE = load(permit(when='unless { resource.legal_basis == "never" }'))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(CONDITIONS), max_size=3), st.lists(requests, min_size=1, max_size=8))
def test_more_forbids_never_allow_more(conditions: list[str], asked: list[ShareRequest]) -> None:
    more = "\n".join(forbid(condition, id=f"xa-more-{n}") for n, condition in enumerate(conditions))
    with_more = policy.load({**REAL, "XA/more.cedar": more}, on=DAY)
    for request in asked:
        assert WITHOUT_MORE.decide(request).allowed or not with_more.decide(request).allowed


@settings(max_examples=80, deadline=None)
@given(requests)
def test_every_decision_is_whole(request: ShareRequest) -> None:
    decision = WITHOUT_MORE.decide(request)
    if decision.allowed:
        assert decision.rules
        assert all(rule.kind is policy.RuleKind.PERMIT and rule.law and rule.says for rule in decision.rules)
    else:
        assert decision.obligations == ()
        assert (decision.reason is Reason.FORBIDDEN) == bool(decision.rules)


@settings(max_examples=80, deadline=None)
@given(labels, st.data())
def test_a_request_that_lost_attributes_is_never_allowed(label: Label, data: st.DataObject) -> None:
    whole = deciding.label_attributes(LabelInSet("XA-NCVI/list", label))
    kept = data.draw(st.sets(st.sampled_from(sorted(whole)), max_size=len(whole) - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deciding, "label_attributes", lambda _: {name: whole[name] for name in kept})
        assert not PERMISSIVE.decide(ask()).allowed


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_a_text_in_a_label_cannot_break_out_of_it(text: str) -> None:
    label = replace(LABEL, legal_basis=text or "x")
    attributes = json.loads(json.dumps(deciding.label_attributes(LabelInSet("XA-NCVI/list", label))))
    assert attributes["legal_basis"] == (text or "x")
    assert PERMISSIVE.decide(ask(held=LabelInSet("XA-NCVI/list", label))).allowed


# --- explaining ---


def test_explain_says_who_gets_what_and_by_which_law() -> None:
    explanation = load(permit()).explain(ask(Action.SHARE_SERIES))
    assert explanation.sentence == (
        "XB-NCVI receives series of XA-NCVI/identified-victims (XA-NCVI, H1, icse:1, identified, B2), "
        "because it is permitted [xa-xb-list: XB gets it (Act 1)]."
    )
    assert explanation.decision.allowed


def test_explain_says_that_no_rule_permits() -> None:
    sentence = load(permit(Action.SHARE_EXISTENCE)).explain(ask(Action.SHARE_PERCEPTUAL_DIGESTS)).sentence
    assert sentence.startswith("XB-NCVI does not receive perceptual digests of XA-NCVI/identified-victims")
    assert sentence.endswith("because no rule permits it (asked: share perceptual digests).")


def test_explain_names_the_forbid() -> None:
    national = forbid(id="xa-no", law="Act 9", says="Never.")
    sentence = load(permit(), **{"XA/national.cedar": national}).explain(ask(Action.RECEIVE)).sentence
    assert sentence.startswith("XA does not take entries of XA-NCVI/identified-victims")
    assert sentence.endswith("from XB-NCVI, because receive is forbidden [xa-no: Never (Act 9)].")


@pytest.mark.parametrize("action", Action)
def test_explain_has_a_sentence_for_each_action_and_outcome(action: Action) -> None:
    yes, no = load(permit()).explain(ask(action)), load("").explain(ask(action))
    assert yes.sentence != no.sentence
    assert "XB-NCVI" in yes.sentence
    assert ("not" in no.sentence, "not" in yes.sentence) == (True, False)


def test_explain_says_that_what_cannot_be_judged_is_denied() -> None:
    assert "cannot be judged is denied" in load(permit()).explain(ask(Action.REFER, purpose=None)).sentence


# --- examples ---

EXAMPLE = """
[labels.one]
set = "XA-NCVI/list"
originator = "XA-NCVI"
jurisdiction = "XA"
handling = "H1"
category = "icse:1"
victim_status = "identified"
evaluation = "B2"
legal_basis = "Act 1"
restrictions = []
onward = []

[[example]]
why = "XB gets it"
partner = "XB-NCVI"
surface = "sealed"
actions = ["share_existence"]
label = "one"
expect = "allow"
rules = ["xa-xb-list"]
"""


def test_an_example_that_holds_has_no_faults() -> None:
    (example,) = policy.parse_examples(EXAMPLE, "XA")
    assert policy.try_example(example, load(permit())) == ()


def test_an_example_that_fails_says_how() -> None:
    (example,) = policy.parse_examples(EXAMPLE, "XA")
    assert policy.try_example(example, load("")) == (
        "share_existence: deny (no_rule), expected allow",
        "rules: none, expected xa-xb-list",
    )
    assert policy.try_example(example, load(permit(obligation="no_onward"))) == (
        "obligations: no_onward, expected none",
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('why = "XB gets it"', ""),
        ('expect = "allow"', 'expect = "maybe"'),
        ('expect = "allow"', 'expect = "allow"\nextra = 1'),
        ('label = "one"', 'label = "two"'),
        ('label = "one"', 'label = "one"\nchange = { handling = "H9" }'),
        ('label = "one"', 'label = "one"\nchange = { colour = "red" }'),
        ('label = "one"', 'label = "one"\nus = "XB"'),
        ('["share_existence"]', '["share_everything"]'),
        ('["share_existence"]', "[]"),
        ('partner = "XB-NCVI"', 'partner = "nobody"'),
        ('legal_basis = "Act 1"', ""),
        ("[[example]]", "[[exampel]]"),
        ("[labels.one]", "[labels.one"),
    ],
)
def test_a_misspelt_example_is_refused(old: str, new: str) -> None:
    assert old in EXAMPLE
    with pytest.raises(ConfigError) as caught:
        policy.parse_examples(EXAMPLE.replace(old, new), "XA")
    assert caught.value.place.startswith("XA/examples.toml")


def test_the_schema_knows_exactly_our_closed_lists() -> None:
    for kind, words in (
        ("Handling", model.HandlingCode),
        ("VictimStatus", model.VictimStatus),
        ("Restriction", model.Restriction),
        ("Surface", model.Surface),
        ("Purpose", Purpose),
    ):
        line = next(line for line in SCHEMA.splitlines() if line.startswith(f"entity {kind} enum"))
        assert json.loads(line.partition("enum ")[2].rstrip(";")) == [str(word) for word in words]
