"""The policy in force: signed by administrators, kept in the database, written out for people with a `LOCK`.

What counts is the log: it says which policy is in force, and by which proposal; the texts lie in the database under
their digest (`policytexts`). The policy folder is what people read, and everything in it must be as it was signed:

    policies/LOCK     the policy's digest, every file with its SHA-256, the proposal with its signatures (policy-1.md)

Rules:

1. `LOCK` is written last. As long as it is the one of before, each file may be as that says or as the new one will.
   Then the folder is brought to what is in force; a crash on the way is mended in the same way at the next start.
2. Anything else in the folder that is not as signed, or a `LOCK` that is not, stops the gateway at its start.
3. A policy with a date comes into force at the beginning of that day (UTC). From then on nothing is shared under the
   one before: `partners.policy_is_in_force` looks at the day, and `keep_in_step` puts the other in its place.
4. A running gateway takes up what came into force without a restart, each node by itself, once every two seconds.
   A deed that was decided under the policy of before notices at its commit, as it does at the change of a day.
5. One policy waits at most: whichever is activated or scheduled later takes its place.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping

from gateway import policy, policytexts, standing
from gateway.audit import EventKind
from gateway.config import LOCK, read_lock, read_policies, read_policy_files
from gateway.crypto import canonical
from gateway.crypto.keys import VerifyingKey
from gateway.errors import AuditBrokenError, ConfigError, MalformedError
from gateway.model import text_member
from gateway.node import POLICY_META, WAITING_META, Node, awaits_restore
from gateway.partners import record_policy
from gateway.policy import QUALITY_FILE, SCHEMA
from gateway.policyfolder import write_policy_folder
from gateway.proposals import SigningPasskey, passkey_of, stored, verified_signers
from gateway.standing import PolicyWord, waiting_word
from gateway.store import Transaction

LOCK_VERSION = "policy lock 1"
FOLDER_META = "policy folder"  # the digest of all files that were signed with the policy in force
MAX_LOCK_BYTES = 256 << 10  # two signatures and the keys have 20 KB; a policy of a thousand files 120 KB
MAX_KEY_BYTES = 8 << 10
SUPERSEDED = "superseded by another"
ALTERED = "this file is not as it was signed"
NEVER = "9999-99-99"
_REMEDY = (
    "move the policy folder elsewhere and start again: it is written anew as it was signed. A change comes from "
    "another folder: `gateway policy activate --folder`"
)


# The policy in force


def rules_of(files: Mapping[str, str]) -> dict[str, str]:
    """Those files of a policy folder that decide, as `policy.load` takes them."""
    return {
        path: text for path, text in files.items() if path == SCHEMA or path.endswith((".cedar", f"/{QUALITY_FILE}"))
    }


def begin(tx: Transaction, node: Node) -> None:
    """The policy in this gateway's folder is the founding one, on record."""
    files = read_policy_files(node.settings.policies_folder, node.settings.jurisdiction)
    tx.people.set_meta(FOLDER_META, policytexts.keep_texts(tx, files, node.clock()))
    record_policy(tx, node, previous="")


def activate(tx: Transaction, node: Node, word: PolicyWord) -> None:
    """A signed policy is in force from now on; partners are told without delay what they must give back."""
    waiting = standing.policy_waiting(tx, node)
    if waiting is not None and waiting.proposal != word.proposal:
        unschedule(tx, node, word.proposal, SUPERSEDED)
    tx.people.set_meta(WAITING_META, "")
    folder = text_member(dict(stored(tx.people.proposal(word.proposal)).arguments), "folder")
    policytexts.keep_texts(tx, rules_of(policytexts.find(tx, folder)), node.clock())
    tx.people.set_meta(FOLDER_META, folder)
    previous = tx.people.meta(POLICY_META) or ""
    record_policy(tx, node, previous=previous, proposal=word.proposal, key_ids=word.key_ids, digest=word.policy)
    tx.schedule.hasten(node.clock())


