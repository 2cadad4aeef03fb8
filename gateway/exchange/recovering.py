"""What a hub has lost comes back from its followers: in pages that the hub itself once signed, and in no other way.

A follower keeps, beside the blocks of each page that it took whole, what the hub signed of it (`keep`). From both, the
page can be put together again byte for byte, for as long as its blocks are here. When a comparison shows that the hub
knows nothing of an entry, the follower offers the page that brought it.

The hub believes its own signature, and nobody's word (`take`):

    1 the manifest is signed by a signing key of ours that was never compromised, and the page is the one it names
    2 withdrawals first: what was withdrawn then is withdrawn now, and stays away
    3 of each entry the newest version counts; one that was withdrawn, or must never come again, does not come back
    4 what partners with different rights bring is joined: the same version with more field groups
    5 one transaction: blocks, sums, leaves, receipt; entries keep their ids and versions, and get new places in `seq`

A page of which the follower's own policy refused rows cannot be put together again, since their values were not kept:
what no other partner has, is lost, and the comparison says so.

Contract: contracts/offer-1.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import SEEK_END, BytesIO

from gateway import keyring
from gateway.audit import Event, EventKind
from gateway.columns.block import NO_LABEL, Block, cut, decode, encode_block
from gateway.columns.block import REMOVALS as REMOVALS_LABEL
from gateway.columns.rows import (
    EXISTENCE,
    LOCAL_GROUP,
    Ints,
    Rows,
    constant,
    counting,
    flagged,
    indexes,
    integers,
    joined,
    registered,
)
from gateway.columns.sketch import among
from gateway.comparisons import dump_offer, parse_offer
from gateway.crypto import envelope
from gateway.crypto.keys import VerifyingKey
from gateway.errors import DeniedError, NotFoundError, VerificationError
from gateway.exchange import listfile
from gateway.exchange.changes import Held, Sums, held_rows, supersede
from gateway.exchange.labels import LabelBook, digest_key, recovered_meta
from gateway.exchange.lookup import parse_entry
from gateway.exchange.neveragain import NeverAgain
from gateway.exchange.shelf import CHANGES, Shelf, block_id
from gateway.interchange import PAGE_TYPE, PageHead, PageLabel, parse_page
from gateway.keylife import DAY_SECONDS
from gateway.model import STRONGEST_FIRST, ChangeKind, Label, VictimStatus
from gateway.node import Node
from gateway.ownkeys import signing_key_of
from gateway.partners import active_card, card_in, get, may_exchange
from gateway.receipts import Message, repeated, settle
from gateway.restoring import accepted_epoch, restored_at
from gateway.store import Transaction
from gateway.store.tables import HashSet, SignedPage


@dataclass(frozen=True, slots=True)
class Evidence:
    """A signed message that brought an entry. `sources`: the owner's messages, where its sender passed the set on."""

    sender: str
    message_id: str
    manifest_digest: str
    created: int
    epoch: int
    until_seq: int
    sources: tuple[str, ...]


def sources_of(message: Message, page: PageHead) -> tuple[str, ...]:
    """The originator's signed messages that stand behind a page: itself, where its sender owns the set."""
    owner = page.set_name.split("/", maxsplit=1)[0]
    return (message.manifest_digest,) if page.hub == owner else page.sources


@dataclass(slots=True)
class _Tally:
    """What an offered page brought back, by entries; `refused` by reason."""

    recovered: int = 0
    joined: int = 0
    withdrawn: int = 0
    known: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    def refuse(self, reason: str, count: int) -> None:
        """Count entries that stay away."""
        if count:
            self.refused[reason] = self.refused.get(reason, 0) + count

    @property
    def changes(self) -> int:
        """How many changes the set gets."""
        return self.recovered + self.joined + self.withdrawn


