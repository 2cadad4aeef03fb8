"""Signing keys in a PKCS#11 token: the same gateway as with sealed seeds, and a key that never leaves the token.

The token is SoftHSM's, made in a folder of this run. What a gateway does with its signing key runs twice: with the key
as a seed in the sealed file, and with the key in the token.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from factory import CHEAP, PASSPHRASE, FakeClock, befriend, drafts, make_node, make_set, signed_card_of
from gateway import audit
from gateway.app import start
from gateway.config import Settings
from gateway.crypto import pkcs11 as door
from gateway.crypto import succession
from gateway.crypto.checkpoint import VerifierKey
from gateway.crypto.keys import SigningKey
from gateway.crypto.pkcs11 import Pkcs11Token
from gateway.errors import ConfigError, ConflictError, OverloadedError, VerificationError
from gateway.exchange import Exchange
from gateway.home import found, open_home, open_token
from gateway.interchange import parse_card
from gateway.keystore import Keystore, read_pin
from gateway.node import Node
from partner_simulator import Network, held_entries

MODULES = [Path("/usr/lib") / part / "libsofthsm2.so" for part in ("softhsm", "x86_64-linux-gnu/softhsm", "pkcs11")]
PIN, SO_PIN = "4711-invented", "0815-invented"
NOW = 1_760_000_000
LABEL = "gateway signing 1 00000000"


class SoftHsm:
    """SoftHSM with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.module = str(next(path for path in MODULES if path.exists()))
        (folder / "tokens").mkdir()
        (folder / "softhsm2.conf").write_text(
            f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )

    def make(self, label: str) -> Path:
        """A new token; returns the folder that it is in."""
        before = set((self.folder / "tokens").iterdir())
        command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", SO_PIN]
        subprocess.run(command, check=True, capture_output=True)
        self.restart()
        [made] = set((self.folder / "tokens").iterdir()) - before
        return made

    def restart(self) -> None:
        """End every session behind the gateway's back; new tokens and settings are seen."""
        pkcs11.lib(self.module).reinitialize()
        for library in door._PROCESS._libraries.values():
            library.stale = True

    def token(self, label: str, pin: str = PIN) -> Pkcs11Token:
        return Pkcs11Token(self.module, label, pin)


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    if not any(path.exists() for path in MODULES):
        pytest.skip("SoftHSM is not installed; scripts/test does it")
    folder = tmp_path_factory.mktemp("softhsm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        yield SoftHsm(folder)


@pytest.fixture
def label(softhsm: SoftHsm, request: pytest.FixtureRequest) -> str:
    """The label of a token made for this test."""
    made = f"t{abs(hash(request.node.nodeid)):x}"[:16]
    softhsm.make(made)
    return made


@pytest.fixture
def token(softhsm: SoftHsm, label: str) -> Pkcs11Token:
    return softhsm.token(label)


@pytest.fixture(params=["sealed", "token"])
def kept(request: pytest.FixtureRequest) -> Pkcs11Token | None:
    """Where signing keys are: None for the sealed file."""
    return request.getfixturevalue("token") if request.param == "token" else None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keystore.json"


@pytest.fixture
def keystore(path: Path, kept: Pkcs11Token | None) -> Keystore:
    return Keystore.create(path, PASSPHRASE, now=NOW, token=kept, cost=CHEAP)


def hsm_settings(softhsm: SoftHsm, folder: Path, label: str) -> dict[str, str]:
    """The three settings of a gateway with a token."""
    pin_file = folder / f"pin-{label}"
    pin_file.touch(mode=0o600)
    pin_file.write_text(f"{PIN}\n")
    return {"pkcs11_module": softhsm.module, "pkcs11_token": label, "pkcs11_pin_file": str(pin_file)}


def keys_in(softhsm: SoftHsm, label: str) -> int:
    """How many private keys a token holds. Its user must be logged in already, in this process."""
    with pkcs11.lib(softhsm.module).get_token(token_label=label).open() as session:
        return len(list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})))


