"""The policy set: decides, fills tables and explains. Pure, and closed on every failure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from typing import TypeVar

import cedarpy

from gateway.errors import ConfigError
from gateway.model import ENTRY_GROUPS, FieldGroup, HandlingCode, Label, Purpose, Restriction, Surface, VictimStatus
from gateway.policy.loading import (
    SCHEMA,
    agreements,
    build_engines,
    digest_texts,
    load_rules,
    may_decide,
    parse_schema,
    sort_texts,
)
from gateway.policy.looking import looks_at
from gateway.policy.quality import UseRule
from gateway.policy.words import (
    Action,
    Decision,
    Effect,
    Explanation,
    Grid,
    LabelInSet,
    LabelRights,
    PartnerRef,
    Question,
    Reason,
    Rule,
    RuleKind,
    ShareRequest,
    strictest,
)

MAX_BATCH = 512  # requests in one call to the engine: it holds the interpreter, about 60 us each, so 30 ms at most
MAX_CACHED = 65_536  # table rows kept (about 1 KiB each): 16 partners with the most labels that a set may have

JsonObject = dict[str, object]
RightsKey = tuple[PartnerRef, Surface, LabelInSet, tuple[FieldGroup, ...]]
ReceivedKey = tuple[PartnerRef, Surface, LabelInSet]
AskedKey = tuple[PartnerRef, Surface, LabelInSet, Question]
K = TypeVar("K")
T = TypeVar("T")
V = TypeVar("V")


def load(texts: Mapping[str, str], *, on: date) -> PolicySet:
    """The policy set that these texts make on one day. It decides nothing unless every rule is sound.

    Args:
        texts: relative path to content: `schema.cedarschema`, `00-federation/*.cedar` and one country's `XA/*.cedar`.
        on: the day to decide for. A permit past its `@valid_until` no longer permits; a forbid past it stays in
            force, since a lapse must never open anything. Both are listed in `lapsed`.

    Raises:
        ConfigError: names the file and the rule.
    """
    placed = sort_texts(texts)
    schema = parse_schema(placed.schema)
    loaded = load_rules(placed, schema)
    lapsed = tuple(rule for rule in loaded.rules.values() if rule.valid_until < on)
    dropped = {rule.id for rule in lapsed if rule.kind is RuleKind.PERMIT}
    in_force = {i: rule for i, rule in loaded.rules.items() if i not in dropped}
    _check_schema_knows_our_words(schema)
    return PolicySet(
        texts=dict(texts),
        digest=digest_texts(texts),
        jurisdiction=placed.jurisdiction,
        on=on,
        rules=in_force,
        lapsed=lapsed,
        agreements=agreements(placed.rules, placed.jurisdiction),
        use=placed.use.on(on),
        _forms={i: loaded.forms[i] for i in in_force},
        _engines=build_engines(loaded, set(in_force)),
        _schema=schema,
    )


def _reload(texts: Mapping[str, str], on: date) -> PolicySet:
    return load(texts, on=on)


@dataclass(frozen=True, slots=True, eq=False)
class PolicySet:
    """Sound rules on one day, under the law of one jurisdiction ("us").

    `rules` are those in force by id. `lapsed` are the rules past their date: permits no longer in force, forbids that
    stay. `digest` names the texts, not the day. A set travels to another process as its texts and its day.
    """

    texts: Mapping[str, str] = field(repr=False)
    digest: str
    jurisdiction: str
    on: date
    rules: Mapping[str, Rule]
    lapsed: tuple[Rule, ...]
    agreements: Mapping[str, frozenset[str]]
    use: UseRule
    _forms: Mapping[str, dict[str, object]] = field(repr=False)
    _engines: Mapping[Action, cedarpy.PolicySet] = field(repr=False)
    _schema: cedarpy.Schema = field(repr=False)
    _rights: dict[RightsKey, LabelRights] = field(default_factory=dict, repr=False)
    _received: dict[ReceivedKey, Decision] = field(default_factory=dict, repr=False)
    _asked: dict[AskedKey, Decision] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple[object, ...]:
        """Loaded anew wherever it is unpickled."""
        return _reload, (self.texts, self.on)

    @property
    def good_until(self) -> date | None:
        """The last day on which this set decides as it does now: load again on the day after. None without permits."""
        days = [rule.valid_until for rule in self.rules.values() if rule.kind is RuleKind.PERMIT]
        if self.use.valid_until is not None and not self.use.lapsed:
            days.append(self.use.valid_until)
        return min(days, default=None)

    def decide(self, request: ShareRequest) -> Decision:
        """The decision on one request. It raises nothing: what cannot be judged is denied."""
        asked = Question(request.action, request.purpose)
        [[decision]] = self.decide_all(Grid((request.partner,), request.surface, (request.held,), (asked,)))
        return decision

    def decide_all(self, grid: Grid) -> Iterator[list[Decision]]:
        """For each label, and for each partner under it, the decision on each question.

        Equal decisions of one call are one object, so that a million of them stay small, in memory and on their way
        from another process.
        """
        plans = {foreign: _Plan.of(grid.asked, foreign=foreign) for foreign in (False, True)}
        pairs = [(who, held, plans[self._is_foreign(who, held)]) for held in grid.labels for who in grid.partners]
        at_once = max(1, MAX_BATCH // max(1, *(len(plan.steps) for plan in plans.values())))
        known: _Known = {}
        joined: _Joined = {}
        for start in range(0, len(pairs), at_once):
            batch = pairs[start : start + at_once]
            answers = iter(self._ask(grid.surface, batch, known))
            for _, _, plan in batch:
                yield plan.decisions(list(islice(answers, len(plan.steps))), joined)

    def table(
        self,
        partner: PartnerRef,
        surface: Surface,
        labels: Mapping[int, LabelInSet],
        *,
        groups: Sequence[FieldGroup] = ENTRY_GROUPS,
    ) -> dict[int, LabelRights]:
        """What may be shared with one partner, label by label; `groups` are the field groups asked about."""
        asked = tuple(groups)
        keys = {number: (partner, surface, held, asked) for number, held in labels.items()}
        found, missing = _recall(self._rights, keys.values())
        questions = tuple(Question(Action.share(group)) for group in asked)
        rows = self.decide_all(Grid((partner,), surface, tuple(key[2] for key in missing), questions))
        found.update((key, rights(asked, row)) for key, row in zip(missing, rows, strict=True))
        _remember(self._rights, found)
        return {number: found[key] for number, key in keys.items()}

    def receivable(
        self, partner: PartnerRef, surface: Surface, labels: Mapping[int, LabelInSet]
    ) -> dict[int, Decision]:
        """Whether we take entries from one partner, label by label."""
        keys = {number: (partner, surface, held) for number, held in labels.items()}
        found, missing = _recall(self._received, keys.values())
        asked = (Question(Action.RECEIVE),)
        rows = self.decide_all(Grid((partner,), surface, tuple(key[2] for key in missing), asked))
        found.update((key, decision) for key, [decision] in zip(missing, rows, strict=True))
        _remember(self._received, found)
        return {number: found[key] for number, key in keys.items()}

    def answerable(
        self, partner: PartnerRef, surface: Surface, labels: Mapping[int, LabelInSet], question: Question
    ) -> dict[int, Decision]:
        """Whether one partner may have an answer to a question, label by label."""
        keys = {number: (partner, surface, held, question) for number, held in labels.items()}
        found, missing = _recall(self._asked, keys.values())
        rows = self.decide_all(Grid((partner,), surface, tuple(key[2] for key in missing), (question,)))
        found.update((key, decision) for key, [decision] in zip(missing, rows, strict=True))
        _remember(self._asked, found)
        return {number: found[key] for number, key in keys.items()}

    def looks_at(self, asked: Iterable[Question]) -> dict[str, frozenset[str]]:
        """What can change the answers to these questions: `looking.looks_at` of the rules that may decide them."""
        actions = {step.action for question in asked for step in _needed(question, foreign=True)}
        return looks_at(form for form in self._forms.values() if may_decide(form, actions))

    def explain(self, request: ShareRequest) -> Explanation:
        """The decision on one request in one plain sentence, with its rules."""
        decision = self.decide(request)
        because = _because(decision)
        return Explanation(request, decision, f"{_what(self, request, decision)}, {because}.", because)

    def _is_foreign(self, partner: PartnerRef, held: LabelInSet) -> bool:
        """Whether the entries belong to a third country.

        What belongs to the partner's own country may always go home; the sharing rule still has to permit it.
        """
        return held.label.jurisdiction not in (self.jurisdiction, partner.jurisdiction)

    def _ask(self, surface: Surface, pairs: Sequence[_Pair], known: _Known) -> list[Decision]:
        """The engine's answer to each step of each pair of partner and label."""
        asked = [(who, held, step) for who, held, plan in pairs for step in plan.steps]
        try:
            partners, labels = _numbered(who for who, _, _ in pairs), _numbered(held for _, held, _ in pairs)
            entities = self._entities(partners.values(), labels.values())
            # As text: the library would write the same few contexts anew for each request.
            contexts = {step: json.dumps(context_of(surface, step.purpose)) for step in {step for _, _, step in asked}}
            answers: dict[int, Decision] = {}
            for action in dict.fromkeys(step.action for _, _, step in asked):
                places = [place for place, (_, _, step) in enumerate(asked) if step.action is action]
                requests = [
                    {
                        "principal": {"type": "Partner", "id": partners[id(who)][0]},
                        "action": {"type": "Action", "id": action.value},
                        "resource": {"type": "Label", "id": labels[id(held)][0]},
                        "context": contexts[step],
                    }
                    for who, held, step in map(asked.__getitem__, places)
                ]
                results = cedarpy.is_authorized_batch(requests, self._engines[action], entities, self._schema)
                for place, result in zip(places, results, strict=True):
                    answers[place] = self._answer(action, result, known)
            return [answers[place] for place in range(len(asked))]
        except Exception:
            # Whatever goes wrong inside the engine, the answer is no, and its reason says so.
            return [Decision(Effect.DENY, Reason.ENGINE_ERROR, step.action) for _, _, step in asked]

    def _entities(
        self, partners: Iterable[tuple[str, PartnerRef]], labels: Iterable[tuple[str, LabelInSet]]
    ) -> cedarpy.Entities:
        """The engine's form of partners and labels, each under its number."""
        listed = [_entity("Partner", n, partner_attributes(who), self._parents(who)) for n, who in partners]
        listed += [_entity("Label", n, label_attributes(held), []) for n, held in labels]
        return cedarpy.Entities.from_json_str(json.dumps(listed), self._schema)

    def _answer(self, action: Action, result: cedarpy.AuthzResult, known: _Known) -> Decision:
        """The engine's answer as a decision, made once for all answers that are alike."""
        ids, errs, said = result.diagnostics.reasons, bool(result.diagnostics.errors), result.decision
        key = (action, said, errs, *ids)
        if key not in known:
            known[key] = self._judged(action, said, ids, errs=errs)
        return known[key]

    def _judged(self, action: Action, said: cedarpy.Decision, ids: Sequence[str], *, errs: bool) -> Decision:
        """What the engine said, as a decision; only a clean Allow with a source of law behind it stays an allow."""
        rules = tuple(self.rules[i] for i in sorted(ids) if i in self.rules)
        if errs:
            # Cedar skips a forbid that errs and may then allow: any error at all means no.
            return Decision(Effect.DENY, Reason.ENGINE_ERROR, action, rules)
        if said is cedarpy.Decision.Deny:
            return Decision(Effect.DENY, Reason.FORBIDDEN if rules else Reason.NO_RULE, action, rules)
        if said is not cedarpy.Decision.Allow:
            return Decision(Effect.DENY, Reason.ENGINE_ERROR, action, rules)
        lawful = len(rules) == len(ids) > 0 and all(r.kind is RuleKind.PERMIT and r.id and r.law for r in rules)
        if not lawful:
            return Decision(Effect.DENY, Reason.NO_LAWFUL_PERMIT, action, rules)
        duties = strictest([duty for rule in rules for duty in rule.obligations])
        return Decision(Effect.ALLOW, Reason.PERMITTED, action, rules, duties)

    def _parents(self, partner: PartnerRef) -> list[JsonObject]:
        """The agreements that a partner's country is a party to."""
        return [_uid("Agreement", name) for name, parties in self.agreements.items() if partner.jurisdiction in parties]