class Recovering:
    """Offers pages that a hub signed, and takes such offers."""

    def __init__(self, node: Node, shelf: Shelf, never_again: NeverAgain) -> None:
        self._node = node
        self._shelf = shelf
        self._never_again = never_again

    # The follower

    def keep(
        self, tx: Transaction, set_id: int, message: Message, page: PageHead, blocks: Sequence[Block], *, front: bytes
    ) -> None:
        """Keep what the hub signed of a page, in the transaction that takes it in whole, before its blocks are put.

        Args:
            blocks: all blocks of the page, in the order in which they are put.
            front: what stands before them, as it came.
        """
        if not message.signed or not blocks:
            return
        first = tx.blocks.next_id()
        row = SignedPage(
            set_id=set_id,
            epoch=page.end.epoch,
            until_seq=page.end.seq,
            first_block=first,
            last_block=first + len(blocks) - 1,
            withdrawals=sum(_withdrawals(block) for block in blocks if block.header.label == REMOVALS_LABEL),
            sealed=b"",
            at=self._node.clock(),
            sources=" ".join(sources_of(message, page)),
        )
        raw = dump_offer(message.signed, front)
        row.sealed = self._node.keystore.master_key.seal(raw, _context(row), self._node.random)
        tx.evidence.add(row)

    def withdrawals(self, partner: str, set_name: str) -> list[int]:
        """Pages that withdrew entries after the backup from which a partner's set lives on, oldest first.

        Then those of that time that had brought them: they alone tell which digests must not come again.
        """
        with self._node.store.reading() as tx:
            mirror = self._mirror(tx, partner, set_name)
            epoch = accepted_epoch(tx, partner)
            _, seq = restored_at(self._node, tx, partner).get(set_name, (epoch - 1, 0))
            pages = tx.evidence.since(mirror.id or 0, epoch, seq)
            withdrawing = [page for page in pages if page.withdrawals]
            gone = joined([ids for page in withdrawing for ids in self._entries(tx, page, ChangeKind.WITHDRAW)])
            brought = [
                page
                for page in pages
                if not page.withdrawals
                and any(among(ids, gone).any() for ids in self._entries(tx, page, ChangeKind.ASSERT))
            ]
            return [page.id or 0 for page in (*withdrawing, *brought)]

    def _entries(self, tx: Transaction, page: SignedPage, kind: ChangeKind) -> Iterator[Ints]:
        """The entries that a page asserts or withdraws, as far as its blocks are here, block by block."""
        stored = tx.blocks.some(range(page.first_block, page.last_block + 1)).values()
        chosen = [row for row in stored if (row.label == REMOVALS_LABEL) == (kind is not ChangeKind.ASSERT)]
        for block in self._shelf.get_all(tx, chosen, [EXISTENCE]):
            rows = decode(block, ["kind", "entry_id"])
            yield rows.ints("entry_id")[rows.ints("kind") == constant(kind, rows.n)]

    def pages_of(self, partner: str, set_name: str, entries: Ints) -> list[int]:
        """The pages that brought these entries as they are held now, as far as they were kept; oldest first."""
        with self._shelf.reading(self._node.store) as tx:
            mirror = self._mirror(tx, partner, set_name)
            if not set_name.startswith(f"{partner}/"):
                return []  # only the owner of a set takes anything back
            held = held_rows(tx, self._shelf, mirror.id or 0, entries)
            return tx.evidence.holding(mirror.id or 0, [block_id(one.block) for one in held])

    def evidence(self, set_name: str, entry: str) -> list[Evidence]:
        """The messages that brought an entry of a mirror as it is held now, each with page and signature verified anew.

        Raises:
            NotFoundError: the entry is not held here as one of another agency's set.
            VerificationError: a message is not as its sender signed it, or the key was compromised since.
        """
        entries = integers([parse_entry(entry)])
        with self._shelf.reading(self._node.store) as tx:
            mirror = tx.sets.get(set_name)
            held = held_rows(tx, self._shelf, mirror.id or 0, entries) if mirror.hub else []
            if not held:
                raise NotFoundError("no such entry of a partner's set is held here")
            card = card_in(get(self._node, tx, mirror.hub))
            keys = keyring.keys_of_evidence(self._node, tx, card)
            pages = tx.evidence.holding(mirror.id or 0, [block_id(one.block) for one in held])
        kept = [raw for raw in map(self.offer, pages) if raw is not None]
        return [_evidence(raw, keys) for raw in kept]

    def offer(self, page: int) -> bytes | None:
        """A page as its hub signed it, as the payload of an offer; None where its blocks are not all here any more."""
        with self._node.store.reading() as tx:
            row = tx.evidence.get(page)
            if row is None:
                return None
            stored = tx.blocks.some(range(row.first_block, row.last_block + 1))
            if len(stored) < row.last_block - row.first_block + 1:
                return None
            signed, front = parse_offer(self._node.keystore.master_key.open(row.sealed, _context(row)))
            blocks = list(self._shelf.get_all(tx, [stored[number] for number in sorted(stored)]))
        raw = BytesIO(front)
        raw.seek(0, SEEK_END)
        for block in blocks:
            block.dump(raw)
        return dump_offer(signed, raw.getvalue())

    def keep_house(self) -> None:
        """Forget what was signed longer ago than the settings say; its blocks may then be joined with others."""
        before = self._node.clock() - self._node.settings.signed_pages_days * DAY_SECONDS
        with self._node.store.transaction() as tx:
            tx.evidence.forget(before)

    def _mirror(self, tx: Transaction, partner: str, set_name: str) -> HashSet:
        mirror = tx.sets.get(set_name)
        if mirror.hub != partner:
            raise DeniedError("this set does not come from that partner")
        return mirror

    # The hub

    def take(self, message: Message, raw: bytes) -> bytes:
        """Take back what we once signed and have lost; returns the receipt.

        Raises:
            VerificationError: we did not sign it, or with a key that was compromised.
        """
        signed, page_raw = parse_offer(raw)
        # 1. Our own signature, over this very page.
        with self._node.store.reading() as tx:
            keys = [signing_key_of(row) for row in tx.keys.own("signing") if not row.compromised_since]
        manifest = envelope.verify_kept(signed, page_raw, keys)
        if manifest.sender != self._node.agency or manifest.payload_type != PAGE_TYPE:
            raise VerificationError("an offer of something that is not a page of ours")
        page, blocks = parse_page(BytesIO(page_raw))
        if page.hub != self._node.agency or page.set_name != manifest.channel:
            raise VerificationError("an offer of a page of another set than was signed")
        arriving = list(blocks)
        with self._node.store.transaction() as tx:
            card = active_card(self._node, tx, message.sender)
            before = repeated(tx, message)
            if before is not None:
                return before
            found = tx.sets.get(page.set_name)
            if found.hub or not may_exchange(self._node, tx, card.agency, found.name):
                raise DeniedError("only pages of our own sets come back")
            receipt = _Return(self._node, self._shelf, tx, found, self._never_again).take(message, page, arriving)
        listfile.keep(self._node)  # what was withdrawn is listed
        return receipt


