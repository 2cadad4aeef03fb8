"""A set of ours as a file for one partner: what policy lets it see, in a form that its tools read, and proof of both.

    1 what the partner may see of each label, now, over this surface; on record from here (`decisions`)
    2 the rows that count, a few megabytes at a time, permitted columns alone, into a draft beside the file's place
    3 what was left out and why: the manifest, for us and the auditor; what is in it: the note, for the partner
    4 one commit: it may still have it, nothing in it was replaced meanwhile, and the log says so (`file_exported`)
    5 manifest, note and file in place, the file last: no file without its leaf

A file is `tls_only` to policy, for whoever gets hold of it reads it; sealed for the partner's keys it is `sealed`. It
follows no withdrawal: what goes out so cannot be taken back, which is why feeds are to be preferred.

Only sets of our own go out: what a partner shared goes on through onward copies, which keep its duties (`forwarding`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from gateway.adapters.outward import WRITERS
from gateway.adapters.writing import Batch, WriteOptions, fits, pieces
from gateway.audit import EventKind
from gateway.columns.rows import GROUP_CODES, Mask, Rows
from gateway.crypto import age
from gateway.crypto.keys import SealingKey, new_message_id
from gateway.errors import ConflictError, DeniedError, MalformedError
from gateway.exchange.contents import Contents
from gateway.exchange.decisions import SHARE, Decisions, Site
from gateway.exchange.drafting import Drafter, ServedSet
from gateway.exchange.labels import shown_attributes, stored_label
from gateway.exchange.lookup import format_entry
from gateway.exchange.shelf import Shelf, stored_header
from gateway.exportmanifest import dump_manifest, dump_note
from gateway.interchange import NO_VIEW, Cursor, View
from gateway.model import ENTRY_GROUPS, FieldGroup, Label, Surface
from gateway.newfile import Pulled, Sink, new_file
from gateway.node import Node
from gateway.partners import card_in, may_move, named_here
from gateway.policy import Action, Decision, LabelInSet, LabelRights, PartnerRef
from gateway.policy.words import Grid, Question
from gateway.store import Transaction
from gateway.store.tables import BlockRow, HashSet, LabelRow

AGAIN = "run the command again: it begins anew"
AT_ONCE = 4096  # rows: their texts are a few megabytes

Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Order:
    """Which set goes to whom, in which form; sealed for the partner's keys or readable by whoever holds the file."""

    set_name: str
    partner: str
    form: str
    sealed: bool = False
    category_scheme: str = "vics-default"

    @property
    def surface(self) -> Surface:
        """What policy is asked about."""
        return Surface.SEALED if self.sealed else Surface.TLS_ONLY


@dataclass(frozen=True, slots=True)
class Places:
    """Where file, note and manifest go; none of them is there yet."""

    file: Path
    note: Path
    manifest: Path


@dataclass(frozen=True, slots=True)
class Exported:
    """What went out. `withheld`: by field group, of how many entries it was left out though they have it."""

    entries: int
    left_out: int
    withheld: Mapping[str, int]
    not_carried: Mapping[str, int]
    size: int
    digest: str
    manifest_digest: str
    policy: str
    duties: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """Set and partner as they are in one transaction, and what policy says of each label."""

    hash_set: HashSet
    opening: tuple[SealingKey, ...]
    who: PartnerRef
    labels: Mapping[int, tuple[LabelRow, Label]]
    rights: Mapping[int, LabelRights]
    policy: str

    @property
    def set_id(self) -> int:
        assert self.hash_set.id is not None, "a stored set has an id"
        return self.hash_set.id

    @property
    def shown(self) -> dict[int, LabelRights]:
        """The labels of which the partner may see anything."""
        return {number: right for number, right in self.rights.items() if FieldGroup.EXISTENCE in right.groups}

    def allows_the_same(self, other: _Asked) -> bool:
        """Whether the other may have what this may; a label that came since is in neither file."""
        same = all(other.rights.get(number) == right for number, right in self.rights.items())
        alike = (self.policy, self.opening, self.hash_set.epoch) == (other.policy, other.opening, other.hash_set.epoch)
        return same and alike


