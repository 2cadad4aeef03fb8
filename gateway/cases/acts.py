"""The guarded acts about cases: what goes to a partner or to the public only when two people have seen exactly that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.approvals import Act, Arguments, Change
from gateway.cases import alerts
from gateway.cases.keeping import Casebook
from gateway.cases.referring import ACT, Referrals, arguments_of
from gateway.cases.talking import Talk
from gateway.mailbox import Mailbox
from gateway.node import Node
from gateway.store import Transaction


def _referrals(node: Node) -> Referrals:
    book = Casebook(node)
    return Referrals(node, book, Talk(node, Mailbox(node), book))


def _refer_subject(arguments: Arguments) -> str:
    case, partner, _, _, _ = arguments_of(arguments)
    return f"{case} to {partner}"


def _refer(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    _referrals(node).refer_approved(tx, arguments, proposal)


def _refer_difference(tx: Transaction, node: Node, arguments: Arguments) -> Sequence[Change]:
    shown, note = _referrals(node).proposed(tx, arguments)
    partner = shown.partner
    going = [str(one.group) for one in shown.groups if one.goes]
    staying = [str(one.group) for one in shown.groups if not one.goes]
    return [
        Change(f"{partner} gets of the case", "", ", ".join(going) or "nothing"),
        Change(f"{partner} does not get", "", ", ".join(staying) or "nothing is withheld"),
        Change("for the purpose", "", str(shown.purpose)),
        Change("under the duties", "", ", ".join(shown.obligations) or "none"),
        *([Change("with the note", "", note)] if note else []),
    ]


def _alert_subject(arguments: Arguments) -> str:
    case, form, _ = alerts.arguments_of(arguments)
    return f"{case} to the public, as {form}"


def _alert(tx: Transaction, node: Node, arguments: Arguments, proposal: str) -> None:
    alerts.Alerts(node, Casebook(node)).approve(tx, arguments, proposal)


def _alert_difference(tx: Transaction, node: Node, arguments: Arguments) -> Sequence[Change]:
    raw = alerts.Alerts(node, Casebook(node)).proposed(tx, arguments)
    return [Change("the public reads", "", raw.decode())]


CASE_ACTS: Mapping[str, Act] = {
    ACT: Act("refer a case to a partner", _refer_subject, _refer, _refer_difference),
    alerts.ACT: Act("show a person of interest to the public", _alert_subject, _alert, _alert_difference),
}
