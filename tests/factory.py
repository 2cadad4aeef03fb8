"""Whole nodes for tests: real store, keystore and policies in a folder, on a clock and a random source of the test.

    clock = FakeClock()
    xa, xb = make_node(tmp_path, "XA-NCVI", clock=clock), make_node(tmp_path, "XB-NCVI", clock=clock)
    befriend(xa, xb)                       # each holds the other's identity card, state "active"

Everything is real but two things: the clock, and the price of a guess at the passphrase (the lowest that is allowed).
With `GATEWAY_TEST_DATABASE=postgresql` in the environment the databases are those of a real server (`postgres`).
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import os
import random as standard_random
import shutil
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import postgres
from gateway.app import start
from gateway.audit import Event, EventKind, parse_event
from gateway.client import PartnerLink
from gateway.config import Settings, read_policies
from gateway.crypto.keys import Random, SigningKey
from gateway.crypto.seal import Argon2Cost
from gateway.doors.guards import RunningServer, ServerLimits
from gateway.exchange import Exchange
from gateway.exchange.labels import SetDefaults
from gateway.home import open_token
from gateway.interchange import IdentityCard, parse_card, sign_card
from gateway.keystore import Keystore
from gateway.model import EntryDraft, HandlingCode
from gateway.node import CheckpointSigner, Node, Policies, log_origin
from gateway.ownkeys import issued_card
from gateway.partners import put as put_partner
from gateway.store import Store
from gateway.store.tables import PartnerRow

DATABASE_VARIABLE = "GATEWAY_TEST_DATABASE"  # "sqlite" (the default) or "postgresql"
PASSPHRASE = "a passphrase of tests only"
CHEAP = Argon2Cost(8 * 1024, 1, 1)
START_TIME = 1_795_000_000  # 18 November 2026, inside the validity of the shipped rules
SHIPPED_POLICIES = Path(__file__).parent.parent / "policies"
LEGAL_BASIS = "XA Police Data Act 2019, section 12"

_SIGNERS: dict[str, SigningKey] = {}  # key set id -> key of a node whose card was asked for
_ISSUED: dict[str, bytes] = {}  # key set id -> that card


class FakeClock:
    """A clock that stands until it is moved. Unix seconds."""

    def __init__(self, start: int = START_TIME) -> None:
        self.now = start

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: int) -> None:
        """Move on (or, with a negative number, back)."""
        self.now += seconds


class SeededRandom:
    """Random bytes from a seed; two sources of one seed give the same bytes."""

    def __init__(self, seed: int | str = 0) -> None:
        self._source = standard_random.Random(seed)

    def bytes(self, count: int, /) -> bytes:
        """`count` bytes."""
        return self._source.randbytes(count)


def make_node(
    tmp_path: Path,
    agency: str = "XA-NCVI",
    *,
    clock: FakeClock,
    random: Random | None = None,
    quorum: int = 1,
    **settings: Any,
) -> Node:
    """A complete node whose data folder is `tmp_path/agency`, with an empty log of one event.

    Args:
        random: seeded with the agency's name if None.
        settings: further keys of `gateway.config.Settings`.
    """
    folder = tmp_path / agency
    folder.mkdir()
    random = random or SeededRandom(agency)
    chosen = Settings(
        folder=folder,
        agency=agency,
        jurisdiction=agency[:2],
        demo=quorum == 1,
        quorum=quorum,
        **{"database": new_database(folder), "policies": str(SHIPPED_POLICIES), **settings},
    )
    token = open_token(chosen)
    keystore = Keystore.create(
        folder / "keystore.json", PASSPHRASE, now=clock(), token=token, random=random, cost=CHEAP
    )
    node = open_node(chosen, keystore, clock=clock, random=random)
    details = {"agency": agency, "jurisdiction": agency[:2], "origin": log_origin(agency), "quorum": quorum}
    with node.store.transaction() as tx:
        tx.log.append([node.event(EventKind.GATEWAY_INITIALISED, actor=agency, subject=agency, details=details)])
    return node


def reopened(node: Node, *, seed: str = "after a restart") -> Node:
    """Another node over the same folder, as after a restart or beside it. Its random source goes on elsewhere."""
    assert isinstance(node.clock, FakeClock)
    return open_node(node.settings, node.keystore, clock=node.clock, random=SeededRandom(seed))


def open_node(settings: Settings, keystore: Keystore, *, clock: FakeClock, random: Random) -> Node:
    """A node over what is already on disk, as after a restart."""
    key = keystore.log_key(log_origin(settings.agency, keystore.log_numbers[0]))
    store = Store(settings.database_url, CheckpointSigner(key, random, keystore.log_key))
    policies = Policies(read_policies(settings.policies_folder, settings.jurisdiction))
    return Node(settings, store, keystore, policies, clock, random)


def card_of(node: Node) -> IdentityCard:
    """The node's identity card as it stands now."""
    return parse_card(signed_card_of(node))