# The same with a sealed seed and with a token


def test_pair_signs_as_ever(keystore: Keystore) -> None:
    key = keystore.signing_key
    for message in (b"", b"a message", bytes(door.LONGEST_MESSAGE_BYTES)):
        key.public.verify(message, key.sign(message))
    with pytest.raises(VerificationError):
        key.public.verify(b"another message", key.sign(b"a message"))


def test_keystore_opens_with_the_key_that_was_made(path: Path, keystore: Keystore, kept: Pkcs11Token | None) -> None:
    opened = Keystore.open(path, PASSPHRASE, token=kept)
    assert opened.signing_key.public == keystore.signing_key.public
    opened.signing_key.public.verify(b"a message", opened.signing_key.sign(b"a message"))
    assert (keystore.signing_key.seeds[0] is None) is (kept is not None)


def test_key_lives_from_its_making_to_its_end(path: Path, keystore: Keystore, kept: Pkcs11Token | None) -> None:
    old = keystore.held_signing_key
    new = keystore.add_signing_key(now=NOW + 5)
    assert (old.number, new.number) == (1, 2)
    statement = succession.sign_succession("XA-NCVI", 2, old=old.key, new=new.key, created=NOW + 5)
    assert succession.verify_succession(statement, agency="XA-NCVI", held=old.key.public, held_number=1)
    keystore.activate_signing_key(new.key_id)
    with pytest.raises(ConflictError):
        keystore.drop_signing_key(new.key_id)
    assert keystore.drop_signing_key(old.key_id)
    assert not keystore.drop_signing_key(old.key_id)
    opened = Keystore.open(path, PASSPHRASE, token=kept)
    assert [one.key_id for one in opened.held_signing_keys] == [new.key_id]
    new.key.public.verify(b"a message", opened.signing_key.sign(b"a message"))


async def test_push_between_two_gateways_is_answered_by_receipts(
    tmp_path: Path, kept: Pkcs11Token | None, request: pytest.FixtureRequest
) -> None:
    clock, settings = FakeClock(), {}
    if kept is not None:
        softhsm, label = (request.getfixturevalue(name) for name in ("softhsm", "label"))
        settings = hsm_settings(softhsm, tmp_path, label)  # one token for both, as in a shared HSM
    xa, xb = (make_node(tmp_path, agency, clock=clock, **settings) for agency in ("XA-NCVI", "XB-NCVI"))
    assert (xa.keystore.signing_key.seeds[0] is None) is (kept is not None)
    befriend(xa, xb)
    network = Network()
    here, there = network.join(xa), network.join(xb)
    name = make_set(here, "identified", drafts(20))
    report = await network.sync("XA-NCVI", "XB-NCVI").push(name)
    assert set(held_entries(there, name)) == set(held_entries(here, name))
    [(message_id, receipt)] = report.receipts.items()
    proof = audit.verify_receipt(receipt, VerifierKey.parse(here.card_of("XB-NCVI").log))
    assert (proof.message_id, proof.sender) == (message_id, "XA-NCVI")
    [pulled] = await network.sync("XB-NCVI", "XA-NCVI").pull()
    assert pulled.equality == "equal"
    assert parse_card(signed_card_of(xa)).signing == xa.keystore.signing_key.public


# What the token gives


def test_private_key_does_not_leave_the_token(softhsm: SoftHsm, label: str, token: Pkcs11Token) -> None:
    token.generate(LABEL)
    session = pkcs11.lib(softhsm.module).get_token(token_label=label).open(rw=True)
    [key] = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: LABEL})
    assert (key[Attribute.SENSITIVE], key[Attribute.EXTRACTABLE]) == (True, False)
    assert (key[Attribute.ALWAYS_SENSITIVE], key[Attribute.NEVER_EXTRACTABLE]) == (True, True)
    with pytest.raises(pkcs11.AttributeSensitive):
        key[Attribute.VALUE]
    wrapping = session.generate_key(KeyType.AES, 256, mechanism_param=None)
    with pytest.raises(pkcs11.KeyUnextractable):
        wrapping.wrap_key(key, mechanism=Mechanism.AES_KEY_WRAP_PAD)
    for attribute, value in ((Attribute.EXTRACTABLE, True), (Attribute.SENSITIVE, False)):
        with pytest.raises(pkcs11.PKCS11Error):
            key[attribute] = value
        with pytest.raises(pkcs11.PKCS11Error):
            key.copy({attribute: value})