@dataclass(slots=True)
class _Tally:
    """What is counted while a file is written: by label how many entries there are, and by group code of how many."""

    entries: Counter[int] = field(default_factory=Counter)
    having: Counter[tuple[int, int]] = field(default_factory=Counter)
    written: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, eq=False)
class _Written:
    """What was counted while the file was written, and what it became."""

    tally: _Tally
    not_carried: Mapping[str, int]
    size: int
    digest: str


class Exporting:
    """Writes files for partners."""

    def __init__(self, node: Node, shelf: Shelf) -> None:
        self._node = node
        self._shelf = shelf
        self._contents = Contents(node, shelf)
        self._decisions = Decisions(node)
        self._drafter = Drafter(node.agency, shelf)

    def export(self, order: Order, places: Places, told: Told = lambda _done, _all: None) -> Exported:
        """The file, its note and its manifest are in place, and on record.

        Args:
            told: told (entries written, entries that the partner may see) on the way.

        Raises:
            MalformedError: no such form.
            NotFoundError: no such set, or no such partner now.
            DeniedError: not ours to export, the partner is under test, or policy lets it see nothing of the set so.
            ConflictError: policy, or an entry in the file, has changed meanwhile. Nothing is there.
            ConfigError: one of the files cannot be written, or is there already.
        """
        if order.form not in WRITERS:
            raise MalformedError("the form is not known", remedy=f"the forms are {', '.join(WRITERS)}")
        with (
            new_file(places.file, "file") as file,
            new_file(places.note, "note") as note,
            new_file(places.manifest, "manifest") as manifest,
        ):
            # 1. What the partner may see of each label; on record from here.
            asked, receipts = self._decided(order)
            # 2. What counts now, permitted columns alone, into a draft that nobody else can read.
            written = self._written(order, asked, file, told)
            # 3. What was left out and why; what is in it.
            done, said = self._described(order, asked, receipts, written)
            manifest.write(said)
            note.write(self._note(order, asked, done, written.tally))
            for sink in (file, note, manifest):
                sink.sync()
            # 4. One commit. A crash before it leaves drafts, which nobody takes for a file.
            self._record(order, asked, done)
            # 5. The block's end puts manifest, note and file in place, in this order. A crash before it leaves a leaf
            #    without a file: it tells of more than went out, never of less.
        return done

    # 1. Deciding

    def _decided(self, order: Order) -> tuple[_Asked, dict[int, int]]:
        """What policy says, and the leaf of the decision receipt on each label."""
        with self._node.store.transaction() as tx:
            asked = self._asked(tx, order)
            site = Site(asked.set_id, order.set_name, order.partner, SHARE, asked.policy, order.surface)
            answers = {number: (asked.labels[number][0].digest, right) for number, right in asked.rights.items()}
            self._decisions.record(tx, site, answers)
            kept = tx.policies.decided(asked.set_id, order.partner, str(order.surface), SHARE)
        if not asked.shown:
            raise DeniedError(
                f"policy lets this partner see nothing of this set in a file that is {order.surface}",
                remedy="`gateway policy explain` says why" + ("" if order.sealed else "; --sealed may allow more"),
            )
        return asked, {number: row.leaf for number, row in kept.items()}

    def _asked(self, tx: Transaction, order: Order) -> _Asked:
        row = named_here(self._node, tx, order.partner)
        card, hash_set = card_in(row), tx.sets.get(order.set_name)
        if hash_set.hub or not order.set_name.startswith(f"{self._node.agency}/"):
            raise DeniedError("only sets of our own go out as files; this one is a partner's")
        if not may_move(self._node, row, order.set_name):
            raise DeniedError(
                "this partner is under test: only sets of invented data go to it",
                remedy="their names begin with test-; two administrators lift the test",
            )
        labels = {one.number: (one, stored_label(one)) for one in tx.sets.labels(hash_set.id or 0)}
        who, policy = PartnerRef(card.agency, card.jurisdiction), self._node.policy
        held = {number: LabelInSet(hash_set.name, label) for number, (_, label) in labels.items()}
        return _Asked(hash_set, card.opening, who, labels, policy.table(who, order.surface, held), policy.digest)

    # 2. Writing

    def _written(self, order: Order, asked: _Asked, sink: Sink, told: Told) -> _Written:
        """The file is in its draft."""
        with self._shelf.reading(self._node.store) as tx:
            held = self._contents.held(tx, asked.set_id, asked.labels)
        tally = _counted(held)
        shown = asked.shown
        groups = {number: {GROUP_CODES[group] for group in right.groups} for number, right in shown.items()}
        going = [(row, mask) for row, mask in held if row.label in shown]
        writer = WRITERS[order.form](self._options(order, asked))
        total = sum(tally.entries[number] for number in shown)

        def batches() -> Iterator[Batch]:
            done = 0
            for row, rows in self._contents.rows(going, groups):
                done += rows.n
                if fits(writer, rows):
                    tally.written[row.label] += rows.n
                    yield from _batches(rows, asked.labels[row.label][1], shown[row.label])
                told(done, total)

        made = pieces(writer, batches())
        if order.sealed:
            age.encrypt(asked.opening, Pulled(made), sink, self._node.random)
        else:
            for piece in made:
                sink.write(piece)
        return _Written(tally, writer.not_carried, sink.size, sink.digest)

    def _options(self, order: Order, asked: _Asked) -> WriteOptions:
        return WriteOptions(
            set_name=order.set_name,
            jurisdiction=self._node.settings.jurisdiction,
            created=asked.hash_set.created,
            bundle=new_message_id(self._node.random),
            category_scheme=order.category_scheme,
        )

    # 3. Saying what was left out, and what is there

    def _described(
        self, order: Order, asked: _Asked, receipts: Mapping[int, int], written: _Written
    ) -> tuple[Exported, bytes]:
        """The totals, and the signed manifest."""
        tally = written.tally
        lines = self._lines(order, asked, receipts, tally)
        withheld = Counter[str]()
        for _, absent in lines:
            withheld.update(absent)
        told = {duty for number, right in asked.rights.items() if tally.written[number] for duty in right.obligations}
        entries = tally.written.total()
        counts: dict[str, object] = {
            "entries": entries,
            "left_out": tally.entries.total() - entries,
            "withheld": dict(withheld),
            "not_carried": dict(written.not_carried),
        }
        head: dict[str, object] = {
            "exporter": self._node.agency,
            "recipient": order.partner,
            "recipient_keys": [key.key_id for key in asked.opening] if order.sealed else [],
            "set": order.set_name,
            "epoch": asked.hash_set.epoch,
            "seq": asked.hash_set.seq,
            "form": order.form,
            "category_scheme": order.category_scheme,
            "surface": str(order.surface),
            "policy": asked.policy,
            "created": self._node.clock(),
            "size": written.size,
            "sha256": written.digest,
            **counts,
        }
        said = dump_manifest(head, [line for line, _ in lines], self._node.keystore.signing_key)
        done = Exported(
            entries=entries,
            left_out=tally.entries.total() - entries,
            withheld=dict(withheld),
            not_carried=dict(written.not_carried),
            size=written.size,
            digest=written.digest,
            manifest_digest=sha256(said).hexdigest(),
            policy=asked.policy,
            duties=tuple(sorted(map(str, told))),
        )
        return done, said

    def _lines(
        self, order: Order, asked: _Asked, receipts: Mapping[int, int], tally: _Tally
    ) -> list[tuple[dict[str, object], dict[str, int]]]:
        """What the manifest says of each label that has entries, with of how many each group was left out."""
        denied = self._denials(order, asked)
        lines = []
        for number in sorted(tally.entries):
            (row, label), right = asked.labels[number], asked.rights[number]
            having = {group: tally.having[number, GROUP_CODES[FieldGroup(group)]] for group in sorted(denied[number])}
            absent = {group: count for group, count in having.items() if count}
            line: dict[str, object] = {
                "label": row.digest.hex(),
                "attributes": label.to_json(),
                "entries": tally.entries[number],
                "written": tally.written[number],
                "groups": sorted(map(str, right.groups)),
                "permits": sorted(right.permits),
                "withheld": [{"group": one, "entries": count, **denied[number][one]} for one, count in absent.items()],
                "obligations": [str(duty) for duty in right.obligations],
                "receipt": receipts[number],
            }
            lines.append((line, absent))
        return lines

    def _denials(self, order: Order, asked: _Asked) -> dict[int, dict[str, dict[str, object]]]:
        """By label and field group that is withheld: the rules that say so, and the reason."""
        numbers = sorted(asked.labels)
        held = tuple(LabelInSet(order.set_name, asked.labels[number][1]) for number in numbers)
        questions = tuple(Question(Action.share(group)) for group in ENTRY_GROUPS)
        found: dict[int, dict[str, dict[str, object]]] = {}
        rows = self._node.policy.decide_all(Grid((asked.who,), order.surface, held, questions))
        for number, decisions in zip(numbers, rows, strict=True):
            pairs = zip(ENTRY_GROUPS, decisions, strict=True)
            groups = asked.rights[number].groups
            found[number] = {str(group): _because(one) for group, one in pairs if group not in groups}
        return found

    def _note(self, order: Order, asked: _Asked, done: Exported, tally: _Tally) -> bytes:
        """What the recipient is told: what is there, and nothing of what is not."""
        codes = {str(asked.labels[number][1].handling) for number, count in tally.written.items() if count}
        said: dict[str, object] = {
            "exporter": self._node.agency,
            "recipient": order.partner,
            "set": order.set_name,
            "form": order.form,
            "category_scheme": order.category_scheme if order.form == "vics" else "",
            "sealed": order.sealed,
            "created": self._node.clock(),
            "entries": done.entries,
            "handling": sorted(codes),
            "duties": list(done.duties),
            "size": done.size,
            "sha256": done.digest,
        }
        return dump_note(said, self._node.keystore.signing_key)

    # 4. On record

    def _record(self, order: Order, asked: _Asked, done: Exported) -> None:
        with self._node.store.transaction() as tx:
            now = self._asked(tx, order)
            if not asked.allows_the_same(now):
                raise ConflictError("what this partner may see has changed while the file was written", remedy=AGAIN)
            served = ServedSet(now.hash_set, order.partner, View({}), now.labels, now.rights)
            end = Cursor(asked.hash_set.epoch, NO_VIEW, asked.hash_set.seq)
            if self._drafter.is_outdated(tx, served, seq=asked.hash_set.seq, end=end):
                raise ConflictError("entries were replaced or withdrawn while the file was written", remedy=AGAIN)
            details: dict[str, object] = {
                "set": order.set_name,
                "partner": order.partner,
                "form": order.form,
                "surface": str(order.surface),
                "policy": done.policy,
                "epoch": asked.hash_set.epoch,
                "seq": asked.hash_set.seq,
                "entries": done.entries,
                "left_out": done.left_out,
                "labels": len(asked.shown),
                "withheld": dict(done.withheld),
                "size": done.size,
                "digest": done.digest,
                "manifest_digest": done.manifest_digest,
            }
            event = self._node.event(
                EventKind.FILE_EXPORTED, actor=self._node.agency, subject=order.set_name, details=details
            )
            tx.log.append([event])


def _counted(held: list[tuple[BlockRow, Mask]]) -> _Tally:
    """How many entries there are under each label, and how many of them have anything in each field group."""
    tally = _Tally()
    for row, mask in held:
        count = int(mask.sum())
        tally.entries[row.label] += count
        for part in stored_header(row).parts:
            tally.having[row.label, part.group] += count
    return tally


def _batches(rows: Rows, label: Label, right: LabelRights) -> Iterator[Batch]:
    """Rows under one label, a few at a time, with their label as it is shown."""
    attributes, duties = shown_attributes(label, right.groups), [str(duty) for duty in right.obligations]
    for start in range(0, rows.n, AT_ONCE):
        some = rows.slice(start, start + AT_ONCE)
        yield Batch(some, attributes, duties, [format_entry(one) for one in some.ints("entry_id").tolist()])


def _because(decision: Decision) -> dict[str, object]:
    return {"reason": str(decision.reason), "rules": list(decision.rule_ids)}
