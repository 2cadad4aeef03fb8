"""The console over HTTP: who may come where, what a page of another site can do, what every answer carries."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from authenticator import Authenticator, challenge_in
from console_browser import console_node, serving_console
from console_client import Client
from factory import events
from gateway.audit import EventKind
from gateway.console import ROUTES
from gateway.console.pages import Route
from gateway.exchange import Exchange
from gateway.keyadmin import approvals
from gateway.node import Node
from gateway.signin import Role, SignIn

PEOPLE = {"alice": Role.ADMINISTRATOR, "dora": Role.ANALYST, "otto": Role.AUDITOR}


class Served:
    """A console that listens, and a client for each role."""

    def __init__(self, exchange: Exchange, address: str) -> None:
        self.exchange = exchange
        self.node: Node = exchange.node
        self.address = address
        self.signin = SignIn(exchange.node)
        self.keys: dict[str, Authenticator] = {}
        self.clients: dict[str, Client] = {}

    def as_(self, name: str) -> Client:
        if name not in self.keys:
            self.keys[name] = Authenticator(name, origin=self.address)
            token = self.signin.invite(name, [PEOPLE[name]], by="alice")
            made = self.keys[name].create(challenge_in(self.signin.begin_registration(token)))
            self.signin.accept(token, "a key", made, peer="127.0.0.1", agent="tests")
        if name not in self.clients:
            signed = self.keys[name].get(challenge_in(self.signin.begin()))
            begun = self.signin.sign_in(signed, peer="127.0.0.1", agent="tests")
            self.clients[name] = Client(self.address, begun.cookie, begun.session.form_token)
        return self.clients[name]

    @property
    def stranger(self) -> Client:
        return Client(self.address)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    node = console_node(tmp_path_factory.mktemp("console"), administrators=("alice", "bob"))
    exchange = Exchange(node)
    with serving_console(exchange) as address:
        yield Served(exchange, address)


def example(route: Route) -> str:
    """An address of this route, with made-up parts."""
    return re.sub(r"\{\w+\}", "0123456789abcdef", route.path)


GUARDED = [route for route in ROUTES if route.roles is not None]


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: f"{route.method} {route.path}")
def test_every_address_lets_in_its_roles_and_looks_empty_to_others(served: Served, route: Route) -> None:
    assert route.roles is not None
    for name, role in PEOPLE.items():
        client = served.as_(name)
        status = client.ask(route.method, example(route)).status
        absent = client.ask(route.method, "/no/such/address").status
        assert absent == 404
        if role not in route.roles:
            assert status == 404, f"{name} got {status}"
        else:
            assert status not in (401, 403, 405, 500), f"{name} got {status}"
        if route.path == "/sign-out":
            del served.clients[name]
    answer = served.stranger.ask(route.method, example(route))
    assert answer.status == (303 if route.method == "GET" else 401)
    if route.method == "GET":
        assert answer.headers["Location"].startswith("/sign-in?to=")


@pytest.mark.parametrize("route", [one for one in GUARDED if one.method == "POST"], ids=lambda route: route.path)
def test_a_form_of_another_site_or_session_does_nothing(served: Served, route: Route) -> None:
    assert route.roles is not None
    name = next(name for name, role in PEOPLE.items() if role in route.roles)
    client, path = served.as_(name), example(route)
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": None},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert client.ask("POST", path, headers=headers).status == 403, headers
    assert client.ask("POST", path, form_token="0" * 64).status == 403
    assert client.ask("POST", path, form_token="").status == 403
    other = served.as_("dora" if name != "dora" else "otto")
    assert client.ask("POST", path, form_token=other.form_token).status == 403


def test_every_answer_forbids_framing_foreign_code_and_guessing(served: Served) -> None:
    alice = served.as_("alice")
    answers = [alice.ask("GET", "/"), alice.ask("GET", "/nothing"), served.stranger.ask("GET", "/sign-in")]
    answers.append(served.stranger.ask("GET", "/"))
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Server" not in answer.headers


def test_no_page_holds_inline_code_or_a_foreign_address(served: Served) -> None:
    for name, role in PEOPLE.items():
        for route in ROUTES:
            if route.method == "GET" and "{" not in route.path and (route.roles is None or role in route.roles):
                text = served.as_(name).ask("GET", route.path).text
                assert not re.search(r"<script(?![^>]*\ssrc=)|\son\w+=|\sstyle=|javascript:", text), route.path
                assert not re.search(r"""(?:src|href|action)=["'](?:https?:)?//""", text), route.path


