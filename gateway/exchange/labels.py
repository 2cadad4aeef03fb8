"""The labels of a set: their numbers, what a set's defaults make of a draft, the set's digest key.

A label's digest is SHA-256("label 1" 0x0A ‖ salt ‖ canonical attributes). Blocks carry it, so what policy judged is
bound to what was logged; the salt keeps a partner that sees only some attributes from guessing the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from gateway.crypto import canonical
from gateway.errors import AuditBrokenError, ConflictError, MalformedError
from gateway.model import (
    MAX_LABELS,
    FieldGroup,
    HandlingCode,
    Label,
    LabelWords,
    Surface,
    VictimStatus,
    text_member,
    texts_member,
)
from gateway.node import Node
from gateway.policy import LabelInSet, PartnerRef
from gateway.store import Transaction
from gateway.store.tables import HashSet, LabelRow

MAX_DEFAULTS_BYTES = 64 << 10
LABEL_CONTEXT = b"label 1\n"
NOTHING_STATED = LabelWords()


@dataclass(frozen=True, slots=True)
class SetDefaults:
    """What stands in a label where an imported row does not say. `legal_basis` and `onward` always come from here."""

    legal_basis: str
    category: str = "unspecified:0"
    handling: HandlingCode = HandlingCode.H2
    evaluation: str = "F6"
    victim_status: VictimStatus = VictimStatus.UNKNOWN
    onward: tuple[str, ...] = ()

    def label(self, node: Node, words: LabelWords = NOTHING_STATED) -> Label:
        """The label in this node's set of a draft that says so much; MalformedError for words outside their lists."""
        return Label(
            node.agency,
            node.settings.jurisdiction,
            words.handling or self.handling,
            words.category or self.category,
            words.victim_status or self.victim_status,
            words.evaluation or self.evaluation,
            self.legal_basis,
            words.restrictions,
            self.onward,
        )

    def to_json(self) -> str:
        """As canonical JSON text."""
        members: dict[str, object] = {
            "legal_basis": self.legal_basis,
            "category": self.category,
            "handling": str(self.handling),
            "evaluation": self.evaluation,
            "victim_status": str(self.victim_status),
            "onward": list(self.onward),
        }
        return canonical.encode(members).decode()

    @classmethod
    def from_json(cls, text: str) -> SetDefaults:
        """What `to_json` wrote."""
        value = canonical.parse_canonical(text.encode(), max_bytes=MAX_DEFAULTS_BYTES)
        if not isinstance(value, dict):
            raise MalformedError("set defaults: not an object")
        members: dict[str, object] = dict(value)
        return cls(
            text_member(members, "legal_basis"),
            text_member(members, "category"),
            HandlingCode(text_member(members, "handling")),
            text_member(members, "evaluation"),
            VictimStatus(text_member(members, "victim_status")),
            texts_member(members, "onward"),
        )


class LabelBook:
    """The labels of one own set within one transaction; new ones get the next number.

    Args:
        offered: those under which a stock client offered entries for the set, not those that entries stand under.
    """

    def __init__(self, node: Node, tx: Transaction, set_id: int, *, offered: bool = False) -> None:
        self._node, self._tx, self._set_id = node, tx, set_id
        rows = tx.sets.offered_labels(set_id) if offered else tx.sets.labels(set_id)
        self._put = tx.sets.add_offered_labels if offered else tx.sets.put_labels
        self._numbers = {stored_label(row): row.number for row in rows}
        self._digests = {row.number: row.digest for row in rows}

    def number(self, label: Label) -> int:
        """The label's number in this set."""
        return self.numbers([label])[0]

    def numbers(self, labels: Iterable[Label]) -> list[int]:
        """The numbers of these labels in this set."""
        found, added = [], []
        for label in labels:
            number = self._numbers.get(label)
            if number is None:
                added.append(self._add(label))
                number = added[-1].number
            found.append(number)
        if added:
            self._put(added)
        return found

    def _add(self, label: Label) -> LabelRow:
        number = len(self._numbers) + 1
        if number > MAX_LABELS:
            raise ConflictError("the set would have more than 4,096 labels", remedy="use a second set")
        salt = self._node.random.bytes(32)
        attributes = canonical.encode(label.to_json())
        digest = hashlib.sha256(LABEL_CONTEXT + salt + attributes).digest()
        self._numbers[label] = number
        self._digests[number] = digest
        return LabelRow(set_id=self._set_id, number=number, digest=digest, salt=salt, attributes=attributes.decode())

    def digest(self, number: int) -> bytes:
        """The label's digest, as its blocks carry it."""
        return self._digests[number]


def stored_label(row: LabelRow) -> Label:
    """The label of a stored row.

    Raises:
        AuditBrokenError: an own label (it has a salt) is not the one that its blocks were logged with.
    """
    if row.salt and hashlib.sha256(LABEL_CONTEXT + row.salt + row.attributes.encode()).digest() != row.digest:
        raise AuditBrokenError("a stored label was altered")
    return parsed_label(row.attributes)


@lru_cache(maxsize=MAX_LABELS)
def parsed_label(attributes: str) -> Label:
    """The label of canonical attributes; kept, since every deed meets all labels of a set and each word is checked."""
    return Label.from_json(canonical.parse_canonical(attributes.encode(), max_bytes=MAX_DEFAULTS_BYTES))


def binding_duties(node: Node, mirror: HashSet, labels: Iterable[LabelRow]) -> dict[int, tuple[str, ...]]:
    """What we are bound to for each of a mirror's labels: what came with it, and what the rules add that let it in."""
    rows = list(labels)
    held = {row.number: LabelInSet(mirror.name, stored_label(row)) for row in rows}
    taken = node.policy.receivable(PartnerRef(mirror.hub, mirror.hub[:2]), Surface.SEALED, held)
    return {row.number: (*row.obligations.split(), *map(str, taken[row.number].obligations)) for row in rows}


def shown_attributes(label: Label, groups: frozenset[FieldGroup]) -> dict[str, object]:
    """A label as a partner may see it: without the victim status where that group is withheld."""
    shown = label if FieldGroup.VICTIM_STATUS in groups else replace(label, victim_status=VictimStatus.WITHHELD)
    return shown.to_json()


def recovered_meta(set_id: int) -> str:
    """Where the database says that partners gave back entries of an own set, which have lost their references."""
    return f"recovered {set_id}"


def seal_digest_key(node: Node, set_name: str, key: bytes) -> bytes:
    """The set's state digest key, sealed for the database."""
    return node.keystore.master_key.seal(key, f"digest key of {set_name}", node.random)


def digest_key(node: Node, hash_set: HashSet) -> bytes:
    """The set's state digest key."""
    return node.keystore.master_key.open(hash_set.sealed_digest_key, f"digest key of {hash_set.name}")