def schedule(tx: Transaction, node: Node, word: PolicyWord) -> None:
    """A signed policy waits for its day; one that waited before is superseded."""
    unschedule(tx, node, word.proposal, SUPERSEDED)
    tx.people.set_meta(WAITING_META, waiting_word(word))
    details = {"policy": word.policy, "on": word.on, "proposal": word.proposal, "key_ids": sorted(word.key_ids)}
    tx.log.append([node.event(EventKind.POLICY_SCHEDULED, actor=node.agency, subject=word.policy, details=details)])


def unschedule(tx: Transaction, node: Node, proposal: str, reason: str) -> None:
    """No policy waits for its day any more."""
    waiting = standing.policy_waiting(tx, node)
    if waiting is None:
        return
    tx.people.set_meta(WAITING_META, "")
    details = {"policy": waiting.policy, "on": waiting.on, "proposal": proposal, "reason": reason}
    event = node.event(EventKind.POLICY_UNSCHEDULED, actor=node.agency, subject=waiting.policy, details=details)
    tx.log.append([event])


# Keeping in step with it


def settle(node: Node) -> None:
    """As a gateway is opened: what is in force decides, and the folder is as it was signed.

    Raises:
        ConfigError: the folder is not as it was signed; the error names the file.
        AuditBrokenError: the database does not say of the policy what the log says.
    """
    with node.store.reading() as tx:
        word, waits = standing.policy_in_force(tx, node), awaits_restore(node, tx)
        whole = tx.people.meta(FOLDER_META) is not None and tx.policies.holds(word.policy)
    if not word.policy:  # of a gateway from before policies were activated
        node.policies.take_up(read_policies(node.settings.policies_folder, node.settings.jurisdiction), node.today)
        return
    if not whole:
        _adopt(node, word)
    if not waits:
        _begin_due(node)
    bring_folder(node)
    _take_up(node)


def keep_in_step(node: Node) -> bool:
    """What is in force now decides here, and stands in the folder; whether anything had to be done for that.

    Raises:
        ConfigError: the folder cannot be written, or somebody has changed it. What is in force decides all the same.
        AuditBrokenError: the database does not say of the policy what the log says.
    """
    begun = _begin_due(node)
    with node.store.reading() as tx:
        if not begun and tx.people.meta(POLICY_META) in (None, node.policy.digest):
            return False
    _take_up(node)
    if read_lock(node.settings.policies_folder) is not None:  # else it is no folder that this gateway keeps
        bring_folder(node)
    return True


def _take_up(node: Node) -> None:
    with node.store.reading() as tx:
        texts = policytexts.find(tx, standing.policy_in_force(tx, node).policy)
    node.policies.take_up(texts, node.today)


def _begin_due(node: Node) -> bool:
    """The policy whose day has come is in force; whether there was one."""
    today = node.today.isoformat()
    with node.store.reading() as tx:
        if (tx.people.meta(WAITING_META) or NEVER)[: len(today)] > today:
            return False
    with node.store.transaction() as tx:
        waiting = standing.policy_waiting(tx, node)
        if waiting is None or waiting.on > today:
            return False  # another node was first
        activate(tx, node, waiting)
        standing.keep(tx, node)
    return True


def _adopt(node: Node, word: PolicyWord) -> None:
    """The folder of a gateway from before there was a LOCK is kept as it is, if it holds what is in force."""
    files = read_policy_files(node.settings.policies_folder, node.settings.jurisdiction)
    if policy.digest_texts(rules_of(files)) != word.policy:
        raise ConfigError(
            "the policy folder holds another policy than the one in force",
            remedy="put back the files that were activated; a change is brought in from a folder of its own",
        )
    with node.store.transaction() as tx:
        policytexts.keep_texts(tx, rules_of(files), node.clock())
        tx.people.set_meta(FOLDER_META, policytexts.keep_texts(tx, files, node.clock()))


# The folder and its LOCK


def bring_folder(node: Node) -> None:
    """The policy folder holds what is in force, with its LOCK; where it is missing it is written anew.

    Raises:
        ConfigError: something in it is neither as it was signed nor as it was signed before.
    """
    folder = node.settings.policies_folder
    with node.store.reading() as tx:
        files, digest = signed_files(tx, node)
        lock, held = _lock(tx, node, files, digest), read_lock(folder)
        before = {} if held in (None, lock) else _files_before(tx, node, str(held), digest)
    then = {path: _sha256(text) for path, text in files.items()}
    now: dict[str, str] = {}
    if folder.exists():
        try:
            now = {path: _sha256(text) for path, text in read_policy_files(folder, node.settings.jurisdiction).items()}
        except ConfigError as error:
            raise _unlike(error.message, error.place) from error
        _check_files(now, then, before)
        if held == lock:
            return
    write_policy_folder(folder, files, now.keys() - then.keys(), lock)


