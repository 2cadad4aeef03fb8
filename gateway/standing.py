"""Who is an administrator, how many must sign, where each partner stands: what the log says, and the proof of it.

Nobody who can write the database can change this. The audit log says who became what and when; the rows prove it:

1. Leaf 0 says how many had to sign at the founding. The first administrators, fewer than that, came without
   signatures. Each of their rows carries a MAC under a key of the keystore, and the log names its keys.
2. Everybody later was added, or removed, or the number changed, by an executed proposal. Its signatures are verified
   again, against the administrators of that time, in the order in which the log has the acts.
3. A row that the log does not tell of, a row that is missing, or one that does not fit raises AuditBrokenError: then
   no signature counts, and nothing guarded is done, until somebody has looked.
4. So far the log was read, what it said is kept beside the rows under a MAC, so that each look only reads what came
   since. An older copy of it put back only means reading more: what came later is read again from the log.
5. A leaf that is read is proved to stand under the newest signed checkpoint.
6. A passkey signs for an administrator from the executed proposal on that names its public key, until one that takes it
   away, or until the administrator is removed. It is read from what was signed; no row is believed.
7. Who came in at the console, with which roles and passkeys, and who was ended, is read from the log too: an older row
   put back signs nobody in (`signin`).
8. The log of a restored gateway begins anew (`restoring`). Its leaf 0 names the digest of what the log before it said
   (`carry`); that is kept beside the rows, and read on from there as if the log had never ended.

Names of administrators are given once: whoever was removed keeps the row, since old signatures are verified by it.

`gateway.partners` answers where one partner stands; `check` here compares all its rows with the log.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from gateway import audit
from gateway.audit import Event, EventKind, LeafRow
from gateway.crypto import canonical, checkpoint, merkle
from gateway.crypto.checkpoint import number_of_log
from gateway.crypto.keys import VerifyingKey
from gateway.errors import AuditBrokenError, GatewayError, MalformedError, NotFoundError, ProofError
from gateway.keylife import KeyState
from gateway.model import int_member, text_member, texts_member
from gateway.node import POLICY_META, WAITING_META, Node, own_log
from gateway.partners import REVOKED, card_in, fits, length_prefixed, put
from gateway.proposals import LIFETIME_SECONDS, SigningPasskey, Statement, stored, verified_signers
from gateway.store import Transaction
from gateway.store.allowlists import IN_FORCE
from gateway.store.people import EVERYTHING
from gateway.store.tables import AdministratorRow, PartnerRow

STANDING_META = "standing"  # where the database keeps what was read, under its MAC
CARRIED_META = "standing carried over"  # … and what the log before this one said, under the digest in leaf 0
VERSION = "standing 5"
_FIRST_VERSION = "standing 1"  # of a gateway that was never restored
MAX_STANDING_BYTES = 4 << 20  # some thousand partners, and every change of office there ever was
MAX_ADMINISTRATOR_BYTES = 8 << 10  # two public keys are 2.7 KB in base64
STALE_LEAVES = 2_000  # so many newer leaves are read in a few milliseconds; after more it is kept anew
ADD, REMOVE, QUORUM = "administrator_add", "administrator_remove", "quorum_set"
ADD_PASSKEY, REMOVE_PASSKEY = "passkey_add", "passkey_remove"
Passkeys = Mapping[str, tuple[SigningPasskey, ...]]
_REMEDY = "stop the gateway, keep everything as it is, and run `gateway audit verify`; a backup has the rows of before"
_MAC_HEX_CHARS = 64


@dataclass(frozen=True, slots=True)
class Roster:
    """The administrators of now, and how many of them must sign.

    `signed` is the number that administrators themselves have set; `quorum` is never lower, and the settings may ask
    for more. `passkeys` sign for administrators of now; `past_passkeys` are all that ever did, for old signatures.
    """

    administrators: Mapping[str, VerifyingKey]
    quorum: int
    signed: int
    passkeys: Passkeys
    past_passkeys: Passkeys


@dataclass(frozen=True, slots=True)
class _Turn:
    """One change of the roster, as the log tells it. `proposal` is empty for a founder."""

    act: str
    name: str
    key_id: str
    quorum: int
    proposal: str


@dataclass(frozen=True, slots=True)
class _PartnerWord:
    """Where a partner stands, as the log tells it."""

    state: str
    card_digest: str
    test: bool
    compromised: tuple[str, ...] = ()  # signing keys that count for nothing any more


@dataclass(frozen=True, slots=True)
class PolicyWord:
    """A policy that administrators have signed, as the log tells it: `proposal` is empty for the founding set.

    `on`: the day on which it comes into force; empty for the one that is.
    """

    policy: str = ""
    proposal: str = ""
    key_ids: tuple[str, ...] = ()
    on: str = ""


@dataclass(frozen=True, slots=True)
class ConsoleWord:
    """What the log says of somebody at the console: the roles that they came in with, and the ids of their passkeys."""

    roles: str = ""
    key_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Standing:
    """What the first `leaves` leaves of the log say.

    `log`: its number. `founding`: how many had to sign at first. `executed`: when a proposal was done, as long as it
    could be signed again. `paused`: partners, or everything, that were stopped and have not been resumed.
    """

    leaves: int
    founding: int
    turns: tuple[_Turn, ...]
    executed: Mapping[str, int]
    partners: Mapping[str, _PartnerWord]
    paused: frozenset[str]
    policy: PolicyWord = PolicyWord()
    log: int = 1
    never_again: tuple[int, str] = (0, "")  # number and MAC (hex) of the last row of the never-again list
    waiting: PolicyWord | None = None  # the policy that waits for its day
    version: str = VERSION
    tables: Mapping[str, str] = field(default_factory=dict)  # lists and tables in force, each with its head or digest
    console: Mapping[str, ConsoleWord] = field(default_factory=dict)  # who came in there, and was not ended


_BEGINNING = _Standing(0, 0, (), {}, {}, frozenset())


# What others ask


def roster(tx: Transaction, node: Node) -> Roster:
    """Who is an administrator now, and how many must sign.

    Raises:
        AuditBrokenError: the log and the rows do not say the same.
    """
    return _roster(tx, node, _read(tx, node))


def was_executed(tx: Transaction, node: Node, proposal: str) -> bool:
    """Whether the log says that a proposal was done, whatever its row says. Known for as long as it could be signed."""
    return proposal in _read(tx, node).executed


def at_console(tx: Transaction, node: Node, person: str) -> ConsoleWord:
    """What the log says of somebody at the console; nothing of whoever never came in, or was ended."""
    return _read(tx, node).console.get(person, ConsoleWord())


def policy_in_force(tx: Transaction, node: Node) -> PolicyWord:
    """The policy that the log says is in force.

    Raises:
        AuditBrokenError: the database says another one.
    """
    standing = _read(tx, node)
    _check_policy(tx, standing)
    return standing.policy


def policy_waiting(tx: Transaction, node: Node) -> PolicyWord | None:
    """The policy that the log says is signed and waits for its day, or None. AuditBrokenError as `policy_in_force`."""
    standing = _read(tx, node)
    _check_policy(tx, standing)
    return standing.waiting


def waiting_word(waiting: PolicyWord | None) -> str:
    """What the database says of a policy that waits."""
    return f"{waiting.on} {waiting.proposal}" if waiting else ""


def keep(tx: Transaction, node: Node) -> None:
    """Keep what the log says so far, within the transaction that has just added to it."""
    standing = _read(tx, node)
    raw = _dump(standing)
    tx.people.set_meta(STANDING_META, node.keystore.row_mac(raw).hex() + raw.decode())


def basis(tx: Transaction, node: Node) -> str:
    """The SHA-256 (hex) of what the log says, but for which proposals were done lately: what people can agree on."""
    return hashlib.sha256(_dump(replace(_read(tx, node), leaves=0, executed={}))).hexdigest()


def carry(tx: Transaction, node: Node) -> str:
    """Keep what the log says for the log that begins in its place; returns the SHA-256 (hex) for its leaf 0.

    Raises:
        AuditBrokenError: the rows do not say the same as the log.
    """
    check(tx, node)
    raw = _dump(_read(tx, node))
    tx.people.set_meta(CARRIED_META, raw.decode())
    return hashlib.sha256(raw).hexdigest()


@dataclass(frozen=True, slots=True)
class Found:
    """What `check` found in order."""

    administrators: int
    quorum: int
    partners: int


def check(tx: Transaction, node: Node) -> Found:
    """Returns when every administrator, partner and pause stands in its table as the log has it, and nothing else.

    Raises:
        AuditBrokenError: one does not; `place` names it.
    """
    standing = _read(tx, node)
    found = _roster(tx, node, standing)
    partners = _check_partners(tx, node, standing)
    paused = {scope for scope, _, _ in tx.people.pauses()}
    for scope in sorted(standing.paused - paused):
        raise _broken("a pause was lifted without the administrators", "everything" if scope == EVERYTHING else scope)
    _check_policy(tx, standing)
    _check_list(tx, standing)
    _check_tables(tx, standing)
    return Found(len(found.administrators), found.quorum, partners)


def check_tables(tx: Transaction, node: Node) -> None:
    """Returns when lists and tables in force are those of the log. AuditBrokenError: one is gone, or was put back."""
    _check_tables(tx, _read(tx, node))


def check_list(tx: Transaction, node: Node) -> None:
    """Returns when the never-again list ends where the log says. AuditBrokenError: rows were taken out or put back."""
    _check_list(tx, _read(tx, node))


def settle(node: Node) -> None:
    """Check all of it once, as a gateway is opened; keep what the log says where much is new.

    Rows from before they carried a MAC get one here, and only if the log tells the same of them: an administrator's
    key id, a partner's state and the digest of its card.
    """
    with node.store.reading() as tx:
        standing = _read(tx, node)
        # A row without a MAC where others have one was put there: only a whole table is from before.
        macs = [row.mac for row in tx.people.administrators() if not row.proposal]
        macs += [row.mac for row in tx.people.partners()]
        before = bool(macs) and not any(macs)
        if not before:
            check(tx, node)
        kept = _kept(tx, node)
    if before:
        _bring_up(node)
    elif standing.leaves - (kept.leaves if kept else 0) > STALE_LEAVES:
        with node.store.transaction() as tx:
            keep(tx, node)


def keep_house(node: Node) -> None:
    """What the log says is kept anew where much has come since: each look reads little, however long a gateway runs."""
    with node.store.reading() as tx:
        kept, size = _kept(tx, node), tx.log.size()
    if size - (kept.leaves if kept else 0) > STALE_LEAVES:
        with node.store.transaction() as tx:
            keep(tx, node)


def _bring_up(node: Node) -> None:
    """Give rows from before their MACs, as far as the log tells the same; else nothing is written."""
    with node.store.transaction() as tx:
        for person in tx.people.administrators():
            if not person.proposal and not person.mac:
                person.mac = founder_mac(node, person)
                tx.people.put_administrator(person)
        for row in tx.people.partners():
            if not row.mac:
                put(node, tx, row)
        check(tx, node)
        keep(tx, node)


def founder_mac(node: Node, row: AdministratorRow) -> bytes:
    """The MAC of one who was added without signatures."""
    return node.keystore.row_mac(length_prefixed("administrator row 1", row.name, row.keys, str(row.added)))


def _check_policy(tx: Transaction, standing: _Standing) -> None:
    word = standing.policy
    if word.policy and tx.people.meta(POLICY_META) != word.policy:
        raise _broken("the policy in force is not the one that the administrators activated", "")
    if (tx.people.meta(WAITING_META) or "") != waiting_word(standing.waiting):
        raise _broken("the policy that waits for its day is not the one that the administrators signed", "")


def _check_list(tx: Transaction, standing: _Standing) -> None:
    number, mac = tx.never_again.end()
    if (number, mac.hex()) != standing.never_again:
        raise _broken("the never-again list does not end where the log says", "")


def _check_tables(tx: Transaction, standing: _Standing) -> None:
    held = {_allow_list(one.id): one.head.hex() for one in tx.allow_lists.all() if one.state == IN_FORCE}
    held |= {_categories(one.scheme): one.digest for one in tx.categories.in_force()}
    if held != standing.tables:
        raise _broken("known-good digests or categories in force are not those that the log tells of", "")


def _allow_list(number: int) -> str:
    return f"allow list {number}"


def _categories(scheme: str) -> str:
    return f"categories {scheme}"


# Administrators


def _roster(tx: Transaction, node: Node, standing: _Standing) -> Roster:
    rows = tx.people.administrators()
    for row in rows:
        if not row.proposal and not hmac.compare_digest(row.mac, founder_mac(node, row)):
            raise _broken("an administrator's row was not written by this gateway", row.name)
    proofs = [_proof(tx, turn) for turn in standing.turns if turn.proposal]
    # Verifying costs a millisecond for each signature there ever was; the same content needs it once.
    people = tuple((row.name, row.keys, row.proposal) for row in rows)
    try:
        replayed = _replay(node.agency, standing.founding, standing.turns, people, tuple(proofs))
    except MalformedError as error:
        raise _broken("an administrator's row was not written by this gateway", "") from error
    keys, signed = replayed.keys, replayed.quorum
    return Roster(keys, max(node.settings.quorum, signed), signed, replayed.passkeys, replayed.past_passkeys)


@dataclass(frozen=True, slots=True)
class _Replayed:
    """The administrators after all turns, the number that they have set, and their passkeys."""

    keys: Mapping[str, VerifyingKey]
    quorum: int
    passkeys: Passkeys
    past_passkeys: Passkeys


_Proof = tuple[str, bytes, tuple[tuple[str, bytes], ...]]  # id, statement, (administrator, signature)


def _proof(tx: Transaction, turn: _Turn) -> _Proof:
    try:
        row = tx.people.proposal(turn.proposal)
        stored(row)
    except GatewayError as error:
        raise _broken("the proposal that changed the administrators is gone, or was altered", turn.name) from error
    signatures = tuple((one.administrator, one.signature) for one in tx.people.approvals(row.id))
    return row.id, row.statement.encode(), signatures


@lru_cache(maxsize=16)
def _replay(
    agency: str,
    founding: int,
    turns: tuple[_Turn, ...],
    people: tuple[tuple[str, str, str], ...],
    proofs: tuple[_Proof, ...],
) -> _Replayed:
    """What is after all turns, each proved by what was before it."""
    rows = {name: (keys, proposal) for name, keys, proposal in people}
    held: dict[str, VerifyingKey] = {}
    passkeys: dict[str, tuple[SigningPasskey, ...]] = {}
    past: dict[str, tuple[SigningPasskey, ...]] = {}
    quorum, remaining = founding, list(proofs)
    for turn in turns:
        statement: Statement | None = None
        if turn.proposal:
            proof = remaining.pop(0)
            statement = _verify_turn(agency, turn, proof, held=held, passkeys=passkeys, quorum=quorum)
        elif turn.act != ADD or len(held) >= max(turn.quorum, 1):
            raise _broken("an administrator was added without signatures, and there were enough to sign", turn.name)
        match turn.act:
            case "administrator_add":
                held[turn.name] = _row_key(rows, turn)
            case "administrator_remove":
                held.pop(turn.name, None)
                passkeys.pop(turn.name, None)
            case "passkey_add":
                assert statement is not None, "a passkey's turn without a proposal was refused above"
                added = SigningPasskey.from_json(statement.arguments["passkey"])
                passkeys[turn.name] = (*passkeys.get(turn.name, ()), added)
                past[turn.name] = (*past.get(turn.name, ()), added)
            case "passkey_remove":
                kept = [one for one in passkeys.get(turn.name, ()) if one.passkey.key_id != turn.key_id]
                passkeys[turn.name] = tuple(kept)
            case _:
                quorum = turn.quorum
    for name in sorted(rows.keys() - {turn.name for turn in turns if turn.act == ADD}):
        raise _broken("an administrator stands in the database of whom the log does not tell", name)
    return _Replayed(held, quorum, passkeys, past)


def _verify_turn(
    agency: str, turn: _Turn, proof: _Proof, *, held: Mapping[str, VerifyingKey], passkeys: Passkeys, quorum: int
) -> Statement:
    """The statement of a turn, which is what was signed, by as many administrators of that time as had to."""
    _, raw, signatures = proof
    statement = Statement.parse(raw)
    said: Mapping[str, object] = statement.arguments
    if turn.act == ADD:
        same = said.get("name") == turn.name and VerifyingKey.from_json(said["keys"]).key_set_id == turn.key_id
    elif turn.act == REMOVE:
        same = said.get("name") == turn.name
    elif turn.act == ADD_PASSKEY:
        passkey = SigningPasskey.from_json(said.get("passkey")).passkey
        same = said.get("administrator") == turn.name and passkey.key_id == turn.key_id
    elif turn.act == REMOVE_PASSKEY:
        same = said.get("administrator") == turn.name and said.get("key_id") == turn.key_id
    else:
        same = said.get("quorum") == turn.quorum
    if not same or (statement.act, statement.agency) != (turn.act, agency):
        raise _broken("an administrator's proposal is for something else", turn.name)
    if len(verified_signers(raw, signatures, held, passkeys)) < quorum:
        raise _broken("too few signatures prove a change of the administrators", turn.name)
    return statement


def _row_key(rows: Mapping[str, tuple[str, str]], turn: _Turn) -> VerifyingKey:
    if turn.name not in rows:
        raise _broken("an administrator's row is gone", turn.name)
    keys, proposal = rows[turn.name]
    key = VerifyingKey.from_json(canonical.parse_canonical(keys.encode(), max_bytes=MAX_ADMINISTRATOR_BYTES))
    if key.key_set_id != turn.key_id or proposal != turn.proposal:
        raise _broken("an administrator's row is not the one that the log tells of", turn.name)
    return key


# Partners


def _check_partners(tx: Transaction, node: Node, standing: _Standing) -> int:
    rows = {row.agency: row for row in tx.people.partners()}
    for agency, row in rows.items():
        if not fits(node, row):
            raise _broken("a partner's row was not written by this gateway", agency)
        digest = hashlib.sha256(row.card.encode()).hexdigest()
        word = standing.partners.get(agency)
        # A demo's data are all invented: there the flag binds nobody.
        says = (row.state, digest, row.test and not node.settings.demo)
        if word is None or says != (_state(word, row), word.card_digest, word.test):
            raise _broken("a partner's row does not say what the log tells of it", agency)
        compromised = {one.key_set_id for one in tx.keys.of_partner(agency) if one.state == KeyState.COMPROMISED}
        if not compromised.issuperset(word.compromised):
            raise _broken("a partner's revoked key counts again in the database", agency)
    for agency in sorted(standing.partners.keys() - rows.keys()):
        raise _broken("a partner's row is gone", agency)
    return len(rows)


def _state(word: _PartnerWord, row: PartnerRow) -> str:
    """A partner whose key in use is compromised is shut out until another card is enrolled."""
    lost = word.state == "active" and card_in(row).signing.key_set_id in word.compromised
    return REVOKED if lost else word.state


# Reading the log


_KINDS = (
    EventKind.ADMINISTRATOR_ADDED,
    EventKind.ADMINISTRATOR_REMOVED,
    EventKind.QUORUM_CHANGED,
    EventKind.PASSKEY_ADDED,
    EventKind.PASSKEY_REMOVED,
    EventKind.PROPOSAL_EXECUTED,
    EventKind.PARTNER_ADDED,
    EventKind.PARTNER_CARD_CHANGED,
    EventKind.PARTNER_SUSPENDED,
    EventKind.PARTNER_REMOVED,
    EventKind.PARTNER_TEST_LIFTED,
    EventKind.PAUSED,
    EventKind.RESUMED,
    EventKind.KEY_CHANGED,
    EventKind.POLICY_ACTIVATED,
    EventKind.POLICY_SCHEDULED,
    EventKind.POLICY_UNSCHEDULED,
    EventKind.NEVER_AGAIN_CHANGED,
    EventKind.ALLOW_LIST_CHANGED,
    EventKind.CATEGORY_TABLE_ACTIVATED,
    EventKind.CONSOLE_CHANGED,
)
_BEGINNINGS = (EventKind.GATEWAY_INITIALISED, EventKind.GATEWAY_RESTORED)


def _read(tx: Transaction, node: Node) -> _Standing:
    """What the log says, from where it was last read."""
    standing = _kept(tx, node)
    if standing is None or standing.log != _number(tx, node):  # another log has begun since
        standing = _founding(tx, node)
    size = tx.log.size()
    if size < standing.leaves:
        raise _broken("the audit log is shorter than it was", "")
    rows = tx.log.of_kinds(_KINDS, standing.leaves)
    for row, event in proved(tx, node, rows):
        standing = _told(standing, row.index, event, demo=node.settings.demo)
    horizon = node.clock() - 2 * LIFETIME_SECONDS  # twice: the clock may have been put back
    executed = {proposal: at for proposal, at in standing.executed.items() if at > horizon}
    return replace(standing, leaves=size, executed=executed)


def _founding(tx: Transaction, node: Node) -> _Standing:
    first = next(iter(tx.log.leaves(0, 1)), None)
    if first is None:
        return _BEGINNING
    number = _number(tx, node)
    for _, event in proved(tx, node, [first]):
        if event.kind is EventKind.GATEWAY_INITIALISED and number == 1:
            return replace(_BEGINNING, founding=int_member(event.details, "quorum"), leaves=1)
        if event.kind is EventKind.GATEWAY_RESTORED and number > 1:
            return replace(_carried(tx, text_member(event.details, "standing")), leaves=1, log=number)
    raise _broken("the audit log begins neither with a founding nor with a restore", "")


def _carried(tx: Transaction, digest: str) -> _Standing:
    raw = (tx.people.meta(CARRIED_META) or "").encode()
    if not hmac.compare_digest(hashlib.sha256(raw).hexdigest(), digest):
        raise _broken("what was carried over at the restore is gone, or was altered", "")
    return _parse(raw)


def _number(tx: Transaction, node: Node) -> int:
    return number_of_log(own_log(node, tx).name)


def proved(tx: Transaction, node: Node, rows: Iterable[LeafRow]) -> Iterable[tuple[LeafRow, Event]]:
    """The events of leaves, each proved to stand in the log under its newest signed checkpoint.

    Beyond that checkpoint stand only leaves that this very transaction has appended: whoever writes the database can
    put an old leaf there once more, with everything that proved it then.
    """
    head = _head(tx, node)
    for row in rows:
        if row.event_bytes is None or row.salt is None:
            continue  # erased on record; what decides is never erased
        event = audit.parse_event(row.event_bytes)
        if event.kind not in (*_KINDS, *_BEGINNINGS, EventKind.BACKUP_RESTORED):
            continue
        try:
            if not hmac.compare_digest(audit.event_entry(row.event_bytes, row.salt), row.entry):
                raise ProofError("the entry is for another event")
            if not tx.log.is_own(row.index):
                if head is None or row.index >= head.size:
                    raise ProofError("no checkpoint covers it")
                proof = tx.log.inclusion_proof(row.index, head.size)
                merkle.verify_inclusion(merkle.leaf_hash(row.entry), row.index, head.size, proof, head.root)
        except (ProofError, AuditBrokenError) as error:
            raise AuditBrokenError("a leaf of the audit log was altered", index=row.index) from error
        yield row, event


def _head(tx: Transaction, node: Node) -> checkpoint.Checkpoint | None:
    key = own_log(node, tx).verifier
    try:
        return checkpoint.verify(tx.log.latest_checkpoint(), key, key.name)
    except NotFoundError:
        return None  # the first leaves are being written
    except GatewayError as error:
        raise _broken("the newest checkpoint of the audit log does not verify", "") from error


def _told(standing: _Standing, index: int, event: Event, *, demo: bool) -> _Standing:
    """The standing after one more event."""
    details = event.details
    match event.kind:
        case EventKind.ADMINISTRATOR_ADDED | EventKind.ADMINISTRATOR_REMOVED:
            act = ADD if event.kind is EventKind.ADMINISTRATOR_ADDED else REMOVE
            key_id, quorum = text_member(details, "key_id"), int_member(details, "quorum")
            turn = _Turn(act, text_member(details, "administrator"), key_id, quorum, _proposal(details))
            return replace(standing, turns=(*standing.turns, turn))
        case EventKind.PASSKEY_ADDED | EventKind.PASSKEY_REMOVED:
            act = ADD_PASSKEY if event.kind is EventKind.PASSKEY_ADDED else REMOVE_PASSKEY
            name, key_id = text_member(details, "administrator"), text_member(details, "key_id")
            return replace(standing, turns=(*standing.turns, _Turn(act, name, key_id, 0, _proposal(details))))
        case EventKind.QUORUM_CHANGED:
            turn = _Turn(QUORUM, "", "", int_member(details, "new"), _proposal(details))
            return replace(standing, turns=(*standing.turns, turn))
        case EventKind.PROPOSAL_EXECUTED:
            executed = {**standing.executed, text_member(details, "proposal"): event.at}
            return replace(standing, executed=executed)
        case EventKind.KEY_CHANGED:
            return replace(standing, partners=_partners_after_key(standing, details))
        case EventKind.POLICY_ACTIVATED:
            return replace(standing, policy=_policy_told(details), waiting=None)
        case EventKind.POLICY_SCHEDULED:
            return replace(standing, waiting=_policy_told(details))
        case EventKind.POLICY_UNSCHEDULED:
            return replace(standing, waiting=None)
        case EventKind.NEVER_AGAIN_CHANGED:
            end = int_member(details, "listed"), text_member(details, "list_head")
            return replace(standing, never_again=end)
        case EventKind.ALLOW_LIST_CHANGED:
            name = _allow_list(int_member(details, "list"))
            rest = {key: head for key, head in standing.tables.items() if key != name}
            head = {name: text_member(details, "list_head")} if "list_head" in details else {}
            return replace(standing, tables={**rest, **head})
        case EventKind.CATEGORY_TABLE_ACTIVATED:
            table = {_categories(text_member(details, "scheme")): text_member(details, "table")}
            return replace(standing, tables={**standing.tables, **table})
        case EventKind.CONSOLE_CHANGED:
            return replace(standing, console=_console_after(standing, details))
        case EventKind.PAUSED:
            return replace(standing, paused=standing.paused | {_scope(details)})
        case _:
            paused = standing.paused - {_scope(details)} if event.kind is EventKind.RESUMED else standing.paused
            return replace(standing, paused=paused, partners=_partners_after(standing, index, event, demo=demo))


def _partners_after(standing: _Standing, index: int, event: Event, *, demo: bool) -> Mapping[str, _PartnerWord]:
    details = event.details
    if "partner" not in details:
        return standing.partners  # everything was resumed
    agency = text_member(details, "partner")
    word = standing.partners.get(agency)
    if event.kind is EventKind.PARTNER_ADDED:
        test = details.get("test") is True and not demo
        lost = word.compromised if word else ()
        return {**standing.partners, agency: _PartnerWord("active", text_member(details, "card_digest"), test, lost)}
    if word is None:
        raise AuditBrokenError("the audit log tells of a partner that it never added", index=index)
    match event.kind:
        case EventKind.PARTNER_CARD_CHANGED:
            word = replace(word, card_digest=text_member(details, "card_digest"))
        case EventKind.PARTNER_SUSPENDED:
            word = replace(word, state="suspended")
        case EventKind.PARTNER_REMOVED:
            word = replace(word, state="removed")
        case EventKind.PARTNER_TEST_LIFTED:
            word = replace(word, test=False)
        case EventKind.RESUMED if word.state == "suspended":
            word = replace(word, state="active")
    return {**standing.partners, agency: word}


def _partners_after_key(standing: _Standing, details: dict[str, object]) -> Mapping[str, _PartnerWord]:
    owner, lost = text_member(details, "owner"), text_member(details, "key_id")
    word = standing.partners.get(owner)
    if word is None or details.get("new_state") != KeyState.COMPROMISED or lost in word.compromised:
        return standing.partners  # one of our own keys, or a change that ends nothing
    return {**standing.partners, owner: replace(word, compromised=(*word.compromised, lost))}


def _console_after(standing: _Standing, details: dict[str, object]) -> Mapping[str, ConsoleWord]:
    person, deed = text_member(details, "person"), text_member(details, "deed")
    word = standing.console.get(person, ConsoleWord())
    match deed:
        case "joined":
            word = replace(word, roles=text_member(details, "roles"))
        case "passkey added":
            word = replace(word, key_ids=(*word.key_ids, text_member(details, "key_id")))
        case "passkey removed":
            gone = text_member(details, "key_id")
            word = replace(word, key_ids=tuple(one for one in word.key_ids if one != gone))
        case "ended":
            word = ConsoleWord()
    rest = {name: one for name, one in standing.console.items() if name != person}
    return {**rest, person: word} if word != ConsoleWord() else rest


def _policy_told(details: dict[str, object]) -> PolicyWord:
    key_ids = texts_member(details, "key_ids") if "key_ids" in details else ()
    on = text_member(details, "on") if "on" in details else ""
    return PolicyWord(text_member(details, "policy"), _proposal(details), key_ids, on)


def _proposal(details: dict[str, object]) -> str:
    return text_member(details, "proposal") if "proposal" in details else ""


def _scope(details: dict[str, object]) -> str:
    return text_member(details, "partner") if "partner" in details else EVERYTHING


# Keeping it


def _dump(standing: _Standing) -> bytes:
    return canonical.encode(
        {
            "standing": VERSION,
            "log": standing.log,
            "leaves": standing.leaves,
            "founding": standing.founding,
            "turns": [[one.act, one.name, one.key_id, one.quorum, one.proposal] for one in standing.turns],
            "executed": dict(standing.executed),
            "partners": {
                name: [one.state, one.card_digest, one.test, list(one.compromised)]
                for name, one in standing.partners.items()
            },
            "paused": sorted(standing.paused),
            "policy": _policy_members(standing.policy),
            "waiting": _policy_members(standing.waiting) if standing.waiting else [],
            "never_again": list(standing.never_again),
            "tables": dict(standing.tables),
            "console": {name: [one.roles, list(one.key_ids)] for name, one in standing.console.items()},
        }
    )


def _kept(tx: Transaction, node: Node) -> _Standing | None:
    """What was kept, if anything was; AuditBrokenError if somebody else wrote it."""
    text = tx.people.meta(STANDING_META)
    if text is None:
        return None
    mac, raw = text[:_MAC_HEX_CHARS], text[_MAC_HEX_CHARS:].encode()
    if not hmac.compare_digest(mac.encode(), node.keystore.row_mac(raw).hex().encode()):
        raise _broken("what is kept of the administrators and partners was not written by this gateway", "")
    standing = _parse(raw)
    return standing if standing.version == VERSION else None  # kept by one that kept less: the log is read anew


@lru_cache(maxsize=16)
def _parse(raw: bytes) -> _Standing:
    value = canonical.parse_canonical(raw, max_bytes=MAX_STANDING_BYTES)
    assert isinstance(value, dict), "its MAC or its digest fits, so this gateway wrote it"
    members: dict[str, object] = dict(value)
    turns, executed, partners = value["turns"], value["executed"], value["partners"]
    assert isinstance(turns, list)
    assert isinstance(executed, dict)
    assert isinstance(partners, dict)
    return _Standing(
        int_member(members, "leaves"),
        int_member(members, "founding"),
        tuple(_Turn(*one) for one in turns),  # type: ignore[misc]  # as `_dump` wrote them
        {name: int_member(dict(executed), name) for name in executed},
        {name: _partner_word(one) for name, one in partners.items()},
        frozenset(texts_member(members, "paused")),
        _policy_word(value["policy"]) or PolicyWord(),
        1 if value["standing"] == _FIRST_VERSION else int_member(members, "log"),
        _list_end(value.get("never_again", [0, ""])),  # what was kept before there was a list does not speak of it
        _policy_word(value.get("waiting", [])),
        text_member(members, "standing"),
        _tables(value.get("tables", {})),  # as above
        _console(value.get("console", {})),
    )


def _policy_members(word: PolicyWord) -> list[object]:
    return [word.policy, word.proposal, list(word.key_ids), word.on]


def _policy_word(value: canonical.JsonValue) -> PolicyWord | None:
    if isinstance(value, str):
        return PolicyWord(value)  # kept before more was: which one is in force, not by whom
    assert isinstance(value, list)
    if not value:
        return None
    policy, proposal, key_ids, on = value
    assert isinstance(key_ids, list)
    return PolicyWord(str(policy), str(proposal), tuple(str(one) for one in key_ids), str(on))


def _tables(value: canonical.JsonValue) -> Mapping[str, str]:
    assert isinstance(value, dict)
    return {name: text_member(dict(value), name) for name in value}


def _console(value: canonical.JsonValue) -> Mapping[str, ConsoleWord]:
    assert isinstance(value, dict)
    found = {}
    for name, one in value.items():
        assert isinstance(one, list)
        roles, key_ids = one
        assert isinstance(key_ids, list)
        found[name] = ConsoleWord(str(roles), tuple(str(key) for key in key_ids))
    return found


def _list_end(value: canonical.JsonValue) -> tuple[int, str]:
    assert isinstance(value, list)
    number, mac = value
    assert isinstance(number, int)
    return number, str(mac)


def _partner_word(value: canonical.JsonValue) -> _PartnerWord:
    assert isinstance(value, list)
    state, card_digest, test, compromised = value
    assert isinstance(compromised, list)
    return _PartnerWord(str(state), str(card_digest), test is True, tuple(str(one) for one in compromised))


def _broken(message: str, place: str) -> AuditBrokenError:
    error = AuditBrokenError(message, place=place)
    error.remedy = _REMEDY
    return error