def test_the_cookie_is_bound_to_this_host_and_out_of_reach_of_scripts(served: Served) -> None:
    served.as_("dora")
    stranger = served.stranger
    options = stranger.ask("POST", "/sign-in/begin").json()["publicKey"]
    signed = served.keys["dora"].get(challenge_in(options))
    answer = stranger.ask("POST", "/sign-in/complete", response=signed, to="//evil.example/")
    assert answer.status == 200
    assert answer.json() == {"to": "/"}
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-gateway-session=")
    for word in ("Secure", "HttpOnly", "SameSite=Strict", "Path=/"):
        assert word in cookie
    assert "Domain" not in cookie


def test_a_refused_sign_in_says_nothing_and_stands_in_the_log(served: Served) -> None:
    served.node.clock.advance(61)  # type: ignore[attr-defined]  # what one address is refused in one minute is bounded
    before = len(events(served.node, EventKind.CONSOLE_REFUSED))
    stranger = served.stranger
    options = stranger.ask("POST", "/sign-in/begin").json()["publicKey"]
    signed = Authenticator("a stranger's", origin=served.address).get(challenge_in(options))
    answer = stranger.ask("POST", "/sign-in/complete", response=signed)
    assert answer.status == 401
    assert answer.json()["message"] == "this passkey signs nobody in here"
    assert len(events(served.node, EventKind.CONSOLE_REFUSED)) == before + 1


def test_what_is_guarded_wants_the_passkey_once_more(served: Served) -> None:
    alice = served.as_("alice")
    served.node.clock.advance(301)  # type: ignore[attr-defined]
    served.clients.pop("alice")  # the tests that follow sign in anew
    answer = alice.ask("POST", "/people/invite", name="emil", role_analyst="1")
    assert answer.status == 403
    assert "passkey once more" in answer.text
    assert served.signin.waiting() == []


@pytest.mark.parametrize(
    "fields",
    [b"a=1&a=2", b"a=%ff", b"\xff", b"a", b"=&" * 100, b"name=%00"],
)
def test_a_form_that_cannot_be_read_is_refused(served: Served, fields: bytes) -> None:
    answer = served.as_("alice").ask("POST", "/people/invite", raw=fields)
    assert answer.status in (400, 403)


def test_markup_in_what_people_type_stays_text(served: Served) -> None:
    key = Authenticator("mallory", origin=served.address)
    token = served.signin.invite("mallory", [Role.ANALYST], by="alice")
    made = key.create(challenge_in(served.signin.begin_registration(token)))
    label = "<img src=x onerror=alert(1)>"
    begun = served.signin.accept(token, label, made, peer="1", agent="<script>alert(1)</script>")
    text = Client(served.address, begun.cookie, begun.session.form_token).ask("GET", "/me").text
    assert "<img src=x" not in text
    assert "<script>alert" not in text
    assert "&lt;img src=x" in text


def test_a_page_that_follows_by_itself_ends_with_the_session_and_with_the_server(tmp_path: Path) -> None:
    node = console_node(tmp_path, administrators=("alice",))
    exchange = Exchange(node)
    began = time.monotonic()
    with serving_console(exchange) as address:
        served = Served(exchange, address)
        watching, left = served.as_("alice").watch("/now/live"), Served(exchange, address).signin
        assert watching.readline().startswith(b"data: ")
        for session in left.sessions():
            left.end_session(session.id, by="alice")
        rest = watching.read()  # the stream is over: nobody is signed in any more
        assert b"data: " in b"data: " + rest
        served.clients.clear()
        open_still = served.as_("alice").watch("/now/live")
        assert open_still.readline()
    assert time.monotonic() - began < 15, "the server does not wait for who only looks"