def partner_attributes(partner: PartnerRef) -> JsonObject:
    """What a rule can read of the principal."""
    return {"agency": partner.agency, "jurisdiction": partner.jurisdiction}


def label_attributes(held: LabelInSet) -> JsonObject:
    """What a rule can read of the resource: every attribute, always.

    The evaluation is split, so that a rule can say `["A", "B"].contains(resource.evaluation.source)` and
    `resource.evaluation.information <= 3`.
    """
    label = held.label
    return {
        "set_name": held.set_name,
        "originator": label.originator,
        "jurisdiction": label.jurisdiction,
        "handling": _reference("Handling", label.handling),
        "category": label.category,
        "victim_status": _reference("VictimStatus", label.victim_status),
        "evaluation": {"source": label.evaluation[:1], "information": int(label.evaluation[1:])},
        "legal_basis": label.legal_basis,
        "restrictions": [_reference("Restriction", tag) for tag in label.restrictions],
        "onward": list(label.onward),
    }


def context_of(surface: Surface, purpose: Purpose | None) -> JsonObject:
    """What a rule can read of the circumstances; the purpose is there only if one was given."""
    context: JsonObject = {"surface": _reference("Surface", surface)}
    if purpose is not None:
        context["purpose"] = _reference("Purpose", purpose)
    return context


