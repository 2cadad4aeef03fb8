"""Policy texts to checked rules: everything that can be wrong with a rule is found here, before it decides anything."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date

import cedarpy

from gateway.errors import ConfigError
from gateway.model import MAX_TEXT_CHARS
from gateway.policy.quality import DEFAULT_USE, QUALITY_FILE, UseRule, parse_quality
from gateway.policy.words import Action, Obligation, Rule, RuleKind

SCHEMA = "schema.cedarschema"
FEDERATION = "00-federation"
PLACE = re.compile(r"(00-federation|[A-Z]{2})/([a-z0-9]+(?:-[a-z0-9]+)*)\.cedar")
AGREEMENT = re.compile(r"agreement((?:-[a-z]{2})+)")
RULE_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
NOBODY = "nobody"  # how @reviewed_by begins in a template's rules, until an office stands there
APPROVAL = "two"
REQUIRED = ("id", "law", "says", "reviewed_by", "valid_until")
MAX_RULES = 4096  # rules of one set: a country has dozens; more would make each decision slow
MAX_ID_CHARS = 64  # a rule id stands in every decision receipt
MAX_DETAIL_CHARS = 300  # of the engine's own complaint: enough to find the word that it means


@dataclass(frozen=True, slots=True)
class Texts:
    """A folder's texts, each in its place: the schema, rule files by relative path in sorted order, the rule of use."""

    schema: str
    rules: dict[str, str]
    jurisdiction: str
    use: UseRule = DEFAULT_USE


@dataclass(frozen=True, slots=True)
class Loaded:
    """Checked rules by id, each with the engine's own form of it."""

    rules: dict[str, Rule]
    forms: dict[str, dict[str, object]]


def digest_texts(texts: Mapping[str, str]) -> str:
    """SHA-256 (hex) over the sorted (path, bytes) pairs, each part with its length in 8 bytes before it.

    Example: the one pair ("a", "bc") hashes "policy 1\\n" 0000000000000001 61 0000000000000002 6263.
    """
    hashed = hashlib.sha256(b"policy 1\n")
    for path in sorted(texts):
        for raw in (path.encode(), texts[path].encode()):
            hashed.update(len(raw).to_bytes(8, "big") + raw)
    return hashed.hexdigest()


def sort_texts(texts: Mapping[str, str]) -> Texts:
    """The texts in their places; ConfigError for a stray file, a missing part or two countries at once."""
    schema = texts.get(SCHEMA)
    if schema is None:
        raise ConfigError("the policy schema is missing", place=SCHEMA)
    quality = [path for path in texts if path.endswith(f"/{QUALITY_FILE}")]
    rules = {path: texts[path] for path in sorted(texts) if path != SCHEMA and path not in quality}
    for path in rules:
        if PLACE.fullmatch(path) is None:
            raise ConfigError("a policy file in the wrong place, or with a name that no rule file has", place=path)
    folders = {path.split("/")[0] for path in rules}
    if FEDERATION not in folders:
        # The forbids that hold for everyone must never be lost by a copying mistake.
        raise ConfigError("the federation's rules are missing", place=FEDERATION)
    countries = sorted(folders - {FEDERATION})
    if len(countries) != 1:
        raise ConfigError("a gateway decides under the law of exactly one jurisdiction", place=", ".join(countries))
    if not set(quality) <= {f"{countries[0]}/{QUALITY_FILE}"}:
        raise ConfigError("a jurisdiction has one rule of use, in its own folder", place=quality[0])
    use = parse_quality(texts[quality[0]], quality[0]) if quality else DEFAULT_USE
    return Texts(schema, rules, countries[0], use)


def parse_schema(text: str) -> cedarpy.Schema:
    """The parsed schema."""
    try:
        return cedarpy.Schema.from_str(text)
    except ValueError as error:
        raise ConfigError(f"the policy schema cannot be read: {_brief(str(error))}", place=SCHEMA) from error


def load_rules(texts: Texts, schema: cedarpy.Schema) -> Loaded:
    """Every rule of every file, valid under the schema and complete; ConfigError names the file and the rule."""
    loaded = Loaded({}, {})
    for path, text in texts.rules.items():
        forms = _forms(path, text)
        _validate(path, text, forms, schema)
        for key in sorted(forms, key=_number):
            rule = _rule(path, _number(key), forms[key])
            if rule.id in loaded.rules:
                raise ConfigError("this @id is used twice", place=f"{path}, rule {rule.id}")
            _check_scope(rule, forms[key], texts.jurisdiction)
            loaded.rules[rule.id] = rule
            loaded.forms[rule.id] = forms[key]
    if len(loaded.rules) > MAX_RULES:
        raise ConfigError(f"more than {MAX_RULES} rules")
    if not any(rule.path.startswith(FEDERATION) for rule in loaded.rules.values()):
        raise ConfigError("the federation's folder holds no rule", place=FEDERATION)
    return loaded