NONSENSE = (
    ("GET", "/log?before=" + "9" * 5000, {}),
    ("GET", "/log/since?old=" + "9" * 5000, {}),
    ("GET", "/log/sample?seed=x&count=" + "9" * 5000, {}),
    ("GET", "/statistics?year=" + "9" * 5000, {}),
    ("POST", "/keys/change", {"deed": "rotate", "reason": "r", "purpose": "nonsense"}),
    ("POST", "/partners/change", {"deed": "revoke", "partner": "x", "reason": "r", "since": "nonsense"}),
    ("POST", "/log/pack", {"leaves": ","}),
    ("GET", "/log?partner=%00", {}),
    ("POST", "/partners/card", {"card": "\0"}),
)


@pytest.mark.parametrize("asked", NONSENSE, ids=lambda one: one[1][:14])
def test_nonsense_is_refused_and_no_bug(served: Served, asked: tuple[str, str, dict[str, str]]) -> None:
    method, path, fields = asked
    assert served.as_("alice").ask(method, path, **fields).status == 400


def test_a_header_of_any_octets_is_no_proof_of_a_session(served: Served) -> None:
    dora = served.as_("dora")
    headers: dict[str, str | None] = {"Content-Type": "text/plain", "X-Form-Token": "\xff"}
    assert dora.ask("POST", "/look-up", raw=b"x", headers=headers).status == 403


def test_a_page_that_follows_by_itself_breaks_off_cleanly_when_the_log_is_broken(served: Served) -> None:
    watching = served.as_("alice").watch("/sync/live")
    assert watching.readline().startswith(b"data: ")
    with served.node.store.transaction() as tx:
        before = tx.connection.exec_driver_sql("SELECT roles FROM console_person WHERE name = 'alice'").scalar_one()
        tx.connection.exec_driver_sql("UPDATE console_person SET roles = 'auditor' WHERE name = 'alice'")
    try:
        assert b"HTTP/1.1" not in watching.read()  # nor does a second answer stand behind the first
    finally:
        watching.close()
        with served.node.store.transaction() as tx:
            tx.connection.exec_driver_sql(f"UPDATE console_person SET roles = '{before}' WHERE name = 'alice'")


def test_a_page_that_follows_by_itself_ends_with_the_role_that_it_is_for(served: Served) -> None:
    watching = served.as_("alice").watch("/sync/live")
    assert watching.readline().startswith(b"data: ")
    try:
        give(served, "alice", "auditor")  # still signed in, and may not see this
        assert b"data: " not in watching.read().partition(b"\n\n")[2]  # it ends, and long before its time
    finally:
        watching.close()
        give(served, "alice", "administrator")


def give(served: Served, name: str, roles: str) -> None:
    with served.node.store.transaction() as tx:
        row = tx.console.person(name)
        assert row is not None
        row.roles = roles
        served.signin._put_person(tx, row)
        served.signin._changed(tx, name, name, "joined", roles=roles)


def test_words_of_cases_in_a_proposal_are_for_those_who_sign(served: Served) -> None:
    act = served.exchange.statuses.merging.propose("Blue Door of tests", "Door, blue", "the same room")
    identifier = approvals(served.node).propose(*act, by="alice")
    assert "Blue Door of tests" in served.as_("alice").ask("GET", f"/approvals/{identifier}").text
    shown = served.as_("otto").ask("GET", f"/approvals/{identifier}")
    assert shown.status == 200
    assert "shown to those who sign" in shown.text
    assert "Blue Door" not in shown.text