def _check_schema_knows_our_words(schema: cedarpy.Schema) -> None:
    """ConfigError unless the schema describes each word of our closed lists and each action.

    Without this check a schema of another version would still fail closed, but silently: everything denied.
    """
    label = Label("XZ-PROBE", "XZ", HandlingCode.H0, "probe:0", VictimStatus.UNKNOWN, "A1", "probe")
    attributes = label_attributes(LabelInSet("XZ-PROBE/probe", label))
    probes = [
        *({**attributes, "handling": _reference("Handling", code)} for code in HandlingCode),
        *({**attributes, "victim_status": _reference("VictimStatus", status)} for status in VictimStatus),
        {**attributes, "restrictions": [_reference("Restriction", tag) for tag in Restriction]},
    ]
    partner = PartnerRef("XZ-PROBE", "XZ")
    listed = [_entity("Label", str(n), probe, []) for n, probe in enumerate(probes)]
    listed.append(_entity("Partner", "0", partner_attributes(partner), [_uid("Agreement", "probe")]))
    nothing = cedarpy.PolicySet.from_str("")
    try:
        entities = cedarpy.Entities.from_json_str(json.dumps(listed), schema)
        requests = [
            {
                "principal": _uid("Partner", "0"),
                "action": _uid("Action", action),
                "resource": _uid("Label", "0"),
                "context": context_of(surface, why),
            }
            for action in Action
            for surface in Surface
            for why in (Purpose if action in (Action.LOOK_UP, Action.REFER) else (None,))
        ]
        results = cedarpy.is_authorized_batch(requests, nothing, entities, schema)
    except ValueError as error:
        raise ConfigError("the policy schema does not describe this program's labels", place=SCHEMA) from error
    if any(result.diagnostics.errors for result in results):
        raise ConfigError("the policy schema does not describe this program's actions", place=SCHEMA)


