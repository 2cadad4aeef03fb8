"""Opinions of agencies: giving our own, telling those who may know, hearing partners', and what a hub counts.

Any entry that is held here, in a set of our own or in a mirror, can be confirmed or disputed. The word stays with the
entry, under its set and id: no digest is kept, and what is withdrawn or erased takes its opinions with it.

    give      our people say it: kept, and told in the same transaction to
                  the hub that the set comes from, and its owner: they have the entry
                  every other partner to whom policy lets us share that the entry exists, as if we passed it on
    hear      a partner says it: kept where the set is held here; of an own set only on what that partner may see
    ask       a partner is asked for its own words on a set; the hub answers with its counts besides, and tells of
              changes from then on

A word counts as its sender's and nobody else's: none is passed on. What a hub hands down are numbers, how many agencies
confirm and dispute, without names and without the word of who asks. That many confirm is then only its own word, so
`quality` believes it when it speaks against an entry, never when it speaks for one.

Contract: contracts/opinions-1.md; decision 0024.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.audit import EventKind
from gateway.columns.block import decode
from gateway.columns.rows import EXISTENCE, grouped, integers
from gateway.errors import DeniedError, GatewayError, NotFoundError
from gateway.exchange.audience import Audiences
from gateway.exchange.forwarding import narrowed
from gateway.exchange.labels import stored_label
from gateway.exchange.shelf import CHANGES, Shelf, block_id
from gateway.interchange import MAIL_TYPE
from gateway.mailbox import Mailbox
from gateway.model import MAX_TEXT_CHARS, FieldGroup, Surface, require
from gateway.node import Node
from gateway.opinions import (
    COUNTS,
    MAX_ENTRIES,
    OPINION,
    REQUEST,
    Count,
    Counted,
    Saying,
    Verdict,
    Word,
    check_reason,
    format_id,
    in_messages,
    parse_counts,
    parse_request,
    parse_saying,
    parties,
)
from gateway.partners import ACTIVE, fits, may_move
from gateway.policy import LabelInSet, PartnerRef
from gateway.store import Transaction
from gateway.store.tables import HashSet, PartnerRow

MAX_UNHELD = (
    10_000  # words of one agency beyond the entries of a mirror: those may come before the entry, and do not pile up
)
ANSWER_SECONDS = 600  # who asks again sooner is not answered: what it was told, and every change since, is on its way


class Place(NamedTuple):
    """Where an entry stands now."""

    label: int
    version: int


@dataclass(frozen=True, slots=True)
class Given:
    """What became of a word of ours: on how many entries it was given, how many were not held, who is told of it."""

    set_name: str
    entries: int
    missing: int
    told: Mapping[str, int]


class Opinions:
    """One gateway's opinions, given and heard."""

    def __init__(self, node: Node, shelf: Shelf, mailbox: Mailbox) -> None:
        self._node = node
        self._shelf = shelf
        self._mailbox = mailbox
        self._audiences = Audiences(node)
        mailbox.on(OPINION, self._hear_opinion)
        mailbox.on(COUNTS, self._hear_counts)
        mailbox.on(REQUEST, self._hear_request)

    # Our own

    def give(
        self, name: str, entry_ids: Iterable[int], verdict: Verdict, reason: str = "", text: str = "", *, actor: str
    ) -> Given:
        """Our agency's word on entries of a set is kept, and told to whoever may know.

        Args:
            text: what our people want to remember, in one line; it is kept sealed, and goes nowhere.

        Raises:
            NotFoundError: none of them is held here, or nothing was said of any that could be taken back.
        """
        check_reason(verdict, reason)
        require(len(text) <= MAX_TEXT_CHARS and (not text or text.isprintable()), "what is noted is one line")
        asked = sorted(set(entry_ids))
        with self._node.store.transaction() as tx:
            hash_set = tx.sets.get(name)
            set_id, us = _id(hash_set), self._node.agency
            places = located(tx, self._shelf, set_id, asked)
            if not places:
                raise NotFoundError("none of these entries is held here", remedy="`gateway look-up` shows entries")
            if verdict is Verdict.WITHDRAWN:
                said = tx.opinions.words(set_id, sorted(places))
                ours = {one.entry_id for one in said if one.agency == us and one.verdict is not Verdict.WITHDRAWN}
                places = {entry: place for entry, place in places.items() if entry in ours}
                if not places:
                    raise NotFoundError("we have said nothing of these entries")
            now = self._node.clock()
            entries = tuple((entry, place.version) for entry, place in sorted(places.items()))
            saying = Saying(name, max(tx.opinions.last_number(us) + 1, now), verdict, reason, now, entries)
            sealed = self._node.keystore.master_key.seal(text.encode(), note_context(name), self._node.random)
            tx.opinions.join(set_id, saying.words(us), sealed if text else b"")
            self._record_given(tx, saying, actor)
            told = self._tell(tx, hash_set, saying, places)
            self._tell_counts(tx, hash_set, places)
        return Given(name, len(entries), len(asked) - len(entries), told)

    def ask(self, name: str, partner: str = "") -> str:
        """Ask a partner for its words on a set (the hub of a mirror, if none is named); returns whom.

        Raises:
            DeniedError: the set is our own, and no partner is named; or policy lets the partner see nothing of it.
        """
        with self._node.store.transaction() as tx:
            hash_set = tx.sets.get(name)
            whom = partner or hash_set.hub
            if not whom:
                raise DeniedError("the set is our own", remedy="name a partner who follows it")
            # The question names the set, so it goes only to who may know that there is anything in it.
            row, labels = tx.people.partner(whom), {one.number for one in tx.sets.labels(_id(hash_set))}
            comes = whom == hash_set.hub and self._may_hear(row, hash_set)
            if not comes and not self._may_know(tx, hash_set, row, labels):
                raise DeniedError("this partner may not be asked about this set")
            self._mailbox.post(tx, whom, REQUEST, {"set": name})
        return whom

    def _record_given(self, tx: Transaction, saying: Saying, actor: str) -> None:
        details: dict[str, object] = {
            "set": saying.set_name,
            "verdict": str(saying.verdict),
            "reason": saying.reason,
            "number": saying.number,
            "entries": len(saying.entries),
            **({"entry": format_id(saying.entries[0][0])} if len(saying.entries) == 1 else {}),
        }
        event = self._node.event(EventKind.OPINION_GIVEN, actor=actor, subject=saying.set_name, details=details)
        tx.log.append([event])

    def _tell(
        self, tx: Transaction, hash_set: HashSet, saying: Saying, places: Mapping[int, Place], only: str = ""
    ) -> dict[str, int]:
        """Queue a word for every partner that may know of its entry; returns of how many entries each is told."""
        told: dict[str, int] = {}
        labels = {place.label for place in places.values()}
        for row in tx.people.partners():
            if only in ("", row.agency):
                seen = self._may_know(tx, hash_set, row, labels)
                entries = [one for one in saying.entries if places[one[0]].label in seen]
                for some in in_messages(entries):
                    part = Saying(saying.set_name, saying.number, saying.verdict, saying.reason, saying.at, some)
                    self._mailbox.post(tx, row.agency, OPINION, part.to_json())
                if entries:
                    told[row.agency] = len(entries)
        return told

    def _may_hear(self, row: PartnerRow, hash_set: HashSet) -> bool:
        return row.state == ACTIVE and fits(self._node, row) and may_move(self._node, row, hash_set.name)

    def _may_know(self, tx: Transaction, hash_set: HashSet, row: PartnerRow, labels: set[int]) -> set[int]:
        """Under which of these labels a partner may know that entries of a set of ours, or of a mirror, exist."""
        if not self._may_hear(row, hash_set):
            return set()
        if row.agency in (hash_set.hub, hash_set.name.split("/", maxsplit=1)[0]):
            return labels  # it has them: from it they came, or it owns them
        ref = PartnerRef(row.agency, row.jurisdiction)
        if not hash_set.hub:
            return labels & set(self._audiences.sight(tx, hash_set, ref).view.labels)
        came = {one.number: one for one in tx.sets.labels(_id(hash_set)) if one.number in labels}
        held = {number: LabelInSet(hash_set.name, stored_label(one)) for number, one in came.items()}
        rights = self._node.policy.table(ref, Surface.SEALED, held)
        return {
            number
            for number, right in rights.items()
            if FieldGroup.EXISTENCE in narrowed(held[number].label, came[number], right, ref).groups
        }

    # Partners'

    def _hear_opinion(self, tx: Transaction, sender: str, body: dict[str, object]) -> None:
        try:
            saying = parse_saying(body, now=self._node.clock())
            hash_set = self._spoken_of(tx, sender, saying.set_name)
            if hash_set is None:
                return  # nobody follows it here: the word is about nothing that we have
            words = self._heeded(tx, hash_set, sender, saying)
        except GatewayError as error:
            self._refused(tx, sender, error)
            return
        new = tx.opinions.join(_id(hash_set), words)
        details: dict[str, object] = {
            "partner": sender,
            "set": saying.set_name,
            "verdict": str(saying.verdict),
            "reason": saying.reason,
            "number": saying.number,
            "entries": len(saying.entries),
            "taken": len(new),
        }
        event = self._node.event(EventKind.OPINION_HEARD, actor=sender, subject=saying.set_name, details=details)
        tx.log.append([event])
        entries = [one.entry_id for one in new]
        self._tell_counts(tx, hash_set, located(tx, self._shelf, _id(hash_set), entries))

    def _spoken_of(self, tx: Transaction, sender: str, name: str) -> HashSet | None:
        """The set that a partner speaks of, where it is held here and may move between us."""
        hash_set, row = tx.sets.find(name), tx.people.find_partner(sender)
        if hash_set is None:
            return None
        if row is None or not self._may_hear(row, hash_set):
            raise DeniedError("this set does not move to or from this partner")
        return hash_set

    def _heeded(self, tx: Transaction, hash_set: HashSet, sender: str, saying: Saying) -> list[Word]:
        """The words of a saying that are about something.

        Of an own set: what is listed, and the sender may see. Of a mirror also what has not come here yet, within
        bounds: others may be faster than our hub.
        """
        words, set_id = saying.words(sender), _id(hash_set)
        places = located(tx, self._shelf, set_id, [one.entry_id for one in words])
        if hash_set.hub:
            with self._shelf.index(tx, set_id) as index:
                room = MAX_UNHELD + index.live_count - tx.opinions.how_many(set_id, sender)
                gone = index.withdrawn(integers([one.entry_id for one in words])).tolist()
            if room < len(words):
                raise DeniedError("more opinions on this set than it has entries")
            return [one for one, is_gone in zip(words, gone, strict=True) if not is_gone]
        row = tx.people.partner(sender)
        seen = self._may_know(tx, hash_set, row, {place.label for place in places.values()})
        return [one for one in words if one.entry_id in places and places[one.entry_id].label in seen]

    def _hear_counts(self, tx: Transaction, sender: str, body: dict[str, object]) -> None:
        try:
            counted = parse_counts(body, now=self._node.clock())
            hash_set = self._spoken_of(tx, sender, counted.set_name)
            if hash_set is None:
                return
            set_id = _id(hash_set)
            with self._shelf.index(tx, set_id) as index:
                room = MAX_UNHELD + index.live_count - tx.opinions.how_many_counts(set_id)
            if hash_set.hub != sender or room < len(counted.counts):
                raise DeniedError("only the hub of a set counts opinions on it, one for each entry")
        except GatewayError as error:
            self._refused(tx, sender, error)
            return
        tx.opinions.put_counts(set_id, counted.number, counted.counts)

    def _hear_request(self, tx: Transaction, sender: str, body: dict[str, object]) -> None:
        """Our own words go to who asks, as far as it may know of their entries; counts, too, if we serve it the set."""
        try:
            hash_set = self._spoken_of(tx, sender, parse_request(body))
        except GatewayError as error:
            self._refused(tx, sender, error)
            return
        if hash_set is None:
            return
        set_id, now = _id(hash_set), self._node.clock()
        told = tx.opinions.asker(set_id, sender)
        if told is not None and told > now - ANSWER_SECONDS:
            return
        tx.opinions.put_asker(set_id, sender, now)
        for saying in _sayings(hash_set.name, tx.opinions.every_word(set_id, self._node.agency)):
            places = located(tx, self._shelf, set_id, [entry for entry, _ in saying.entries])
            kept = tuple(one for one in saying.entries if one[0] in places)
            here = Saying(saying.set_name, saying.number, saying.verdict, saying.reason, saying.at, kept)
            self._tell(tx, hash_set, here, places, only=sender)
        entries = sorted({one.entry_id for one in tx.opinions.said(set_id)})
        self._tell_counts(tx, hash_set, located(tx, self._shelf, set_id, entries), only=sender)

    # What a hub counts

    def client_spoke(self, tx: Transaction, set_id: int, entry_id: int) -> None:
        """A partner's stock client has said something of an entry of ours: those who asked are told."""
        places = located(tx, self._shelf, set_id, [entry_id])
        self._tell_counts(tx, tx.sets.by_id(set_id), places)

    def _tell_counts(self, tx: Transaction, hash_set: HashSet, places: Mapping[int, Place], only: str = "") -> None:
        """Queue what is thought of these entries for those who asked, and follow the set from here."""
        set_id = _id(hash_set)
        askers = [one for one in tx.opinions.askers(set_id) if only in ("", one)] if places else []
        served = tx.sets.find_served(hash_set.name) if askers else None
        if served is None:
            return
        said: dict[int, list[Word]] = {}
        for one in tx.opinions.said(set_id, sorted(places)):
            said.setdefault(one.entry_id, []).append(one)
        there = places if served.id == set_id else located(tx, self._shelf, _id(served), sorted(places))
        number = self._node.clock()
        for asker in askers:
            row = tx.people.find_partner(asker)
            if row is None or asker in (hash_set.hub, _owner(hash_set)) or not self._may_hear(row, served):
                continue
            view = self._audiences.sight(tx, served, PartnerRef(row.agency, row.jurisdiction)).view
            counts = [
                _count(entry, (one for one in said.get(entry, ()) if one.agency != asker), place.version)
                for entry, place in sorted(there.items())
                if place.label in view.labels
            ]
            for start in range(0, len(counts), MAX_ENTRIES):
                body = Counted(hash_set.name, number, tuple(counts[start : start + MAX_ENTRIES]))
                self._mailbox.post(tx, asker, COUNTS, body.to_json())

    def _refused(self, tx: Transaction, sender: str, error: GatewayError) -> None:
        """A message that changes nothing is on record. It stays in the mailbox: what comes behind it is not held up."""
        details: dict[str, object] = {
            "sender": sender,
            "error": type(error).__name__,
            "reason": error.message,
            "payload_type": MAIL_TYPE,
        }
        event = self._node.event(EventKind.MESSAGE_REFUSED, actor=self._node.agency, subject=sender, details=details)
        tx.log.append([event])


