"""Ed25519 keys in a PKCS#11 token (OASIS PKCS #11 3.0): made in there, used in there, never outside.

    token = Pkcs11Token("/usr/lib/softhsm/libsofthsm2.so", "gateway", pin)
    public = token.generate("gateway signing 2 5f0c33aa")
    raw = token.sign("gateway signing 2 5f0c33aa", public, b"a message")    # 64 bytes, RFC 8032

Rules:

1. A key is sensitive and not extractable. If the token says otherwise of a new key, the key is destroyed at once.
2. A signature is verified before it is given away, so a token that was restored or swapped signs for nobody else.
3. A PIN that the token refused is not tried again by the same object: a few tries lock most tokens for good.
4. Where a session is lost the library is started anew, once; then it is an OverloadedError, and the next use tries
   again. Before the first session the same is a ConfigError, since it then never worked.
5. One call at a time in a process. The library is told of no threads, so it takes no locks of its own; its sessions
   and log-ins belong to the process, whichever object opened them. After a fork the child starts the library anew.

No token makes ML-DSA-65 keys in a way that this gateway could rely on. Only the Ed25519 half of a signing pair can be
here; the ML-DSA-65 half stays a seed in the sealed keystore.

This module is the only door to `python-pkcs11`, which only gateways with a token need: import it where it is used.
"""

from __future__ import annotations

import hmac
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import pkcs11
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519
from pkcs11 import exceptions as faults
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import PKCS11Error
from pkcs11.mechanisms import KeyType, Mechanism
from pkcs11.types import Object, PrivateKey, Session, SignMixin

from gateway.crypto.envelope import MAX_MANIFEST_BYTES
from gateway.crypto.keys import ED25519_PUBLIC_BYTES
from gateway.errors import ConfigError, OverloadedError

# Envelope manifests are the longest that the gateway signs. Some tokens take two kilobytes and no more: seen when the
# key is made, not on the day of the first long manifest. 1 KiB is room for what DSSE puts around them.
LONGEST_MESSAGE_BYTES = MAX_MANIFEST_BYTES + 1024

# PKCS #11 3.0 2.3.5: the curve by its object identifier (RFC 8410) or by its name; tokens know one or both.
_CURVE_FORMS = (bytes.fromhex("06032b6570"), b"\x13\x0cedwards25519")
_PIN_FAULTS = (
    faults.PinIncorrect,
    faults.PinInvalid,
    faults.PinLenRange,
    faults.PinExpired,
    faults.PinLocked,
    faults.UserPinNotInitialized,
)
# What says that a session is lost; with any other fault a token that was there a moment ago refuses what it is asked.
_LOST_FAULTS = (
    faults.DeviceRemoved,
    faults.SessionClosed,
    faults.SessionHandleInvalid,
    faults.TokenNotPresent,
    faults.UserNotLoggedIn,
)
_RECONNECTS = 1
_PROBE_BITS = 64

_Done = TypeVar("_Done")


@dataclass(slots=True)
class _Login:
    """A session in which the token's user is logged in, and the keys found in it."""

    session: Session = field(repr=False)
    pin: str = field(repr=False)
    keys: dict[str, SignMixin] = field(default_factory=dict)


class _Library:
    """A loaded PKCS#11 library with the log-ins of this process, by the token's label."""

    def __init__(self, module: str) -> None:
        self.raw = pkcs11.lib(module)
        self.logins: dict[str, _Login] = {}
        self.stale = False

    def restart(self) -> None:
        """No session, log-in or handle of before is left: the library may give out the same numbers again."""
        self.stale = True
        self.logins.clear()
        with suppress(PKCS11Error):  # after a fork the child's library may say that it was never started
            self.raw.finalize()
        self.raw.initialize()
        self.stale = False