def signed_card_of(node: Node) -> bytes:
    """The node's identity card as it hands it out."""
    raw = issued_card(node)
    _SIGNERS[node.keystore.signing_key.public.key_set_id] = node.keystore.signing_key
    _ISSUED[node.keystore.signing_key.public.key_set_id] = raw
    return raw


def enrol(node: Node, card: IdentityCard | bytes, *, state: str = "active", test: bool = False) -> None:
    """Put an identity card among a node's partners, without the four eyes that this takes outside tests.

    Args:
        card: as `card_of` made it (it is signed here with its owner's key), or signed already.
        test: whether only sets of invented data move.
    """
    signed = card if isinstance(card, bytes) else _signed(card)
    parsed = parse_card(signed)
    row = PartnerRow(
        agency=parsed.agency,
        jurisdiction=parsed.jurisdiction,
        state=state,
        card=signed.decode(),
        added=node.clock(),
        test=test,
    )
    details: dict[str, object] = {
        "partner": parsed.agency,
        "card_digest": hashlib.sha256(signed).hexdigest(),
        "test": test,
    }
    with node.store.transaction() as tx:
        put_partner(node, tx, row)
        tx.log.append([_of_partner(node, EventKind.PARTNER_ADDED, parsed.agency, details)])
    if state != "active":
        set_state(node, parsed.agency, state)


def _signed(card: IdentityCard) -> bytes:
    """The card as its owner issued it; one that a test has changed is signed anew."""
    issued = _ISSUED[card.signing.key_set_id]
    return issued if parse_card(issued) == card else sign_card(card, _SIGNERS[card.signing.key_set_id])


def befriend(*nodes: Node) -> None:
    """Enrol every node with every other."""
    for here, there in itertools.permutations(nodes, 2):
        enrol(here, card_of(there))


def set_state(node: Node, agency: str, state: str) -> None:
    """Change a partner's state, as an executed proposal would."""
    with node.store.transaction() as tx:
        row = tx.people.partner(agency)
        row.state = state
        put_partner(node, tx, row)
        kind = _KINDS.get(state)
        if kind is not None:
            tx.log.append([_of_partner(node, kind, agency, {"partner": agency})])


def _of_partner(node: Node, kind: EventKind, agency: str, details: dict[str, object]) -> Event:
    """What the log says of it: a gateway believes no row of a partner that its log does not tell of."""
    return node.event(kind, actor=node.agency, subject=agency, details=details)


_KINDS = {
    "active": EventKind.RESUMED,
    "suspended": EventKind.PARTNER_SUSPENDED,
    "removed": EventKind.PARTNER_REMOVED,
}


def loopback(**settings: Any) -> dict[str, Any]:
    """Settings by which a node listens on a free loopback port and says so in its identity card."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {"listen_port": port, "public_url": f"http://127.0.0.1:{port}", "requests_per_minute": 100_000, **settings}


def sha256(text: str) -> bytes:
    """The digest of a made-up string."""
    return hashlib.sha256(text.encode()).digest()


def events(node: Node, kind: EventKind) -> list[Event]:
    """The events of one kind in a node's log, oldest first."""
    with node.store.reading() as tx:
        found = [parse_event(row.event_bytes) for row in tx.log.leaves() if row.event_bytes is not None]
    return [event for event in found if event.kind is kind]