def build_engines(loaded: Loaded, ids: set[str]) -> dict[Action, cedarpy.PolicySet]:
    """For each action the engine's set of the rules `ids` that can decide it, each under its own @id.

    All forbids are in each of them. A permit names its actions (`_check_scope`), so it is left out of the others: the
    engine looks at every rule of a set for every request, and if this went wrong, less would be shared.

    Cedar numbers rules read from text (`policy0` …); given as JSON they keep the names that we choose, so answers
    and errors speak of `@id` without a second table that could get out of step.
    """
    named = {i: _actions(_object(loaded.forms[i]["action"])) for i in ids if loaded.rules[i].kind is RuleKind.PERMIT}
    engines = {}
    for action in Action:
        forms = {i: loaded.forms[i] for i in sorted(ids) if i not in named or action in named[i]}
        document = {"templates": {}, "staticPolicies": forms, "templateLinks": []}
        engines[action] = cedarpy.PolicySet.from_json_str(json.dumps(document))
    return engines


def may_decide(form: dict[str, object], actions: Collection[Action]) -> bool:
    """False where a rule names single actions, and none of these is among them."""
    named = _actions(_object(form["action"]))
    return not named <= set(Action) or not named.isdisjoint(actions)


def agreement_id(jurisdiction: str, codes: str) -> str:
    """The agreement's name: all its parties, sorted. `agreement-xb` in XA's folder and `agreement-xa` in XB's agree."""
    return "-".join(sorted({jurisdiction.lower(), *codes.split("-")}))


def agreements(paths: Iterable[str], jurisdiction: str) -> dict[str, frozenset[str]]:
    """The agreements by name, with the other parties: one for each file `agreement-….cedar`.

    Our own jurisdiction is a party to all of them, but its other agencies are partners only where a file names it:
    `XA/agreement-xa.cedar`. Otherwise each of them would have the rights of every country.
    """
    found = {}
    for path in paths:
        codes = _agreement_codes(path)
        if codes:
            found[agreement_id(jurisdiction, codes)] = frozenset(codes.upper().split("-"))
    return found


def _agreement_codes(path: str) -> str:
    """The parties that a file's name gives, `xb-xc`; "" for a file that is no agreement."""
    place = PLACE.fullmatch(path)
    match = AGREEMENT.fullmatch(place[2]) if place and place[1] != FEDERATION else None
    return match[1].removeprefix("-") if match else ""


def _forms(path: str, text: str) -> dict[str, dict[str, object]]:
    """The file's rules in the engine's JSON form, by the engine's own number (`policy0` …)."""
    try:
        document = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        raise ConfigError(f"the rules cannot be read: {_brief(str(error))}", place=path) from error
    if document["templates"] or document["templateLinks"]:
        # A template permits nothing until something links it, and nothing here does: it would only look like a rule.
        raise ConfigError("a rule with ?principal or ?resource decides nothing", place=path)
    forms: dict[str, dict[str, object]] = document["staticPolicies"]
    return forms


def _validate(path: str, text: str, forms: dict[str, dict[str, object]], schema: cedarpy.Schema) -> None:
    result = cedarpy.validate_policies(text, schema)
    if result.validation_passed:
        return
    error = result.errors[0]
    name = _name(path, error.policy_id, forms)
    raise ConfigError(f"not valid under the schema: {_brief(error.error)}", place=name)


def _name(path: str, key: str, forms: dict[str, dict[str, object]]) -> str:
    """File and rule for people: the @id where there is one, else the rule's place in the file."""
    if key not in forms:
        return path
    annotations = _annotations(forms[key])
    return f"{path}, rule {annotations.get('id') or f'number {_number(key) + 1}'}"