def located(tx: Transaction, shelf: Shelf, set_id: int, entry_ids: Sequence[int]) -> dict[int, Place]:
    """Those of these entries that a set lists with their values, each with its label and version."""
    ids = integers(entry_ids)
    with shelf.index(tx, set_id) as index:
        at = index.locate(ids)
    positions, blocks = at.row[at.found], at.block_no[at.found].astype("uint64")
    where = dict(grouped(blocks))
    stored = [row for row in tx.blocks.some(list(where)).values() if row.kind == CHANGES]
    found: dict[int, Place] = {}
    for row, block in zip(stored, shelf.get_all(tx, stored, [EXISTENCE]), strict=True):
        rows = decode(block, ["entry_id", "version"]).take(positions[where[block_id(row)]])
        pairs = zip(rows.ints("entry_id").tolist(), rows.ints("version").tolist(), strict=True)
        found.update((entry, Place(row.label, version)) for entry, version in pairs)
    return found


def note_context(name: str) -> str:
    """What binds a sealed note of ours to its set."""
    return f"opinion on {name}"


def _count(entry: int, words: Iterable[Word], version: int) -> Count:
    confirming, disputing = parties(words, version)
    return Count(entry, len(confirming), len(disputing))


def _sayings(name: str, words: Iterable[Word]) -> list[Saying]:
    """Words of one agency as it said them: those that share all but the entry belong together."""
    by_saying: dict[tuple[int, Verdict, str, int], list[tuple[int, int]]] = {}
    for one in words:
        by_saying.setdefault((one.number, one.verdict, one.reason, one.at), []).append((one.entry_id, one.version))
    return [Saying(name, *told, tuple(sorted(entries))) for told, entries in sorted(by_saying.items())]


def _owner(hash_set: HashSet) -> str:
    return hash_set.name.split("/", maxsplit=1)[0]


def _id(hash_set: HashSet) -> int:
    assert hash_set.id is not None, "a stored set has an id"
    return hash_set.id