def _evidence(raw: bytes, keys: Sequence[VerifyingKey]) -> Evidence:
    """What a kept message says of itself, once it is verified."""
    signed, page_raw = parse_offer(raw)
    manifest = envelope.verify_kept(signed, page_raw, keys)
    head, _ = parse_page(BytesIO(page_raw))
    digest = hashlib.sha256(manifest.dump()).hexdigest()
    return Evidence(
        manifest.sender,
        manifest.message_id,
        digest,
        manifest.created,
        manifest.epoch,
        manifest.until_seq,
        head.sources,
    )


class _Return:
    """One offered page, within one transaction."""

    def __init__(self, node: Node, shelf: Shelf, tx: Transaction, hash_set: HashSet, never_again: NeverAgain) -> None:
        assert hash_set.id is not None
        self._never_again, self._bars = never_again, never_again.bars(tx, node.agency)
        self._node, self._shelf, self._tx, self._set = node, shelf, tx, hash_set
        self._id = hash_set.id
        self._labels = LabelBook(node, tx, self._id)
        self._numbers = {row.digest.hex(): row.number for row in tx.sets.labels(self._id)}
        self._seq = hash_set.seq
        self._tally = _Tally()
        self._made: list[tuple[int, Rows]] = []
        self._goes: list[Ints] = []
        self._wrong: list[Rows] = []

    def take(self, message: Message, page: PageHead, blocks: Sequence[Block]) -> bytes:
        """Everything that the page brings back, as changes of the set; returns the receipt."""
        for block in blocks:
            if block.header.set_name != self._set.name or block.header.epoch > self._set.epoch:
                raise VerificationError("an offer with a block of another set, or of an epoch that is to come")
        # 2. Withdrawals first. 3. and 4. What was asserted, unless it was withdrawn, now or before.
        for block in blocks:
            if block.header.label == REMOVALS_LABEL:
                self._withdraw(decode(block))
        labels = {label.number: label for label in page.labels}
        for block in blocks:
            if block.header.label != REMOVALS_LABEL:
                self._assert(labels[block.header.label], decode(block))
        # 5. Blocks, sums, set position and leaves, in this one commit.
        return self._commit(message, page)

    def _withdraw(self, rows: Rows) -> None:
        """Entries that the page withdraws: those that are listed go, those unknown are remembered as withdrawn."""
        rows = rows.take(rows.ints("kind") == constant(ChangeKind.WITHDRAW, rows.n))
        with self._shelf.index(self._tx, self._id) as index:
            withdrawn = index.withdrawn(rows.ints("entry_id"))
        self._tally.known += int(withdrawn.sum())
        rows = rows.take(~withdrawn)
        if not rows.n:
            return
        ids = rows.ints("entry_id")
        held = held_rows(self._tx, self._shelf, self._id, ids)
        listed = joined([one.rows.ints("entry_id") for one in held])
        for one in held:
            prev = {"prev_seq": one.rows.ints("seq"), "prev_label": constant(one.block.label, one.rows.n)}
            version = one.rows.ints("version") + constant(1, one.rows.n)
            self._add(one.block.label, _bare(one.rows.ints("entry_id"), version, ChangeKind.WITHDRAW), prev)
            self._wrong.append(one.rows)
        unknown = rows.take(~among(ids, listed))
        if unknown.n:
            gone = _bare(unknown.ints("entry_id"), unknown.ints("version"), ChangeKind.WITHDRAW)
            self._add(REMOVALS_LABEL, gone, {})
        self._goes.append(ids)
        self._tally.withdrawn += rows.n

    def _assert(self, label: PageLabel, rows: Rows) -> None:
        """Entries that the page lists under one label."""
        number = self._number_of(label)
        if number is None:
            self._tally.refuse("the label is not known whole", rows.n)
            return
        ids = rows.ints("entry_id")
        with self._shelf.index(self._tx, self._id) as index:
            away = index.withdrawn(ids) | among(ids, joined(self._goes))
        self._tally.refuse("withdrawn since", int(away.sum()))
        self._list_withdrawn(rows.take(away))
        rows = rows.take(~away)
        barred = None if self._bars is None else self._bars.find(rows)
        if barred is not None:
            self._tally.refuse("never again", int(barred.mask.sum()))
            rows = rows.take(~barred.mask)
        held = held_rows(self._tx, self._shelf, self._id, rows.ints("entry_id"))
        listed = joined([one.rows.ints("entry_id") for one in held])
        new = rows.take(~among(rows.ints("entry_id"), listed))
        if new.n:
            self._add(number, new, {})
            self._goes.append(new.ints("entry_id"))
            self._tally.recovered += new.n
        for one in held:
            self._join(number, one, _aligned(rows, one.rows.ints("entry_id")))

    def _list_withdrawn(self, rows: Rows) -> None:
        """List entries that came and were withdrawn after the backup: only the page that brought them has digests."""
        barred = None if self._bars is None or not rows.n else self._bars.find(rows)
        if barred is not None:
            rows = rows.take(~barred.mask)  # listed already
        again = constant(0, rows.n)
        with self._shelf.index(self._tx, self._id) as index:
            for name in STRONGEST_FIRST:
                if name in rows.columns:
                    again[index.find(name, rows.octets(name)).query] = 1
        if rows.n:  # what is listed under another entry was reinstated
            self._wrong.append(rows.take(again == constant(0, rows.n)))

    def _join(self, number: int, held: Held, rows: Rows) -> None:
        """What is held and what is offered of the same entries: a newer version replaces, the same one completes."""
        newer = rows.ints("version") > held.rows.ints("version")
        same = rows.ints("version") == held.rows.ints("version")
        more = [
            name for name in rows.columns if name not in held.rows.columns and registered(name).group != LOCAL_GROUP
        ]
        completed = same if more and held.block.label == number else flagged([False] * held.rows.n)
        self._tally.known += int((~newer & ~completed).sum())
        prev = {"prev_seq": held.rows.ints("seq"), "prev_label": constant(held.block.label, held.rows.n)}
        own = held.rows.select(["source_ref"])  # our own reference does not travel, so it stays
        for chosen, made in (
            (newer, rows.with_columns(own.columns)),
            (completed, held.rows.with_columns({name: rows.columns[name] for name in more})),
        ):
            if chosen.any():
                before = Rows.of(made.n, prev)
                self._add(number, made.take(chosen), before.take(chosen).columns)
                self._goes.append(made.take(chosen).ints("entry_id"))
                self._tally.joined += int(chosen.sum())

    def _number_of(self, label: PageLabel) -> int | None:
        """Our number of a label that we once described; None where what we showed of it does not make one."""
        number = self._numbers.get(label.digest)
        if number is not None:
            return number
        made = Label.from_json(label.attributes)
        return None if made.victim_status is VictimStatus.WITHHELD else self._labels.number(made)

    def _add(self, label: int, rows: Rows, prev: Mapping[str, object]) -> None:
        """These rows as the next changes of the set; they count from the commit on."""
        nothing = constant(0, rows.n)
        columns = {"seq": counting(self._seq + 1, rows.n)}
        if label != REMOVALS_LABEL:
            columns |= {"prev_seq": nothing, "prev_label": nothing, **prev}  # type: ignore[dict-item]  # of that length
        self._seq += rows.n
        self._made.append((label, rows.with_columns(columns)))

    def _commit(self, message: Message, page: PageHead) -> bytes:
        sums = Sums(self._tx, self._id, digest_key(self._node, self._set))
        gone = joined(self._goes)
        if len(gone):
            supersede(self._tx, self._shelf, self._id, _distinct(gone), sums)
        blocks: list[Block] = []
        arriving: list[tuple[int, Rows, Iterable[int]]] = []
        for label, rows in self._made:
            digest = NO_LABEL if label == REMOVALS_LABEL else self._labels.digest(label)
            for piece in cut(rows):
                block = encode_block(
                    set_name=self._set.name,
                    epoch=self._set.epoch,
                    label=label,
                    label_digest=digest,
                    rows=piece,
                    salt=self._shelf.salt,
                )
                blocks.append(block)
                if (piece.ints("kind") == constant(ChangeKind.ASSERT, piece.n)).all():
                    arriving.append((label, piece, block.parts))
        received, recovered = self._events(message, page, len(blocks))
        leaf = self._tx.log.append([received, recovered], blocks=[block.digest for block in blocks])
        if blocks:
            self._shelf.put(self._tx, self._id, CHANGES, blocks, first_leaf=leaf)
            self._tx.sets.advance(self._id, expected_seq=self._set.seq, seq=self._seq, next_entry=self._set.next_entry)
            sums.add(arriving)
            sums.write()
        if self._tally.recovered:
            self._tx.people.set_meta(recovered_meta(self._id), str(self._node.clock()))
        if self._wrong:
            self._never_again.list_wrong(self._tx, self._wrong, self._set.name)
        return settle(self._node, self._tx, message, received, leaf + len(blocks))

    def _events(self, message: Message, page: PageHead, blocks: int) -> tuple[Event, Event]:
        """That the page was taken in, which its receipt proves, and what it brought back."""
        tally = self._tally
        refused = sum(tally.refused.values())
        received: dict[str, object] = {
            **message.details(),
            "refused": refused,
            "blocks": blocks,
            "set": self._set.name,
            "epoch": page.end.epoch,
            "from_seq": page.start.seq,
            "until_seq": page.end.seq,
            "view": page.end.view,
            "changes": page.changes,
        }
        recovered: dict[str, object] = {
            **message.details(),
            "set": self._set.name,
            "epoch": self._set.epoch,
            "from_seq": self._set.seq + 1,
            "until_seq": self._seq,
            "recovered": tally.recovered,
            "joined": tally.joined,
            "withdrawn": tally.withdrawn,
            "known": tally.known,
            "refused": refused,
            "reasons": dict(tally.refused),
            "blocks": blocks,
        }
        who = {"actor": message.sender, "subject": self._set.name}
        return (
            self._node.event(EventKind.PUSH_RECEIVED, **who, details=received),
            self._node.event(EventKind.ENTRIES_RECOVERED, **who, details=recovered),
        )


def _bare(entry_ids: Ints, versions: Ints, kind: ChangeKind) -> Rows:
    """Changes that say nothing but what became of their entries."""
    return Rows.of(len(entry_ids), {"kind": constant(kind, len(entry_ids)), "entry_id": entry_ids, "version": versions})


def _aligned(rows: Rows, entry_ids: Ints) -> Rows:
    """The rows of these entries, in their order."""
    places = {entry: place for place, entry in enumerate(rows.ints("entry_id").tolist())}
    return rows.take(indexes([places[entry] for entry in entry_ids.tolist()]))


def _distinct(ids: Ints) -> Ints:
    return integers(sorted(set(ids.tolist())))


def _withdrawals(block: Block) -> int:
    return int((decode(block, ["kind"]).ints("kind") == ChangeKind.WITHDRAW).sum())


def _context(row: SignedPage) -> str:
    return f"signed page of set {row.set_id}, blocks {row.first_block} to {row.last_block}"