class _Process:
    """What PKCS#11 keeps for a process as a whole: the libraries, and whose turn it is."""

    def __init__(self) -> None:
        self.turn = threading.RLock()
        self._libraries: dict[str, _Library] = {}
        os.register_at_fork(after_in_child=self._forked)

    def library(self, module: str) -> _Library:
        """The started library of this path."""
        known = self._libraries.get(module)
        if known is None:
            try:
                known = self._libraries[module] = _Library(module)
            except PKCS11Error as error:
                raise ConfigError(
                    "token: the PKCS#11 library cannot be loaded",
                    place="pkcs11_module",
                    remedy="give the path of the library that came with the token, for this kind of machine",
                ) from error
        if known.stale:
            known.restart()
        return known

    def _forked(self) -> None:
        self.turn = threading.RLock()  # another thread of the parent may have held it
        for library in self._libraries.values():
            library.stale = True


_PROCESS = _Process()


class Pkcs11Token:
    """One token, opened at its first use. Safe for threads and forks; objects of one token share its session.

    Args:
        module: path of the token's PKCS#11 library.
        label: the token's label.
        pin: of its user.

    Each method raises:
        ConfigError: library, token or key is not there, or the token refuses the PIN; the remedy says what to do.
        OverloadedError: the token was there and does not answer now.
    """

    __slots__ = ("_label", "_module", "_opened", "_pin", "_pin_refused")

    def __init__(self, module: str, label: str, pin: str) -> None:
        self._module = module
        self._label = label
        self._pin = pin
        self._pin_refused = False
        self._opened = False

    def generate(self, label: str) -> bytes:
        """Make a key of this label, which no key has yet; returns its public half (32 bytes)."""
        # Also brings a lost session back, so that what follows need not be tried twice.
        if self._run(lambda login: _objects(login.session, label)):
            raise ConfigError("token: it holds a key of this label already")
        return self._run(lambda login: _generate(login.session, label), tries=1)

    def sign(self, label: str, public: bytes, message: bytes) -> bytes:
        """The signature of `message` (64 bytes) by the key of this label, which is the private half of `public`."""
        raw = self._run(lambda login: _private_key(login, label).sign(message, mechanism=Mechanism.EDDSA))
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(public).verify(raw, message)
        except InvalidSignature as error:
            raise ConfigError(
                "token: it holds another key under the label of ours", remedy="put back the token that has our key"
            ) from error
        return raw

    def destroy(self, label: str) -> bool:
        """Destroy the key of this label. False when there was none."""

        def destroyed(login: _Login) -> bool:
            login.keys.pop(label, None)
            found = _objects(login.session, label)
            for one in found:
                one.destroy()
            return bool(found)

        return self._run(destroyed)

    # Inside

    def _run(self, work: Callable[[_Login], _Done], *, tries: int = 1 + _RECONNECTS) -> _Done:
        """What `work` gives, in a session that lives; a lost one is opened again while there are tries."""
        with _PROCESS.turn:
            library = _PROCESS.library(self._module)
            for left in reversed(range(tries)):
                try:
                    if library.stale:
                        library.restart()
                    return work(self._login(library))
                except PKCS11Error as error:
                    library.stale = True
                    if not left:
                        raise self._away() from error
        raise AssertionError("at least one try")

    def _login(self, library: _Library) -> _Login:
        held = library.logins.get(self._label)
        if held is None:
            if self._pin_refused:
                raise _wrong_pin()
            held = library.logins[self._label] = _Login(self._open(library), self._pin)
            self._opened = True
        elif not hmac.compare_digest(held.pin.encode(), self._pin.encode()):
            raise _wrong_pin()  # the token would not ask again while somebody in this process is logged in
        return held

    def _open(self, library: _Library) -> Session:
        try:
            return library.raw.get_token(token_label=self._label).open(rw=True, user_pin=self._pin)
        except _PIN_FAULTS as error:
            self._pin_refused = True
            raise _wrong_pin() from error
        except faults.MultipleTokensReturned as error:
            raise ConfigError(
                "token: several have this label", place="pkcs11_token", remedy="give each token a label of its own"
            ) from error

    def _away(self) -> ConfigError | OverloadedError:
        if self._opened:
            return OverloadedError("token: it does not answer")
        return ConfigError(
            "token: it is not there, or cannot be used",
            place="pkcs11_token",
            remedy="connect it, and compare its label with what the library's own tool lists",
        )

    def __repr__(self) -> str:
        return f"Pkcs11Token({self._label})"


