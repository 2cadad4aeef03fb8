"""Why an entry went or did not (`policy explain --entry`), and receipts decided again (`policy receipt`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.judging import policy_app
from gateway.cli.shell import Shell, amount, command, plain, when
from gateway.errors import AuditBrokenError, NotFoundError

if TYPE_CHECKING:
    from gateway.exchange.decisions import DecidedAgain

SAID = ("outcome", "groups", "rules", "obligations")


@command(policy_app, "receipt")
def policy_receipt(
    shell: Shell,
    leaf: Annotated[int | None, typer.Argument(help="The leaf of a decision receipt; by default every one.")] = None,
) -> None:
    """Decide a decision receipt again, by the policy that it names and as of its day, and say whether it is the same.

    Exit 10 if one is not what policy says. Where a label is no longer here (a mirror began anew) it cannot be decided.
    """
    from gateway.exchange.decisions import Judge  # noqa: PLC0415  the exchange is slow to import

    told: list[DecidedAgain] = []
    lost = 0
    with shell.node() as node, node.store.reading() as tx:
        judge = Judge(tx)
        for one in judge.receipts() if leaf is None else [leaf]:
            try:
                told.append(judge.decide_again(one))
            except NotFoundError:
                if leaf is not None:
                    raise
                lost += 1
    differing = [one for one in told if not one.same]
    if leaf is not None:
        _show_one(shell, told[0])
    else:
        shell.show(
            {"receipts": len(told) + lost, "same": len(told) - len(differing), "undecided": lost}
            | {"different": [one.leaf for one in differing]},
            f"{amount(len(told) + lost, 'receipt')}: {len(told) - len(differing):,} decided again as they say, "
            f"{lost:,} of labels that are no longer here, {len(differing):,} otherwise",
        )
    if differing:
        raise AuditBrokenError("a decision receipt does not say what its policy says", index=differing[0].leaf)


def explain_entry(shell: Shell, named: str, partner: str, set_name: str) -> None:
    """Say in one sentence each why the entries of this name went to a partner, or did not."""
    from gateway.cli.sets import file_value  # noqa: PLC0415  as above
    from gateway.exchange import Exchange  # noqa: PLC0415  as above

    with shell.node() as node:
        full = set_name if not set_name or "/" in set_name else f"{node.agency}/{set_name}"
        found = Exchange(node).storyteller.explain(named, partner, set_name=full)
    rows = [
        {
            "set": one.set_name,
            "entry": one.entry,
            "partner": one.partner,
            "listed": one.listed,
            "allowed": one.allowed,
            "holds": one.holds,
            "stands": one.stands,
            "seq": one.seq,
            "sent": list(one.sent),
            "receipt": one.receipt,
            "rules": list(one.rules),
            "sentence": one.sentence,
            "files": [file_value(file) for file in one.files],
        }
        for one in found
    ]
    if shell.as_json:
        shell.show(rows)
        return
    for one in found:
        shell.show(None, plain(one.sentence))
        if one.receipt is not None:
            shell.show(None, f"  decided on record: leaf {one.receipt} (gateway policy receipt {one.receipt})")


def _show_one(shell: Shell, one: DecidedAgain) -> None:
    members = {"leaf": one.leaf, "at": one.at, "receipt": dict(one.details), "again": dict(one.again), "same": one.same}
    lines = [f"  {name:<12} {plain(_listed(one.details.get(name)))}" for name in SAID]
    if not one.same:
        lines += [f"  {name:<12} {plain(_listed(one.again.get(name)))}   (decided again)" for name in SAID]
    about = f"{one.details['action']} {one.details['set']}, {one.details['partner']}"
    shell.show(
        members,
        f"{when(one.at)}  {plain(about)}",
        *lines,
        f"  policy       {plain(str(one.details['policy']))}",
        "Decided again: the same." if one.same else "Decided again: DIFFERENT.",
    )


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) or "-" if isinstance(value, list) else str(value)
