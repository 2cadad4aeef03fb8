"""Signing in and out, invitations, one's own passkeys and sessions, and the people of the console."""

from __future__ import annotations

import re

from gateway.console.pages import (
    ADMINISTRATORS,
    EVERY_ROLE,
    Answer,
    Data,
    Desk,
    Page,
    Redirect,
    Route,
    SignedIn,
    SignedOut,
    Visit,
    get,
    post,
)
from gateway.crypto import canonical
from gateway.crypto.passkeys import MAX_RESPONSE_BYTES
from gateway.errors import GatewayError
from gateway.passkeyacts import add_passkey
from gateway.signin import Role
from gateway.standing import roster

# Where to go after signing in: an address of this console, never another host's ("//evil.example" is one).
_LOCAL = re.compile(r"/(?![/\\])[A-Za-z0-9._~:/%-]{0,500}")


# Signing in


def sign_in(_desk: Desk, visit: Visit) -> Answer:
    """The way in."""
    if visit.someone is not None:
        return Redirect("/")
    return Page("sign_in.html", {"to": _local(visit.query.get("to", "/"))})


def begin(desk: Desk, _visit: Visit) -> Answer:
    """What the browser needs to sign somebody in."""
    return Data({"publicKey": desk.signin.begin()})


def complete(desk: Desk, visit: Visit) -> Answer:
    """A session for whoever's passkey signed."""
    begun = desk.signin.sign_in(_response(visit), peer=visit.peer, agent=visit.agent)
    return SignedIn(begun.cookie, _local(visit.form.get("to", "/")))


def sign_out(desk: Desk, visit: Visit) -> Answer:
    """The end of this session."""
    desk.signin.sign_out(visit.session)
    return SignedOut()


def begin_step_up(desk: Desk, visit: Visit) -> Answer:
    """What the browser needs to prove that it is the same person."""
    return Data({"publicKey": desk.signin.begin_step_up(visit.session)})


def step_up(desk: Desk, visit: Visit) -> Answer:
    """It is the same person."""
    desk.signin.step_up(visit.session, _response(visit))
    return Data({"to": _local(visit.form.get("to", "/"))})


# Invitations


def invitation(desk: Desk, visit: Visit) -> Answer:
    """What an invitation is for."""
    token = visit.path["token"]
    try:
        found = desk.signin.invitation(token)
    except GatewayError as error:
        return Page("error.html", _gone(error), status=404)
    return Page("invitation.html", {"invitation": found, "token": token})


def begin_registration(desk: Desk, visit: Visit) -> Answer:
    """What the browser needs to make the passkey of an invitation."""
    return Data({"publicKey": desk.signin.begin_registration(visit.path["token"])})


def accept(desk: Desk, visit: Visit) -> Answer:
    """The invitation is taken up."""
    label = visit.form.get("label", "")
    begun = desk.signin.accept(visit.path["token"], label, _response(visit), peer=visit.peer, agent=visit.agent)
    return SignedIn(begun.cookie)


# One's own account


def me(desk: Desk, visit: Visit) -> Answer:
    """One's own passkeys and sessions."""
    session = visit.session
    people = {one.name: one for one in desk.signin.people()}
    with desk.node.store.reading() as tx:
        signing = {one.passkey.key_id for one in roster(tx, desk.node).passkeys.get(session.person, ())}
    values = {
        "person": people[session.person],
        "sessions": desk.signin.sessions(session.person),
        "signing": signing,
    }
    return Page("me.html", values)


def begin_passkey(desk: Desk, visit: Visit) -> Answer:
    """What the browser needs to make a further passkey."""
    return Data({"publicKey": desk.signin.begin_passkey(visit.session)})


def add(desk: Desk, visit: Visit) -> Answer:
    """A further passkey is registered."""
    desk.signin.add_passkey(visit.session, visit.form.get("label", ""), _response(visit))
    return Data({"to": "/me?said=done"})