def _needed(question: Question, *, foreign: bool) -> list[Question]:
    """The steps of a question, in the order they are judged.

    What tells a partner anything about a third country's entry is onward transfer too. The purpose travels only to the
    action that it is for.
    """
    action = question.action
    if action in (Action.RECEIVE, Action.FORWARD):
        return [question]
    first = [Question(Action.FORWARD)] if foreign else []
    if action.shares and action is not Action.SHARE_EXISTENCE:
        first.append(Question(Action.SHARE_EXISTENCE))
    return [*first, question]


@dataclass(frozen=True, slots=True)
class _Plan:
    """The steps that some questions need, each once, and for each question the places of its own steps."""

    steps: list[Question]
    places: list[list[int]]

    @classmethod
    def of(cls, asked: Sequence[Question], *, foreign: bool) -> _Plan:
        """The plan for these questions about entries of a third country, or of another."""
        needed = [_needed(question, foreign=foreign) for question in asked]
        steps = list(dict.fromkeys(step for listed in needed for step in listed))
        return cls(steps, [[steps.index(step) for step in listed] for listed in needed])

    def decisions(self, answers: list[Decision], joined: _Joined) -> list[Decision]:
        """One decision for each question, from the answers to the steps: all of its own must be allowed."""
        found = []
        for places in self.places:
            own = [answers[place] for place in places]
            key = tuple(map(id, own))
            if key not in joined:
                joined[key] = (own, _all_of(own))
            found.append(joined[key][1])
        return found


_Pair = tuple[PartnerRef, LabelInSet, _Plan]
_Known = dict[tuple[object, ...], Decision]
_Joined = dict[tuple[int, ...], tuple[list[Decision], Decision]]  # by `id`, beside the objects, so that none is reused