def _rule(path: str, number: int, form: dict[str, object]) -> Rule:
    """One rule with all its annotations; a missing, empty, unknown or ill-formed one is refused."""
    notes = _annotations(form)
    place = f"{path}, rule {notes.get('id') or f'number {number + 1}'}"
    for name in REQUIRED:
        if not notes.get(name, "").strip():
            raise ConfigError(f"@{name} is missing or empty", place=place)
    for name, text in notes.items():
        # A misspelt @obligation would silently lift a duty, so no other annotation is known.
        if name not in {*REQUIRED, "obligation", "approval"}:
            raise ConfigError(f"unknown annotation @{name[:MAX_ID_CHARS]}", place=place)
        if len(text) > MAX_TEXT_CHARS or not text.isprintable():
            raise ConfigError(f"@{name} is longer than {MAX_TEXT_CHARS} characters or not one line", place=place)
    if RULE_ID.fullmatch(notes["id"]) is None or len(notes["id"]) > MAX_ID_CHARS:
        raise ConfigError("@id is not lower-case words joined by hyphens", place=place)
    if notes["reviewed_by"].strip().casefold().startswith(NOBODY):
        raise ConfigError(
            "the rule is a template's: nobody has reviewed it",
            place=place,
            remedy="put your own law into it, have it reviewed, and name the office in @reviewed_by",
        )
    kind = RuleKind(str(form["effect"]))
    return Rule(
        id=notes["id"],
        kind=kind,
        path=path,
        law=notes["law"],
        says=notes["says"],
        reviewed_by=notes["reviewed_by"],
        valid_until=_date(notes["valid_until"], place),
        obligations=_obligations(notes.get("obligation"), kind, place),
        needs_approval=_needs_approval(notes.get("approval"), form, kind, place),
    )


def _date(text: str, place: str) -> date:
    if DATE.fullmatch(text) is None:
        raise ConfigError("@valid_until is not a date YYYY-MM-DD", place=place)
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError("@valid_until is not a day of the calendar", place=place) from error


def _obligations(text: str | None, kind: RuleKind, place: str) -> tuple[Obligation, ...]:
    """The duties of one @obligation, separated by commas."""
    if text is None:
        return ()
    if kind is RuleKind.FORBID:
        raise ConfigError("a forbid carries no @obligation", place=place)
    try:
        parsed = [Obligation.parse(part.strip()) for part in text.split(",")]
    except ConfigError as error:
        raise ConfigError(error.message, place=place, remedy=error.remedy) from error
    if len({obligation.duty for obligation in parsed}) != len(parsed):
        raise ConfigError("@obligation names one duty twice", place=place)
    return tuple(sorted(parsed))


def _needs_approval(text: str | None, form: dict[str, object], kind: RuleKind, place: str) -> bool:
    """Whether the rule has `@approval("two")`: four eyes, each time. A referral alone waits for people."""
    if text is None:
        return False
    if text != APPROVAL:
        raise ConfigError(f'@approval says "{APPROVAL}", nothing else', place=place)
    if kind is RuleKind.FORBID or _actions(_object(form["action"])) != {str(Action.REFER)}:
        raise ConfigError("@approval is for a permit of refer alone", place=place)
    return True


def _check_scope(rule: Rule, form: dict[str, object], jurisdiction: str) -> None:
    """A permit stands in an agreement's file, reaches only that agreement's parties, and names what it shares.

    So "what may XB get?" is answered by reading one file, and a field group added later is shared by no old rule.
    """
    place = f"{rule.path}, rule {rule.id}"
    codes = _agreement_codes(rule.path)
    if codes:
        wanted = {"type": "Agreement", "id": agreement_id(jurisdiction, codes)}
        principal = _object(form["principal"])
        if principal.get("op") != "in" or principal.get("entity") != wanted:
            raise ConfigError(f'the rule is not for principal in Agreement::"{wanted["id"]}"', place=place)
    if rule.kind is RuleKind.FORBID:
        return
    if not codes:
        raise ConfigError("a permit outside an agreement's file", place=place)
    if not _actions(_object(form["action"])) <= {str(action) for action in Action}:
        raise ConfigError("a permit must name each action; action groups are for forbids", place=place)


def _actions(scope: dict[str, object]) -> set[str]:
    """The actions that a rule's scope names; {""} for a rule about all actions."""
    listed = scope.get("entities")
    entities = listed if isinstance(listed, list) else [scope.get("entity", {})]
    return {str(_object(entity).get("id", "")) for entity in entities} or {""}


def _annotations(form: dict[str, object]) -> dict[str, str]:
    """A rule's annotations; Cedar gives `@id` without a value as nothing, which counts as empty."""
    return {name: str(value or "") for name, value in _object(form.get("annotations", {})).items()}


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ConfigError("the policy engine gave a rule in a form that is not known here")
    return value


def _number(key: str) -> int:
    return int(key.removeprefix("policy"))


def _brief(text: str) -> str:
    """The engine's complaint on one line, cut to a length fit for a message."""
    return " ".join(text.split())[:MAX_DETAIL_CHARS]
