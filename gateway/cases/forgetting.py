"""Erasing by order reaches what assertions and messages about them say: digests that were erased go from there as well.

Marks stay: they tell nobody which material it was, and by them a search that is over stays over. A certificate that was
handed out stays, too: a court relies on it, and the order that erases it names the court.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from gateway.cases import lines
from gateway.cases.subjects import Kept
from gateway.columns.rows import Rows
from gateway.exchange.neveragain import Marker
from gateway.mailbox import Mailbox
from gateway.model import CRYPTOGRAPHIC
from gateway.node import Node
from gateway.statusmail import ASSERTION, NOTICE
from gateway.store import Transaction
from gateway.store.tables import MailIn, MailOut

Pair = tuple[str, bytes]


def forget(node: Node, tx: Transaction, erased: Collection[bytes]) -> int:
    """Digests with these marks of the never-again list stand in no assertion and no message about one; how many did."""
    return _from_assertions(node, tx, erased) + _from_messages(node, tx, erased)


def _from_assertions(node: Node, tx: Transaction, erased: Collection[bytes]) -> int:
    count = 0
    for row in tx.statuses.all(node.agency):
        line = lines.opened(node, row)
        if line.subject is None:
            continue
        gone = set(_erased(node, line.subject.digests, erased))
        if gone:
            kept = tuple(_without(one, gone) for one in line.subject.kept)
            lines.put(node, tx, replace(line, subject=replace(line.subject, kept=kept)))
            count += len(gone)
    return count


def _without(kept: Kept, gone: Collection[Pair]) -> Kept:
    digests = tuple(pair for pair in kept.material.digests if pair not in gone)
    return replace(kept, material=replace(kept.material, digests=digests))


def _from_messages(node: Node, tx: Transaction, erased: Collection[bytes]) -> int:
    mailbox, count = Mailbox(node), 0
    mail: list[MailIn | MailOut] = [*tx.mail.incoming(), *tx.mail.sent_mail()]
    for row in mail:
        if row.kind not in (ASSERTION, NOTICE):
            continue
        body = mailbox.read(row)
        pairs = dict(_pairs(body.get("digests")))
        gone = set(_erased(node, list(pairs), erased))
        if gone:
            body["digests"] = [one for pair, one in pairs.items() if pair not in gone]
            mailbox.rewrite(tx, row, body)
            count += len(gone)
    return count


def _pairs(value: object) -> Iterator[tuple[Pair, object]]:
    """The digests of a message, each as it stands there. What a partner sent may be anything."""
    for one in value if isinstance(value, list) else ():
        if isinstance(one, list) and len(one) == 2 and one[0] in CRYPTOGRAPHIC and isinstance(one[1], str):
            try:
                yield (one[0], bytes.fromhex(one[1])), one
            except ValueError:
                continue


def _erased(node: Node, pairs: Collection[Pair], erased: Collection[bytes]) -> Iterator[Pair]:
    """Those whose mark on the never-again list is one of these."""
    marker = Marker(node.keystore)
    for name in CRYPTOGRAPHIC:
        values = sorted({value for algorithm, value in pairs if algorithm == name})
        widths = {len(value) for value in values}
        if len(widths) != 1:
            continue  # none, or what no honest gateway sends
        rows = Rows.of(len(values), {name: values})
        for value, mark in zip(values, marker.column(name, rows.octets(name)), strict=True):
            if mark.tobytes() in erased:
                yield name, value