def _numbered(values: Iterable[T]) -> dict[int, tuple[str, T]]:
    """Objects by their `id`, each with a number of its own: comparing labels by value would cost as much as asking."""
    found: dict[int, tuple[str, T]] = {}
    for value in values:
        if id(value) not in found:
            found[id(value)] = (str(len(found)), value)
    return found


def _all_of(answers: Sequence[Decision]) -> Decision:
    """The first deny, else one allow with the rules and duties of every step."""
    for answer in answers:
        if not answer.allowed:
            return answer
    rules = {rule.id: rule for answer in answers for rule in answer.rules}
    duties = strictest([duty for answer in answers for duty in answer.obligations])
    last = answers[-1]
    return Decision(last.effect, last.reason, last.action, tuple(rules[i] for i in sorted(rules)), duties)


def rights(groups: Sequence[FieldGroup], decisions: Sequence[Decision]) -> LabelRights:
    """One row of the table, from one decision for each group."""
    allowed = [decision for decision in decisions if decision.allowed]
    refused = [decision for decision in decisions if not decision.allowed]
    return LabelRights(
        groups=frozenset(group for group, decision in zip(groups, decisions, strict=True) if decision.allowed),
        obligations=strictest([duty for decision in allowed for duty in decision.obligations]),
        permits=tuple(sorted({i for decision in allowed for i in decision.rule_ids})),
        forbids=tuple(sorted({i for decision in refused for i in decision.rule_ids})),
    )


def _recall(cache: dict[K, V], keys: Iterable[K]) -> tuple[dict[K, V], list[K]]:
    """What the cache holds of these keys, and the keys it lacks, each once."""
    wanted = list(dict.fromkeys(keys))
    # One look at each key: another thread may empty the cache meanwhile.
    found = {key: kept for key in wanted if (kept := cache.get(key)) is not None}
    return found, [key for key in wanted if key not in found]


def _remember(cache: dict[K, V], found: Mapping[K, V]) -> None:
    """Keep what was found; a full cache starts again, since tables are cheap to fill and must not grow for ever."""
    if len(cache) + len(found) > MAX_CACHED:
        cache.clear()
    cache.update(found)


def _uid(kind: str, name: str) -> JsonObject:
    return {"type": kind, "id": str(name)}


def _reference(kind: str, name: str) -> JsonObject:
    return {"__entity": _uid(kind, name)}


def _entity(kind: str, name: str, attributes: JsonObject, parents: list[JsonObject]) -> JsonObject:
    return {"uid": _uid(kind, name), "attrs": attributes, "parents": parents}


def _what(policy_set: PolicySet, request: ShareRequest, decision: Decision) -> str:
    """Who gets what, or not: "XB-NCVI does not receive perceptual digests of XA-NCVI/identified-victims (H1, …)"."""
    partner, action, held = request.partner.agency, request.action, request.held
    entries = f"{held.set_name} ({_label_words(held.label)})"
    no = not decision.allowed
    if action is Action.RECEIVE:
        return f"{policy_set.jurisdiction} {'does not take' if no else 'takes'} entries of {entries} from {partner}"
    if action is Action.FORWARD:
        return f"entries of {entries} {'may not' if no else 'may'} be passed on to {partner}"
    if action is Action.LOOK_UP:
        return f"{partner} {'may not' if no else 'may'} look up entries of {entries}"
    if action is Action.REFER:
        return f"a case under {entries} {'may not' if no else 'may'} be referred to {partner}"
    group = action.removeprefix("share_").replace("_", " ")
    return f"{partner} {'does not receive' if no else 'receives'} {group} of {entries}"


def _label_words(label: Label) -> str:
    words = [label.originator, label.handling, label.category, label.victim_status, label.evaluation]
    return ", ".join([*words, *label.restrictions])


def _because(decision: Decision) -> str:
    """The reason in words, with the rules that gave it."""
    step = decision.action.replace("_", " ")
    quoted = "; ".join(f"{rule.id}: {rule.says.rstrip('.')} ({rule.law})" for rule in decision.rules)
    if decision.reason is Reason.PERMITTED:
        return f"because it is permitted [{quoted}]"
    if decision.reason is Reason.FORBIDDEN:
        return f"because {step} is forbidden [{quoted}]"
    if decision.reason is Reason.NO_RULE:
        return f"because no rule permits it (asked: {step})"
    if decision.reason is Reason.NO_LAWFUL_PERMIT:
        return f"because a deciding rule names no law (asked: {step})"
    return f"because the policy engine could not judge it, and what cannot be judged is denied (asked: {step})"
