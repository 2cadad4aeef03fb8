"""Tables of categories in force: brought in under four eyes, in rising versions, bound to the log.

What a partner calls a category of its own scheme is shown beside what it is in ours, never in its place. Whether a
program may act on an entry of that category, `quality` says.

Contract: contracts/category-mapping-1.md; decision 0024.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence

from gateway import categories, standing
from gateway.approvals import Act, Arguments, Change
from gateway.audit import EventKind
from gateway.categories import CategoryTable, Mapped
from gateway.errors import AuditBrokenError, ConflictError
from gateway.model import require, text_member
from gateway.node import Node
from gateway.partners import length_prefixed
from gateway.store import Transaction
from gateway.store import tables as rows

_ROW = "category table row 1"
MAX_SHOWN = 40  # changes of codes that are shown before signing; the file has all of them


class Categories:
    """What the tables in force say, kept while they are. Safe for threads."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._kept: tuple[frozenset[str], tuple[CategoryTable, ...]] | None = None
        self._following = threading.Lock()

    def in_force(self, tx: Transaction) -> tuple[CategoryTable, ...]:
        """The newest table of each scheme.

        Raises:
            AuditBrokenError: one is not as it was signed, or not the one of the log.
        """
        held = tx.categories.in_force()
        digests = frozenset(one.digest for one in held)
        with self._following:
            if self._kept is None or self._kept[0] != digests:
                standing.check_tables(tx, self._node)
                self._kept = digests, tuple(verified(self._node, one) for one in held)
            return self._kept[1]

    def mapped(self, tx: Transaction, category: str) -> Mapped | None:
        """What a category is in our scheme; None where no table says it."""
        return categories.mapped(category, self.in_force(tx))


def verified(node: Node, row: rows.CategoryTable) -> CategoryTable:
    """The table of a row, as it was signed; AuditBrokenError where somebody else wrote it."""
    digest = hashlib.sha256(row.content.encode()).hexdigest()
    if (row.mac, row.digest) != (_mac(node, row), digest):
        error = AuditBrokenError("a table of categories is not as it was signed")
        error.remedy = "stop the gateway, keep everything as it is, and run `gateway audit verify`"
        raise error
    return categories.parse(row.content)


def activate(text: str) -> tuple[str, Arguments]:
    """The act that brings a table into force; MalformedError where it is none."""
    categories.parse(text)
    return "category_table_activate", {"content": text}


def _activate(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    text, table = _argued(arguments)
    before = _before(tx, node, table)
    if before is not None and before.version >= table.version:
        raise ConflictError(
            "this version of the table, or a newer one, is in force already", remedy="give it a higher version"
        )
    row = rows.CategoryTable(
        digest=table.digest,
        scheme=table.scheme,
        version=table.version,
        content=text,
        activated=node.clock(),
        proposal=proposal,
        mac=b"",
    )
    row.mac = _mac(node, row)
    tx.categories.add(row)
    details: dict[str, object] = {
        "scheme": table.scheme,
        "version": table.version,
        "table": table.digest,
        "previous": before.digest if before else "",
        "proposal": proposal,
    }
    kind = EventKind.CATEGORY_TABLE_ACTIVATED
    tx.log.append([node.event(kind, actor=node.agency, subject=table.scheme, details=details)])


def _before(tx: Transaction, node: Node, table: CategoryTable) -> CategoryTable | None:
    return next((verified(node, row) for row in tx.categories.in_force() if row.scheme == table.scheme), None)


def _difference(tx: Transaction, node: Node, arguments: Arguments) -> Sequence[Change]:
    _, table = _argued(arguments)
    before = _before(tx, node, table)
    held = before.codes if before else {}
    changes = [
        Change(f"{table.scheme}:{code}", _words(held.get(code)), _words(table.codes.get(code)))
        for code in sorted({*held, *table.codes})
        if held.get(code) != table.codes.get(code)
    ]
    more = len(changes) - MAX_SHOWN
    rest = [Change(f"{more} more codes", "", "the file has them")] if more > 0 else []
    name = Change(f"table {table.scheme}", before.name if before else "", f"{table.name}, {table.reviewed_by}")
    return [name, *changes[:MAX_SHOWN], *rest]


def _words(code: tuple[str, categories.Relation] | None) -> str:
    if code is None:
        return "unmapped"
    return f"{code[0]} ({code[1]})" if code[0] else "none"


def _subject(arguments: Arguments) -> str:
    return f"categories of {_argued(arguments)[1].name}"


def _argued(arguments: Arguments) -> tuple[str, CategoryTable]:
    require(set(arguments) == {"content"}, "a guarded act with other arguments than it takes")
    text = text_member(dict(arguments), "content")
    return text, categories.parse(text)


def _mac(node: Node, row: rows.CategoryTable) -> bytes:
    words = (row.digest, row.scheme, str(row.version), row.proposal, str(row.activated))
    return node.keystore.row_mac(length_prefixed(_ROW, *words))


CATEGORY_ACTS: Mapping[str, Act] = {
    "category_table_activate": Act("bring a table of categories into force", _subject, _activate, _difference),
}