def test_keystore_of_a_token_holds_no_ed25519_seed(path: Path, token: Pkcs11Token) -> None:
    keystore = Keystore.create(path, PASSPHRASE, now=NOW, token=token, cost=CHEAP)
    [entry] = keystore._secrets.dump().decode().split('"signing":[')[1].split("]")[:1]
    assert '"ed25519":"pkcs11:gateway signing 1 ' in entry
    assert keystore.signing_key.public.ed25519_public.hex() in entry
    assert keystore.signing_key.seeds[1].hex() in entry  # ML-DSA-65 is in the sealed file


def test_key_moves_into_the_token_by_rotation(path: Path, softhsm: SoftHsm, label: str) -> None:
    sealed = Keystore.create(path, PASSPHRASE, now=NOW, cost=CHEAP)
    keystore = Keystore.open(path, PASSPHRASE, token=softhsm.token(label))
    assert keystore.signing_key.public == sealed.signing_key.public
    old, new = keystore.held_signing_key, keystore.add_signing_key(now=NOW + 5)
    assert (old.key.seeds[0] is None, new.key.seeds[0] is None) == (False, True)
    succession.sign_succession("XA-NCVI", 2, old=old.key, new=new.key, created=NOW + 5)
    keystore.activate_signing_key(new.key_id)
    assert keystore.drop_signing_key(old.key_id)
    assert keys_in(softhsm, label) == 1


def test_dropped_key_is_gone_from_the_token(path: Path, softhsm: SoftHsm, label: str, token: Pkcs11Token) -> None:
    keystore = Keystore.create(path, PASSPHRASE, now=NOW, token=token, cost=CHEAP)
    old, new = keystore.held_signing_key, keystore.add_signing_key(now=NOW + 5)
    keystore.activate_signing_key(new.key_id)
    assert keys_in(softhsm, label) == 2
    keystore.drop_signing_key(old.key_id)
    assert keys_in(softhsm, label) == 1
    with pytest.raises(ConfigError, match="does not hold our signing key"):
        old.key.sign(b"a message")