def _check_files(now: Mapping[str, str], then: Mapping[str, str], before: Mapping[str, str]) -> None:
    for path in sorted({*now, *then}):
        found = now.get(path)
        if found == then.get(path) or (before and found == before.get(path)):
            continue
        if found is None:
            raise _unlike("a file of the policy in force is missing", path)
        raise _unlike(ALTERED if path in then else "this file is no part of the policy in force", path)


def _unlike(fault: str, place: str) -> ConfigError:
    return ConfigError(fault, place=place, remedy=_REMEDY)


def signed_files(tx: Transaction, node: Node) -> tuple[Mapping[str, str], str]:
    """All files that were signed with the policy in force, and their digest."""
    word = standing.policy_in_force(tx, node)
    digest = tx.people.meta(FOLDER_META) or word.policy
    files = policytexts.find(tx, digest)
    if policy.digest_texts(rules_of(files)) != word.policy:
        raise AuditBrokenError("the files kept in the database are not those of the policy in force")
    return files, digest


def _lock(tx: Transaction, node: Node, files: Mapping[str, str], digest: str) -> str:
    """The LOCK of the policy in force. Who signed is proved again, also of those who are no administrators any more."""
    word, statement, signatures = standing.policy_in_force(tx, node), "", []
    if word.proposal:
        row = tx.people.proposal(word.proposal)
        stored(row)
        statement = row.statement
        people = {one.name: one.keys for one in tx.people.administrators()}
        given = sorted((one.administrator, one.signature) for one in tx.people.approvals(row.id))
        keys = {name: _key(text) for name, text in people.items()}
        past = standing.roster(tx, node).past_passkeys
        signers = verified_signers(statement.encode(), given, keys, past)
        found = sorted(key.key_set_id for key in signers.values())
        if not found or (word.key_ids and found != sorted(word.key_ids)):
            raise AuditBrokenError("the signatures of the policy in force are not those that the log tells of")
        signatures = [
            _lock_signature(name, people[name], raw, passkey_of(statement.encode(), raw, past.get(name, ())))
            for name, raw in given
            if name in signers
        ]
    members = {
        "lock": LOCK_VERSION,
        "agency": node.agency,
        "policy": word.policy,
        "folder": digest,
        "files": {path: _sha256(text) for path, text in files.items()},
        "statement": statement,
        "signatures": signatures,
    }
    return json.dumps(members, indent=2, sort_keys=True) + "\n"


def _lock_signature(name: str, keys: str, raw: bytes, passkey: SigningPasskey | None) -> dict[str, object]:
    signed: dict[str, object] = {
        "administrator": name,
        "keys": keys,
        "signature": base64.b64encode(raw).decode(),
    }
    return signed if passkey is None else {**signed, "passkey": passkey.to_json()}


def _files_before(tx: Transaction, node: Node, held: str, digest: str) -> Mapping[str, str]:
    """The files of the policy of before, by their digests, that a LOCK names which is not the one in force."""
    try:
        value = canonical.parse_json(held.encode(), max_bytes=MAX_LOCK_BYTES)
        members: dict[str, object] = dict(value) if isinstance(value, dict) else {}
        agency, named = text_member(members, "agency"), text_member(members, "folder")
    except MalformedError as error:
        raise _unlike(ALTERED, LOCK) from error
    if agency != node.agency:
        raise ConfigError("the policy folder is another gateway's", place=LOCK, remedy="name a folder of its own")
    if named == digest or not tx.policies.holds(named):  # the very policy in force with another LOCK; or none of ours
        raise _unlike(ALTERED, LOCK)
    return {path: _sha256(text) for path, text in policytexts.find(tx, named).items()}


def _key(text: str) -> VerifyingKey:
    return VerifyingKey.from_json(canonical.parse_canonical(text.encode(), max_bytes=MAX_KEY_BYTES))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