def _wrong_pin() -> ConfigError:
    return ConfigError(
        "token: the PIN is refused, or does not count any more",
        place="pkcs11_pin_file",
        remedy="put the right PIN into the file and start again; it is not tried twice, since that locks tokens",
    )


def _objects(session: Session, label: str) -> list[Object]:
    """Private and public key of a label."""
    # python-pkcs11 writes a traceback to stderr where a search begins in a session that is lost, so ask that first.
    session.generate_random(_PROBE_BITS)
    return [
        one
        for kind in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
        for one in session.get_objects(
            {Attribute.CLASS: kind, Attribute.KEY_TYPE: KeyType.EC_EDWARDS, Attribute.LABEL: label}
        )
    ]


def _private_key(login: _Login, label: str) -> SignMixin:
    if label not in login.keys:
        found = [one for one in _objects(login.session, label) if isinstance(one, SignMixin)]
        if len(found) != 1:
            raise ConfigError(
                "token: it does not hold our signing key",
                place="pkcs11_token",
                remedy="put back the token that the key was made in, or its backup; without it the key is lost",
            )
        login.keys[label] = found[0]
    return login.keys[label]


def _generate(session: Session, label: str) -> bytes:
    """Make, look at and try a key; destroyed again unless it is as it must be."""
    made: list[Object] = []
    try:
        made += _key_pair(session, label)
        public = _public_half(made)
        private = next((one for one in made if isinstance(one, PrivateKey) and isinstance(one, SignMixin)), None)
        if private is None:
            raise ConfigError("token: its new key does not sign", remedy="use another token")
        if not private[Attribute.SENSITIVE] or private[Attribute.EXTRACTABLE]:
            raise ConfigError("token: it would let the private key out", remedy="use another token")
        trial = bytes(LONGEST_MESSAGE_BYTES)
        try:
            raw = private.sign(trial, mechanism=Mechanism.EDDSA)
            ed25519.Ed25519PublicKey.from_public_bytes(public).verify(raw, trial)
        except (PKCS11Error, InvalidSignature) as error:
            raise ConfigError(
                f"token: it signs no messages of {LONGEST_MESSAGE_BYTES} bytes", remedy="use another token"
            ) from error
    except BaseException as error:
        for one in made:
            with suppress(PKCS11Error):
                one.destroy()
        if isinstance(error, PKCS11Error) and not isinstance(error, _LOST_FAULTS):
            raise ConfigError(
                "token: it makes no Ed25519 key", remedy="ask for a token that does (PKCS #11 3.0), with room for it"
            ) from error
        raise
    return public


def _key_pair(session: Session, label: str) -> tuple[Object, Object]:
    """A new pair of objects in the token; the curve is named in the way that the token knows."""
    for form in _CURVE_FORMS:
        curve = session.create_domain_parameters(KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: form}, local=True)
        try:
            return curve.generate_keypair(
                label=label,
                store=True,
                mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
                private_template={
                    Attribute.PRIVATE: True,
                    Attribute.SENSITIVE: True,
                    Attribute.EXTRACTABLE: False,
                },
            )
        except PKCS11Error:  # tokens have no one word for a curve that they do not know
            if form == _CURVE_FORMS[-1]:
                raise
    raise AssertionError("the last form returns or raises")


def _public_half(made: list[Object]) -> bytes:
    """The 32 bytes of a public key, however the token wraps them."""
    point = bytes(next(one for one in made if not isinstance(one, PrivateKey))[Attribute.EC_POINT])
    # PKCS #11 3.0 2.3.5 has an OCTET STRING; others write the bytes alone, or the BIT STRING of RFC 8410.
    for wrapping in (b"\x04\x20", b"", b"\x03\x21\x00"):
        if len(point) == len(wrapping) + ED25519_PUBLIC_BYTES and point.startswith(wrapping):
            return point[len(wrapping) :]
    raise ConfigError("token: its public key is not written as an Ed25519 key", remedy="use another token")
