"""The guarded acts about policy: bringing one into force, now or on a day, and taking back one that waits for its day.

What is proposed is kept whole, under the digest that is signed: whatever becomes of the draft's folder meanwhile, what
comes into force is what was signed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from gateway import activation, policytexts, standing
from gateway.activation import FOLDER_META, SUPERSEDED, rules_of
from gateway.approvals import Act, Arguments, Change
from gateway.config import is_policy_file, read_policy_files
from gateway.errors import ConflictError, MalformedError
from gateway.exchange.rehearsing import Counted, rehearse
from gateway.interchange import HEX_DIGEST
from gateway.model import FieldGroup, require, text_member
from gateway.node import POLICY_META, Node
from gateway.policy import IntakeChange, PolicySet, ShareChange, digest_texts, load
from gateway.proposals import verified_signers
from gateway.standing import PolicyWord, roster
from gateway.store import Transaction

OTHER_ARGUMENTS = "a guarded act with other arguments than it takes"
MAX_SHOWN = 60  # changes that are shown before signing; `gateway policy diff` names all of them


def activate_policy(node: Node, folder: Path, on: date | None = None) -> tuple[str, Arguments]:
    """The act that brings the policy in a folder into force, at once or at the beginning of a day (UTC).

    Raises:
        ConfigError: a rule is not sound.
        MalformedError: the day is not one to come.
    """
    return activate_texts(node, read_policy_files(folder, node.settings.jurisdiction), on)


def activate_texts(node: Node, files: Mapping[str, str], on: date | None = None) -> tuple[str, Arguments]:
    """As `activate_policy`, of files that lie in no folder: relative path to content."""
    for path in files:
        require(is_policy_file(path, node.settings.jurisdiction), "a file that no policy here has")
    require(on is None or on > node.today, "the day is not one to come")
    _ = load(rules_of(files), on=on or node.today).digest
    with node.store.transaction() as tx:
        kept = policytexts.keep_texts(tx, files, node.clock())
    members = {"policy": digest_texts(rules_of(files)), "folder": kept, "on": on.isoformat() if on else ""}
    return "policy_activate", members


def cancel_policy(node: Node) -> tuple[str, Arguments]:
    """The act that takes back the policy that waits for its day.

    Raises:
        ConflictError: none does.
    """
    with node.store.reading() as tx:
        waiting = standing.policy_waiting(tx, node)
    if waiting is None:
        raise ConflictError("no policy waits for its day")
    return "policy_cancel", {"policy": waiting.policy, "on": waiting.on}


# The acts


def _activate(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    word = PolicyWord(_digest(arguments, "policy"), proposal, _signers(tx, node, proposal), _day(arguments))
    in_force = tx.people.meta(POLICY_META), tx.people.meta(FOLDER_META)
    if in_force == (word.policy, arguments.get("folder")):
        raise ConflictError("this policy is in force already")
    _ = _proposed(tx, node, arguments)  # sound on its day, and what its digest says
    if word.on > node.today.isoformat():
        activation.schedule(tx, node, word)
    else:
        activation.activate(tx, node, word)


def _cancel(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    waiting = standing.policy_waiting(tx, node)
    if waiting is None or (waiting.policy, waiting.on) != (_digest(arguments, "policy"), _day(arguments)):
        raise ConflictError("this policy does not wait for its day any more")
    activation.unschedule(tx, node, proposal, "cancelled")


def _signers(tx: Transaction, node: Node, proposal: str) -> tuple[str, ...]:
    row = tx.people.proposal(proposal)
    given = [(one.administrator, one.signature) for one in tx.people.approvals(row.id)]
    people = roster(tx, node)
    signed = verified_signers(row.statement.encode(), given, people.administrators, people.passkeys)
    return tuple(sorted(key.key_set_id for key in signed.values()))


def _proposed(tx: Transaction, node: Node, arguments: Arguments) -> PolicySet:
    """The policy that was proposed, as it will decide on its first day."""
    if "folder" not in arguments:
        raise ConflictError("this proposal is from before policies were kept with theirs", remedy="propose it again")
    rules = rules_of(policytexts.find(tx, _digest(arguments, "folder")))
    if digest_texts(rules) != arguments["policy"]:
        raise ConflictError("the policy that was proposed is not the one of its digest", remedy="propose it again")
    day = _day(arguments)
    found = load(rules, on=max(date.fromisoformat(day), node.today) if day else node.today)
    require(found.jurisdiction == node.settings.jurisdiction, "this is the policy of another jurisdiction")
    return found


def _activate_subject(arguments: Arguments) -> str:
    # A proposal from before policies were kept with theirs has the digest alone: it is shown, and cannot be done.
    require(
        set(arguments) in ({"policy"}, {"policy", "folder", "on"}), "a guarded act with other arguments than it takes"
    )
    if "folder" in arguments:
        _digest(arguments, "folder")
    day = _day(arguments)
    return _digest(arguments, "policy") + (f" on {day}" if day else "")


def _cancel_subject(arguments: Arguments) -> str:
    require(set(arguments) == {"policy", "on"}, OTHER_ARGUMENTS)
    return f"{_digest(arguments, 'policy')} on {_day(arguments)}"


def _digest(arguments: Arguments, name: str) -> str:
    digest = text_member(dict(arguments), name)
    require(HEX_DIGEST.fullmatch(digest), "this is not the digest of a policy")
    return digest


def _day(arguments: Arguments) -> str:
    """The day as written, "" for at once."""
    text = str(arguments.get("on", ""))
    if text:
        try:
            require(date.fromisoformat(text).isoformat() == text, "the day is not written as YYYY-MM-DD")
        except ValueError as error:
            raise MalformedError("the day is not written as YYYY-MM-DD") from error
    return text


# What they would change


def _difference(tx: Transaction, node: Node, arguments: Arguments) -> Sequence[Change]:
    """The files by the digest of their text, and who would get what from then on, and what no more."""
    if "folder" not in arguments:
        return []
    waiting, after = standing.policy_waiting(tx, node), _proposed(tx, node, arguments)
    changes = [Change("policy", (tx.people.meta(POLICY_META) or "")[:16], after.digest[:16])]
    if waiting is not None:
        changes.append(Change(f"policy for {waiting.on}", waiting.policy[:16], SUPERSEDED))
    before = node.policies.texts
    for path, text in _changed(before, rules_of(policytexts.find(tx, _digest(arguments, "folder")))).items():
        changes.append(Change(path, *text))
    use = [one.use.words for one in (node.policy, after)]
    if use[0] != use[1]:
        changes.append(Change("when a program may act on an entry", *use))
    moved = [change for one in rehearse(tx, node, node.policy, after).changes for change in _told(one)]
    if len(moved) > MAX_SHOWN:
        more = f"{len(moved) - MAX_SHOWN} more changes"
        moved = [*moved[:MAX_SHOWN], Change(more, "", "`gateway policy diff` names all")]
    return [*changes, *moved]


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {
        path: (_short(before.get(path)), _short(after.get(path)))
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    }


def _short(text: str | None) -> str:
    return "" if text is None else digest_texts({"": text})[:16]


def _told(one: Counted) -> list[Change]:
    change = one.change
    what = f"{change.partner.agency}, {change.held.set_name}, label {change.number}, {one.entries:,} entries"
    was, then = (", ".join(rules) or "no rule" for rules in change.rules)
    if isinstance(change, IntakeChange):
        words = ("not taken", "taken") if change.taken else ("taken", "not taken")
        return [Change(what, f"{words[0]} ({was})", f"{words[1]} ({then})")]
    return [*_shared(what, change, one, was, then), *_duties(what, change)]


def _shared(what: str, change: ShareChange, one: Counted, was: str, then: str) -> list[Change]:
    words = {group: f"{group} ({count:,})" for group, count in one.groups.items()}
    stopped = ", ".join(words[group] for group in sorted(change.stopped))
    started = ", ".join(words[group] for group in sorted(change.started))
    found = [Change(what, f"gets {stopped} ({was})", f"gives back ({then})")] if stopped else []
    return [*found, Change(what, f"does not get ({was})", f"gets {started} ({then})")] if started else found


def _duties(what: str, change: ShareChange) -> list[Change]:
    if FieldGroup.EXISTENCE in change.started | change.stopped:
        return []  # all of it comes or goes, and its duties with it
    before, after = (", ".join(map(str, duties)) or "none" for duties in change.duties)
    return [Change(f"{what}, duties", before, after)] if before != after else []


def _cancel_difference(tx: Transaction, node: Node, _arguments: Arguments) -> Sequence[Change]:
    waiting = standing.policy_waiting(tx, node)
    return [] if waiting is None else [Change(f"policy for {waiting.on}", waiting.policy[:16], "cancelled")]


def _after(node: Node) -> None:
    activation.keep_in_step(node)


POLICY_ACTS: Mapping[str, Act] = {
    "policy_activate": Act("bring a policy into force", _activate_subject, _activate, _difference, _after),
    "policy_cancel": Act("take back a policy that waits for its day", _cancel_subject, _cancel, _cancel_difference),
}
