"""Guarded acts: what waits for signatures, what it would change, and signing it with a passkey."""

from __future__ import annotations

from gateway.approvals import DONE, OPEN, Change
from gateway.cases.acts import CASE_ACTS
from gateway.cases.merging import SERIES_ACTS
from gateway.console.pages import (
    ADMINISTRATORS,
    READERS_OF_THE_LOG,
    Answer,
    Data,
    Desk,
    Page,
    Redirect,
    Route,
    Visit,
    post,
)
from gateway.console.pages import get as look
from gateway.crypto import canonical, passkeys
from gateway.crypto.passkeys import MAX_RESPONSE_BYTES
from gateway.errors import ConflictError, DeniedError, NotFoundError
from gateway.signin import Role
from gateway.standing import roster

# What these would change is told in words of cases and names of series: they are for those who sign.
OF_CASES = frozenset({*CASE_ACTS, *SERIES_ACTS})
SHOWN_CLOSED = 50  # the newest; the log has them all


def approvals(desk: Desk, _visit: Visit) -> Answer:
    """What waits, and what was decided lately."""
    found = desk.approvals.all()
    closed = [one for one in found if one.state != OPEN]
    values = {"open": [one for one in found if one.state == OPEN], "closed": closed[:SHOWN_CLOSED]}
    return Page("approvals.html", values)


def approval(desk: Desk, visit: Visit) -> Answer:
    """One proposal: who wants what, what it would change, who has signed."""
    proposal = desk.approvals.get(visit.path["id"])
    if proposal.id != visit.path["id"]:
        raise NotFoundError("no such proposal")
    session = visit.session
    with desk.node.store.reading() as tx:
        own = roster(tx, desk.node).passkeys.get(session.person, ())
    may_sign = proposal.state == OPEN and Role.ADMINISTRATOR in session.roles and session.person not in proposal.signers
    for_signers = proposal.act in OF_CASES and Role.ADMINISTRATOR not in session.roles
    changes: list[Change] = []
    outdated = ""
    if not for_signers:
        try:
            changes = desk.approvals.difference(proposal.id)
        except (ConflictError, NotFoundError, DeniedError) as error:
            outdated = error.message  # it can be done no more; whoever proposed it still withdraws it from here
    values = {
        "proposal": proposal,
        "for_signers": for_signers,
        "outdated": outdated,
        "changes": changes,
        "may_sign": may_sign,
        "has_signing_passkey": bool(own),
        "arguments": {name: _shown(value) for name, value in sorted(proposal.arguments.items())},
    }
    return Page("approval.html", values)


def begin_signature(desk: Desk, visit: Visit) -> Answer:
    """What the browser needs to sign exactly this proposal."""
    proposal = desk.approvals.get(visit.path["id"])
    with desk.node.store.reading() as tx:
        own = roster(tx, desk.node).passkeys.get(visit.session.person, ())
    if not own:
        raise NotFoundError(
            "no passkey of yours signs proposals", remedy="ask the administrators on your own page to add it"
        )
    allowed = [one.passkey.credential for one in own]
    challenge = desk.approvals.challenge(proposal.id)
    return Data({"publicKey": passkeys.request_options(desk.signin.party, challenge, allowed=allowed)})


def sign(desk: Desk, visit: Visit) -> Answer:
    """The signature is added; with enough of them the act is done."""
    response = canonical.parse_json(visit.filled("response").encode(), max_bytes=4 * MAX_RESPONSE_BYTES)
    assertion = passkeys.parse_assertion(response)
    signed = desk.approvals.sign_with_passkey(visit.path["id"], visit.session.person, assertion)
    return Data({"to": f"/approvals/{signed.id}?said={'acted' if signed.state == DONE else 'signed'}"})


def withdraw(desk: Desk, visit: Visit) -> Answer:
    """Whoever proposed it has thought again."""
    desk.approvals.withdraw_as(visit.path["id"], visit.session.person, visit.session.key_id)
    return Redirect(f"/approvals/{visit.path['id']}", "withdrawn")


def _shown(value: object) -> str:
    """An argument as people read it: long ones cut, since what they mean stands in what would change."""
    text = value if isinstance(value, str) else canonical.encode(value).decode()
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text):,} characters)"


ROUTES: tuple[Route, ...] = (
    look("/approvals", approvals, READERS_OF_THE_LOG),
    look("/approvals/{id}", approval, READERS_OF_THE_LOG),
    post("/approvals/{id}/begin", begin_signature, ADMINISTRATORS),
    post("/approvals/{id}/sign", sign, ADMINISTRATORS),
    post("/approvals/{id}/withdraw", withdraw, ADMINISTRATORS, guarded=True),
)