def drafts(count: int, *, first: int = 0, **fields: Any) -> list[EntryDraft]:
    """Entries with digests of made-up strings; `fields` are further ones of `EntryDraft`."""
    return [
        EntryDraft({"sha256": sha256(f"made-up {number}")}, source_ref=f"ref-{number}", **fields)
        for number in range(first, first + count)
    ]


def make_set(
    exchange: Exchange,
    name: str,
    entries: Iterable[EntryDraft] = (),
    *,
    handling: HandlingCode = HandlingCode.H1,
    purpose: str = "victim_identification",
    onward: tuple[str, ...] = (),
) -> str:
    """Create an own set and import entries into it; returns its full name."""
    full = f"{exchange.node.agency}/{name}"
    defaults = SetDefaults(LEGAL_BASIS, category="icse:1", handling=handling, evaluation="B2", onward=onward)
    exchange.ledger.create_set(full, purpose, defaults, "tester")
    exchange.ledger.import_entries(full, entries, actor="tester", form="test")
    return full


def on_postgresql() -> bool:
    """Whether databases of tests are PostgreSQL's."""
    return os.environ.get(DATABASE_VARIABLE, "sqlite") == "postgresql"


def new_database(folder: Path) -> str:
    """A migrated, empty database for a node in `folder`, as its `database` setting."""
    if on_postgresql():
        return postgres.shared().new_database()
    shutil.copy(_empty_database(), folder / "gateway.db")
    return "gateway.db"


def database_to_found() -> dict[str, str]:
    """The `database` setting of a gateway that is to be founded, where that is no file in its folder."""
    return {"database": postgres.shared().new_database()} if on_postgresql() else {}


def copied_database(settings: Settings, folder: Path, name: str = "gateway.db") -> str:
    """A copy of a node's database for one in `folder`, as its `database` setting. Nobody writes to it now."""
    if on_postgresql():
        return postgres.shared().copy(settings.database)
    shutil.copy(settings.folder / settings.database, folder / name)
    return name


def keep_database(settings: Settings) -> None:
    """Let a node's database stay as it is now for `database_as_kept`. The node has closed its store."""
    if on_postgresql():
        postgres.shared().keep(settings.database)


def database_as_kept(settings: Settings, folder: Path) -> None:
    """The kept database of a node, for one with its settings in `folder`. On PostgreSQL there is one at a time."""
    if on_postgresql():
        postgres.shared().rewind(settings.database)
    else:
        shutil.copy(settings.folder / settings.database, folder)


@cache
def _empty_database() -> Path:
    """A migrated, empty database: made once, copied for each node."""
    path = Path(mkdtemp(prefix="gateway-tests-")) / "empty.db"

    class _NoSigner:
        def sign_checkpoint(self, size: int, root: bytes, previous: int, origin: str) -> bytes:
            raise AssertionError("nothing is appended")

        def salt(self) -> bytes:
            raise AssertionError("nothing is appended")

        def now(self) -> int:
            raise AssertionError("nothing is appended")

    store = Store(Store.sqlite_url(path), _NoSigner())
    store.migrate()
    store.close()
    return path


# Over HTTP

UNBOUNDED = ServerLimits(requests_per_second_per_address=1e6, request_burst_per_address=10**6)


@asynccontextmanager
async def serving(exchange: Exchange, limits: ServerLimits = UNBOUNDED) -> AsyncIterator[RunningServer]:
    """The exchange's gateway listening where its settings say, without a limit on requests from one address."""
    server = await start(exchange, limits=limits)
    try:
        yield server
    finally:
        await server.close()


def link_to(there: Node, here: Node, **options: Any) -> PartnerLink:
    """The link by which the node `here` calls the node `there`."""
    return PartnerLink(card_of(there), here.keystore.token_key, here.agency, here.clock, here.random, **options)


def certificate(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """A self-signed certificate for `name` and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file