def test_key_that_could_not_be_recorded_is_not_left_in_the_token(
    path: Path, softhsm: SoftHsm, label: str, token: Pkcs11Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    keystore = Keystore.create(path, PASSPHRASE, now=NOW, token=token, cost=CHEAP)
    with pytest.raises(ConfigError, match="already"):
        Keystore.create(path, PASSPHRASE, now=NOW, token=token, cost=CHEAP)
    assert keys_in(softhsm, label) == 1
    monkeypatch.setattr("gateway.keystore.MAX_HELD_KEYS", 1)
    with pytest.raises(ConflictError):
        keystore.add_signing_key(now=NOW)
    assert keys_in(softhsm, label) == 1


# What can be wrong


def test_wrong_pin_is_refused_once_and_not_tried_again(softhsm: SoftHsm, label: str) -> None:
    wrong = softhsm.token(label, "another-pin")
    with pytest.raises(ConfigError, match="PIN") as caught:
        wrong.generate(LABEL)
    assert caught.value.remedy
    assert "another-pin" not in f"{caught.value!r} {wrong!r}"
    with pkcs11.lib(softhsm.module).get_token(token_label=label).open(rw=True, user_pin=PIN) as session:
        session.set_pin(PIN, "another-pin")
    with pytest.raises(ConfigError, match="PIN"):
        wrong.generate(LABEL)  # it would be right by now
    assert softhsm.token(label, "another-pin").generate(LABEL)


def test_wrong_pin_is_no_use_beside_a_right_one(softhsm: SoftHsm, label: str, token: Pkcs11Token) -> None:
    public = token.generate(LABEL)
    with pytest.raises(ConfigError, match="PIN"):
        softhsm.token(label, "another-pin").sign(LABEL, public, b"a message")
    assert softhsm.token(label).sign(LABEL, public, b"a message")


def test_missing_library_token_or_key_is_a_config_error(softhsm: SoftHsm, token: Pkcs11Token, tmp_path: Path) -> None:
    public = token.generate(LABEL)
    not_a_library = tmp_path / "not-a-library.so"
    not_a_library.write_bytes(b"text")
    for attempt, word in (
        (Pkcs11Token(str(tmp_path / "absent.so"), "any", PIN), "cannot be loaded"),
        (Pkcs11Token(str(not_a_library), "any", PIN), "cannot be loaded"),
        (softhsm.token("no such token"), "not there"),
    ):
        with pytest.raises(ConfigError, match=word) as caught:
            attempt.sign(LABEL, public, b"a message")
        assert caught.value.remedy
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(ConfigError, match="does not hold our signing key"):
        token.sign("another label", public, b"a message")
    assert not token.destroy("another label")


def test_two_tokens_of_one_label_are_refused(softhsm: SoftHsm, label: str, token: Pkcs11Token) -> None:
    softhsm.make(label)
    with pytest.raises(ConfigError, match="several"):
        token.generate(LABEL)


def test_label_is_never_given_twice(token: Pkcs11Token) -> None:
    public = token.generate(LABEL)
    with pytest.raises(ConfigError, match="already"):
        token.generate(LABEL)
    assert len(token.sign(LABEL, public, b"a message")) == 64


def test_another_key_under_our_label_signs_nothing(token: Pkcs11Token) -> None:
    ours = token.generate(LABEL)
    token.destroy(LABEL)
    token.generate(LABEL)
    with pytest.raises(ConfigError, match="another key"):
        token.sign(LABEL, ours, b"a message")


def test_key_that_could_leave_is_destroyed_again(
    softhsm: SoftHsm, label: str, token: Pkcs11Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(session: pkcs11.Session, name: str) -> object:
        curve = session.create_domain_parameters(
            KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: door._CURVE_FORMS[0]}, local=True
        )
        template = {Attribute.EXTRACTABLE: True}
        return curve.generate_keypair(
            label=name, store=True, mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN, private_template=template
        )

    monkeypatch.setattr(door, "_key_pair", careless)
    with pytest.raises(ConfigError, match="let the private key out"):
        token.generate(LABEL)
    assert keys_in(softhsm, label) == 0


@pytest.mark.parametrize("forms", [(b"\x13\x04none",), (b"\x13\x04none", bytes.fromhex("06022a03")), (b"rubbish",)])
def test_token_that_makes_no_ed25519_keys_is_named(
    token: Pkcs11Token, monkeypatch: pytest.MonkeyPatch, forms: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr(door, "_CURVE_FORMS", forms)
    with pytest.raises(ConfigError, match="makes no Ed25519 key"):
        token.generate(LABEL)


@pytest.mark.parametrize("first", [0, 1])
def test_curve_is_named_in_either_way_that_a_token_may_know(
    token: Pkcs11Token, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    monkeypatch.setattr(door, "_CURVE_FORMS", (b"\x13\x04none", door._CURVE_FORMS[first]))
    assert len(token.generate(LABEL)) == 32


@pytest.mark.parametrize("wrapping", [b"", b"\x04\x20", b"\x03\x21\x00"])
def test_public_half_is_read_however_it_is_wrapped(wrapping: bytes) -> None:
    public = bytes(range(4, 36))
    assert door._public_half([{Attribute.EC_POINT: wrapping + public}]) == public
    for wrong in (wrapping + public[1:], wrapping + public + b"0", b"\x05\x20" + public):
        with pytest.raises(ConfigError, match="public key"):
            door._public_half([{Attribute.EC_POINT: wrong}])


def test_token_that_went_away_is_a_matter_of_the_moment(softhsm: SoftHsm, tmp_path: Path) -> None:
    place = softhsm.make("leaving")
    token = softhsm.token("leaving")
    public = token.generate(LABEL)
    place.rename(tmp_path / "away")
    softhsm.restart()
    for _ in range(2):
        with pytest.raises(OverloadedError, match="does not answer"):
            token.sign(LABEL, public, b"a message")
    (tmp_path / "away").rename(place)
    assert token.sign(LABEL, public, b"a message")


def test_lost_session_is_opened_again(softhsm: SoftHsm, token: Pkcs11Token) -> None:
    public = token.generate(LABEL)
    first = token.sign(LABEL, public, b"a message")
    pkcs11.lib(softhsm.module).reinitialize()  # nobody told the gateway
    assert token.sign(LABEL, public, b"a message") == first
    pkcs11.lib(softhsm.module).reinitialize()
    assert token.destroy(LABEL)
    pkcs11.lib(softhsm.module).reinitialize()
    assert token.generate(LABEL) != public


def test_sessions_of_two_tokens_do_not_take_each_others_place(softhsm: SoftHsm) -> None:
    tokens = []
    for name in ("first of two", "second of two"):
        softhsm.make(name)
        token = softhsm.token(name)
        tokens.append((token, token.generate(LABEL)))
    for token, public in (*tokens, *reversed(tokens)):
        pkcs11.lib(softhsm.module).reinitialize()
        assert token.sign(LABEL, public, b"a message")


def test_many_threads_sign_at_once(token: Pkcs11Token) -> None:
    public = token.generate(LABEL)
    key = SigningKey(_signer(token, public), bytes(32))
    start = threading.Barrier(8)

    def sign(number: int) -> None:
        start.wait()
        for turn in range(20):
            message = f"{number} {turn}".encode()
            key.public.verify(message, key.sign(message))

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(sign, number) for number in range(8)]:
            done.result()


def test_library_is_called_by_one_thread_at_a_time(token: Pkcs11Token) -> None:
    public = token.generate(LABEL)
    with ThreadPoolExecutor(1) as pool:
        with door._PROCESS.turn:
            waiting = pool.submit(token.sign, LABEL, public, b"a message")
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.1)
        assert len(waiting.result(timeout=5)) == 64


def test_forked_child_signs_for_itself_while_the_parent_was_busy(token: Pkcs11Token) -> None:
    public = token.generate(LABEL)
    reading, writing = os.pipe()
    busy, done = threading.Event(), threading.Event()

    def keep_busy() -> None:
        with door._PROCESS.turn:
            busy.set()
            done.wait()

    thread = threading.Thread(target=keep_busy)
    thread.start()
    busy.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # rather than hang with it
        try:
            os.write(writing, token.sign(LABEL, public, b"a message"))
        finally:
            os._exit(0)
    done.set()
    thread.join()
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        signed = answer.read()
    os.waitpid(child, 0)
    assert signed == token.sign(LABEL, public, b"a message")


# The gateway


@pytest.fixture
def settings(softhsm: SoftHsm, tmp_path: Path, label: str) -> Settings:
    names = hsm_settings(softhsm, tmp_path, label)
    return Settings(folder=tmp_path / "home", agency="XA-NCVI", jurisdiction="XA", demo=True, quorum=1, **names)


def open_founded(settings: Settings) -> Node:
    found(settings, PASSPHRASE, name="Invented unit", cost=CHEAP)
    return open_home(settings.folder, PASSPHRASE)


def test_gateway_is_founded_and_opened_with_its_key_in_the_token(settings: Settings, tmp_path: Path) -> None:
    node = open_founded(replace(settings, keystore=str(tmp_path / "shared.json")))
    try:
        assert node.keystore.signing_key.seeds[0] is None
        assert parse_card(signed_card_of(node)).signing == node.keystore.signing_key.public
    finally:
        node.store.close()
    assert (tmp_path / "shared.json").exists()
    assert not (settings.folder / "keystore.json").exists()


def test_another_process_signs_with_the_same_key(settings: Settings) -> None:
    node = open_founded(settings)
    node.store.close()
    code = (
        "import sys, pathlib; from gateway.home import open_home\n"
        "key = open_home(pathlib.Path(sys.argv[1]), sys.argv[2]).keystore.signing_key\n"
        "key.public.verify(b'', key.sign(b'')); print(key.public.key_set_id)"
    )
    command = [sys.executable, "-c", code, str(settings.folder), PASSPHRASE]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.strip() == node.keystore.signing_key.public.key_set_id


def test_founding_that_fails_leaves_no_key_in_the_token(settings: Settings, softhsm: SoftHsm, tmp_path: Path) -> None:
    open_founded(settings).store.close()
    before = keys_in(softhsm, settings.pkcs11_token)
    taken = f"sqlite:///{settings.folder / 'gateway.db'}"
    second = replace(settings, folder=tmp_path / "second", database=taken, keystore=str(tmp_path / "shared.json"))
    with pytest.raises(ConflictError, match="belongs to a gateway"):
        found(second, PASSPHRASE, name="Invented unit", cost=CHEAP)
    assert keys_in(softhsm, settings.pkcs11_token) == before
    assert not (tmp_path / "shared.json").exists()


def test_without_its_token_a_gateway_opens_and_only_signing_fails(settings: Settings) -> None:
    open_founded(settings).store.close()
    keystore = Keystore.open(settings.keystore_path, PASSPHRASE)
    assert keystore.log_key("xa.example/log/1").verifier
    with pytest.raises(ConfigError, match="settings name none") as caught:
        keystore.signing_key.sign(b"a message")
    assert "pkcs11_module" in caught.value.remedy
    old, new = keystore.held_signing_key, keystore.add_signing_key(now=NOW)
    keystore.activate_signing_key(new.key_id)
    with pytest.raises(ConfigError, match="settings name none"):
        keystore.drop_signing_key(old.key_id)
    assert old.key_id in {one.key_id for one in keystore.held_signing_keys}


async def test_server_does_not_start_without_the_token_of_its_key(settings: Settings, softhsm: SoftHsm) -> None:
    open_founded(settings).store.close()
    softhsm.make("an empty one")
    text = (settings.folder / "gateway.toml").read_text()
    (settings.folder / "gateway.toml").write_text(text.replace(f'"{settings.pkcs11_token}"', '"an empty one"'))
    node = open_home(settings.folder, PASSPHRASE)
    try:
        with pytest.raises(ConfigError, match="does not hold our signing key"):
            await start(Exchange(node))
    finally:
        node.store.close()


def test_gateway_without_the_library_says_what_to_install(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gateway.crypto.pkcs11")
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        open_token(settings)
    assert "[hsm]" in caught.value.remedy
    assert open_token(replace(settings, pkcs11_module="", pkcs11_token="", pkcs11_pin_file="")) is None


@pytest.mark.parametrize("raw", [b"", b"\n", b"1234\n5678\n", b"\xff\xff\n", b"12\x0034\n", b"1" * 257])
def test_pin_is_one_line_of_text(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "pin"
    file.touch(mode=0o600)
    file.write_bytes(raw)
    with pytest.raises(ConfigError, match="one line"):
        read_pin(file)


def test_pin_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pin"
    file.write_text("1234\r\n")
    file.chmod(0o600)
    assert read_pin(file) == "1234"
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="others") as caught:
        read_pin(file)
    assert "chmod 600" in caught.value.remedy
    with pytest.raises(ConfigError, match="cannot be read"):
        read_pin(tmp_path / "absent")


def _signer(token: Pkcs11Token, public: bytes) -> object:
    class Signer:
        def __init__(self) -> None:
            self.public = public

        def sign(self, message: bytes) -> bytes:
            return token.sign(LABEL, public, message)

    return Signer()
