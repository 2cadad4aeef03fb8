"""What stock clients hear of opinions on the entries that they get (contracts/hashsharing-1.md rule 16).

Who may see an entry may know what is thought of it, and of whom it hears by name is decided as between gateways
(decision 0024): its own words, and ours, which are told to whoever may know of the entry. What other agencies think it
hears as numbers: so many confirm the entry as it stands, so many dispute it; no names, no reasons, no times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.node import Node
from gateway.opinions import Verdict, Word, parties
from gateway.store import Transaction
from gateway.store.tables import OpinionRow


@dataclass(frozen=True, slots=True)
class Told:
    """One agency's opinion as a client hears it.

    Args:
        agency: whose, "" for another whose name is not told.
        confirms: whether it stands behind the entry; else it disputes it.
        reasons: why, in the words of whoever said it.
        algorithm: of the digest that it is about, "" for the entry as a whole.
        at: when it was said, 0 where that is not told.
    """

    agency: str
    confirms: bool
    reasons: tuple[str, ...] = ()
    algorithm: str = ""
    at: int = 0


Entries = Mapping[int, Mapping[int, int]]  # by set, the version of each entry


def heard(node: Node, tx: Transaction, partner: str, entries: Entries) -> dict[tuple[int, int], Sequence[Told]]:
    """What a partner may hear of these entries, by (set, entry id)."""
    found: dict[tuple[int, int], Sequence[Told]] = {}
    for set_id, versions in entries.items():
        if not tx.opinions.any_on(set_id):
            continue
        ids = sorted(versions)
        own: dict[int, list[OpinionRow]] = {}
        for row in tx.opinions.of(set_id, ids):
            if row.partner == partner:
                own.setdefault(row.entry_id, []).append(row)
        said: dict[int, list[Word]] = {}
        for word in tx.opinions.said(set_id, ids):
            if word.agency != partner:
                said.setdefault(word.entry_id, []).append(word)
        for entry in own.keys() | said.keys():
            mine = [_repeated(row) for row in own.get(entry, ())]
            found[set_id, entry] = [*mine, *_others(node.agency, said.get(entry, ()), versions[entry])]
    return found


def _repeated(row: OpinionRow) -> Told:
    """What the client said itself."""
    confirms = row.verdict == "affirmative"
    return Told(row.partner, confirms, tuple(row.reasons.split()), row.algorithm, row.at)


def _others(us: str, words: Sequence[Word], version: int) -> list[Told]:
    confirming, disputing = parties(words, version)
    reasons = sorted({word.reason for word in words if word.agency == us and word.verdict is Verdict.DISPUTE})
    told = [Told(us, True)] * (us in confirming) + [Told(us, False, tuple(reasons))] * (us in disputing)
    told += [Told("", True)] * len(confirming - {us}) + [Told("", False)] * len(disputing - {us})
    return told