def drop(desk: Desk, visit: Visit) -> Answer:
    """A passkey is forgotten."""
    desk.signin.drop_passkey(visit.session, visit.filled("key_id"))
    return Redirect("/me", "removed")


def propose_signing(desk: Desk, visit: Visit) -> Answer:
    """The passkey of this session is proposed to sign for its administrator."""
    act, arguments = add_passkey(visit.session.person, desk.signin.signing_passkey(visit.session))
    identifier = desk.approvals.propose(act, arguments, by=visit.session.person)
    return Redirect(f"/approvals/{identifier}", "proposed")


def end_own(desk: Desk, visit: Visit) -> Answer:
    """A session of one's own is ended."""
    session = visit.session
    desk.signin.end_session(visit.filled("session"), by=session.person, person=session.person)
    return SignedOut() if visit.form["session"] == session.id else Redirect("/me", "ended")


# People


def people(desk: Desk, _visit: Visit) -> Answer:
    """Everybody who may use the console, and who is signed in."""
    values = {"people": desk.signin.people(), "sessions": desk.signin.sessions(), "waiting": desk.signin.waiting()}
    return Page("people.html", {**values, "link": ""})


def invite(desk: Desk, visit: Visit) -> Answer:
    """Somebody is invited: the link is shown once."""
    roles = [role for role in Role if visit.form.get(f"role_{role}")]
    token = desk.signin.invite(visit.filled("name"), roles, by=visit.session.person)
    values = {"people": desk.signin.people(), "sessions": desk.signin.sessions(), "waiting": desk.signin.waiting()}
    return Page("people.html", {**values, "link": f"{desk.node.settings.console_url}/invitation/{token}"})


def end_person(desk: Desk, visit: Visit) -> Answer:
    """Somebody may use the console no more."""
    desk.signin.end_person(visit.filled("person"), by=visit.session.person)
    return Redirect("/people", "ended")


def end_session(desk: Desk, visit: Visit) -> Answer:
    """Somebody's session is ended."""
    desk.signin.end_session(visit.filled("session"), by=visit.session.person)
    return Redirect("/people", "ended")


def _response(visit: Visit) -> object:
    return canonical.parse_json(visit.filled("response").encode(), max_bytes=4 * MAX_RESPONSE_BYTES)


def _local(address: str) -> str:
    return address if _LOCAL.fullmatch(address) else "/"


def _gone(error: GatewayError) -> dict[str, object]:
    return {
        "title": "This invitation does not work",
        "message": error.message,
        "remedy": error.remedy,
        "step_up": False,
    }


ROUTES: tuple[Route, ...] = (
    get("/sign-in", sign_in, None),
    post("/sign-in/begin", begin, None),
    post("/sign-in/complete", complete, None),
    post("/sign-out", sign_out, EVERY_ROLE),
    post("/step-up/begin", begin_step_up, EVERY_ROLE),
    post("/step-up/complete", step_up, EVERY_ROLE),
    get("/invitation/{token}", invitation, None),
    post("/invitation/{token}/begin", begin_registration, None),
    post("/invitation/{token}/complete", accept, None),
    get("/me", me, EVERY_ROLE),
    post("/me/passkeys/begin", begin_passkey, EVERY_ROLE, guarded=True),
    post("/me/passkeys/complete", add, EVERY_ROLE, guarded=True),
    post("/me/passkeys/remove", drop, EVERY_ROLE, guarded=True),
    post("/me/passkeys/sign", propose_signing, ADMINISTRATORS, guarded=True),
    post("/me/sessions/end", end_own, EVERY_ROLE),
    get("/people", people, ADMINISTRATORS),
    post("/people/invite", invite, ADMINISTRATORS, guarded=True),
    post("/people/end", end_person, ADMINISTRATORS, guarded=True),
    post("/people/sessions/end", end_session, ADMINISTRATORS, guarded=True),
)
