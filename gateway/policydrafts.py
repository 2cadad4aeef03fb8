"""A policy that somebody is working on: what it would change, before anybody proposes it.

A draft is what it changes of the files in force; nothing of it is kept here, so two people never see each other's. What
is proposed is the same bytes that were rehearsed: both are named by the digest of all files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from gateway.activation import rules_of, signed_files
from gateway.approvals import Arguments
from gateway.config import EXAMPLES, MAX_POLICY_BYTES, MAX_POLICY_FILES, is_policy_file, read_policy_files
from gateway.errors import ConfigError, ConflictError, MalformedError, TooLargeError
from gateway.exchange.rehearsing import Rehearsal, rehearse
from gateway.model import ENTRY_GROUPS
from gateway.node import Node
from gateway.policy import SHEET, Checked, RuleChanges, check, describe, digest_texts, rule_changes
from gateway.policyacts import activate_texts
from gateway.policymatrix import enrolled
from gateway.standing import policy_in_force

MAX_REHEARSED = 200_000  # decisions under the new rules: some twelve seconds of one core

Files = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Draft:
    """What is changed of the files in force: a new text, or None where the file is left out."""

    changes: Mapping[str, str | None]

    @classmethod
    def of(cls, before: Files, after: Files) -> Draft:
        """What makes `after` of `before`. Sheets are no part of it: they are made of the rules."""
        changed = {path: after.get(path) for path in sorted({*before, *after}) if before.get(path) != after.get(path)}
        return cls({path: text for path, text in changed.items() if not path.endswith(f"/{SHEET}")})

    def files(self, node: Node, before: Files) -> dict[str, str]:
        """All files of the policy that it makes, with sheets that say what its rules say.

        Raises:
            MalformedError: a file that no policy of this jurisdiction has.
            TooLargeError: a file, or their number, is over its bound.
        """
        for path, text in self.changes.items():
            if not is_policy_file(path, node.settings.jurisdiction) or path.endswith(f"/{SHEET}"):
                raise MalformedError("a policy of this gateway has no file of this name", place=path)
            if text is not None and len(text.encode()) > MAX_POLICY_BYTES:
                raise TooLargeError(f"the file is larger than {MAX_POLICY_BYTES} bytes", place=path)
        merged = {**before, **self.changes}
        files = {path: text for path, text in sorted(merged.items()) if text is not None}
        if len(files) > MAX_POLICY_FILES:
            raise TooLargeError(f"more than {MAX_POLICY_FILES} policy files")
        return files if rules_of(files) == rules_of(before) else _with_sheets(files)


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a draft would do. `folder`: the digest of all its files. The last two are None where a rule is not sound."""

    folder: str
    checked: Checked
    rules: RuleChanges | None
    moved: Rehearsal | None


def files_in_force(node: Node) -> tuple[Files, str]:
    """All files that were signed with the policy in force, and their digest."""
    with node.store.reading() as tx:
        if policy_in_force(tx, node).policy:
            return signed_files(tx, node)
    # A gateway from before policies were activated decides by its folder.
    files = read_policy_files(node.settings.policies_folder, node.settings.jurisdiction)
    return files, digest_texts(files)


def rehearse_files(node: Node, files: Files, *, on: date | None = None) -> Rehearsed:
    """What would change if these files were in force, now or on a day. Nothing is changed by it.

    Raises:
        TooLargeError: more partners and labels than this takes.
    """
    rules = rules_of(files)
    checked = check(rules, _examples(files), on=on or node.today)
    folder = digest_texts(files)
    after = checked.policies
    if after is None:
        return Rehearsed(folder, checked, None, None)
    if after.jurisdiction != node.settings.jurisdiction:
        raise MalformedError("this is the policy of another jurisdiction")
    with node.store.reading() as tx:
        labels = sum(len(tx.sets.labels(row.id or 0)) for row in tx.sets.all())
        if labels * len(enrolled(tx)) * len(ENTRY_GROUPS) > MAX_REHEARSED:
            remedy = "rehearse it in a terminal: `gateway policy diff FOLDER`"
            raise TooLargeError("there are more partners and labels than one page rehearses", remedy=remedy)
        moved = rehearse(tx, node, node.policy, after)
    return Rehearsed(folder, checked, rule_changes(node.policy.texts, rules), moved)


def propose_files(node: Node, files: Files, *, folder: str, on: date | None = None) -> tuple[str, Arguments]:
    """The act that brings files into force that were rehearsed under this digest.

    Raises:
        ConflictError: these are not the files that were rehearsed.
        MalformedError: a rule is not sound, or an example is decided otherwise than written.
    """
    if digest_texts(files) != folder:
        raise ConflictError(
            "the policy in force has changed since this was rehearsed", remedy="go back and rehearse it again"
        )
    try:
        check(rules_of(files), _examples(files), on=on or node.today).sound()
    except ConfigError as error:
        raise MalformedError(error.message, place=error.place, remedy=error.remedy) from error
    return activate_texts(node, files, on)


def _examples(files: Files) -> dict[str, str]:
    return {path.partition("/")[0]: text for path, text in files.items() if path.endswith(f"/{EXAMPLES}")}


def _with_sheets(files: Files) -> dict[str, str]:
    """The sheets are made anew; where a rule has no plain words there is none, rather than one that is not true."""
    without = {path: text for path, text in files.items() if not path.endswith(f"/{SHEET}")}
    try:
        sheets = describe(rules_of(files))
    except ConfigError:
        return without
    return dict(sorted({**without, **sheets}.items()))
