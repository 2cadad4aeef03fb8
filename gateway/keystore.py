"""Keys at rest: one file under a passphrase for the gateway, one for each administrator.

`keystore.json` holds every private key of a gateway: signing pairs (the active one, and its announced successor), token
keys, opening keys (the newest and those that still overlap), the log's checkpoint key (while a restored gateway waits
for its restore statement, also that of the log that will begin), the witness's, and the master data key. It is a
`PassphraseBox` (Argon2id, AES-256-GCM) with mode 0600. A lost passphrase cannot be recovered; a stolen file is worth
what the passphrase is worth.

Rules:

1. A file is written beside its place, synced, then put there in one step, so that a crash leaves the old one or the new
   one. Creating never replaces a file that is already there: its keys would be gone for ever.
2. Several processes, and several nodes over a shared file, use one keystore: who changes it holds a lock and starts
   from the file as it is, and everybody else notices the change at the next use and reads it again.
3. With a PKCS#11 token new signing pairs keep their Ed25519 half in the token; the file then has its label and public
   half. The ML-DSA-65 half is a seed in the file all the same: no token in use makes such keys yet. The token is opened
   when it signs, so what needs no signature (a pause, a look at the log) works while it is away.
4. A backup holds all of it but the opening keys, under the same passphrase (`backup_box`): what was sealed for a
   gateway that is gone stays closed to whoever gets hold of a backup. A restored gateway makes new ones.
5. What state a key is in stands in the database and in the log (`keyadmin`). Here is only which private halves exist,
   and which of them is used. A key that the database does not know has never been announced to anybody.

The passphrase stays in memory while the keystore is open, beside the keys that it protects: keys are renewed by
themselves, at night. Private bytes leave this module only inside key objects, and `repr` shows key ids. Python cannot
wipe memory, so swap and core dumps belong off on the machine that holds these keys.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gateway.crypto import canonical
from gateway.crypto.checkpoint import CheckpointKey, KeyKind, number_of_log
from gateway.crypto.keys import (
    SEED_BYTES,
    SYSTEM_RANDOM,
    Ed25519Signer,
    OpeningKey,
    Random,
    SealingKey,
    SigningKey,
    TokenKey,
)
from gateway.crypto.seal import MAX_BOX_BYTES, RFC9106_SECOND, Argon2Cost, DataKey, PassphraseBox
from gateway.errors import ConfigError, ConflictError, GatewayError, MalformedError, NotFoundError, VerificationError
from gateway.model import MAX_TEXT_CHARS, int_member, require, text_member

if TYPE_CHECKING:  # its library is there only where a token is used
    from gateway.crypto.pkcs11 import Pkcs11Token

MIN_PASSPHRASE_CHARS = 12  # what Argon2id then leaves to guess needs years, unless the phrase is a known one
MAX_PIN_FILE_BYTES = 256  # PINs of tokens have up to 64 characters or so
MAX_HELD_KEYS = 64  # of one kind: daily renewal with two months of overlap and retention

_GATEWAY_LABEL = "gateway keystore 1"
_PERSONAL_LABEL = "administrator key 1"
_BACKUP_LABEL = "gateway keystore backup 1"
_OFFLINE_LABEL = "offline key 1"
_SIGNING_MEMBERS = ("signing_ed25519", "signing_mldsa65")
_FIRST_MEMBERS = {*_SIGNING_MEMBERS, "token", "log", "witness", "master", "opening"}  # before keys were rotated
_SEED_MEMBERS = ("witness", "master")
_MEMBERS = {*_SEED_MEMBERS, "logs", "signing", "token", "opening", "active_signing", "active_token"}
_ONE_LOG_MEMBERS = _MEMBERS - {"logs"} | {"log"}  # before a log could begin anew
_LABEL_PREFIX = "pkcs11:"  # … and the key's label, where a sealed pair has the Ed25519 seed
_TRIAL = b"partner exchange trial signature 1\n"  # nothing that is ever sent begins so
_ROW_MAC_CONTEXT = b"partner exchange row mac 1\n"


@dataclass(frozen=True, slots=True)
class _TokenSigner:
    """An Ed25519 key in a token, by its label. `token` is None where the settings name none (any more)."""

    token: Pkcs11Token | None
    label: str
    public: bytes

    def sign(self, message: bytes, /) -> bytes:
        """The token's signature."""
        return self._there().sign(self.label, self.public, message)

    def destroy(self) -> None:
        """The key is not in the token any more."""
        self._there().destroy(self.label)

    def _there(self) -> Pkcs11Token:
        if self.token is None:
            raise ConfigError(
                "keystore: the signing key is in a PKCS#11 token, and the settings name none",
                place="pkcs11_module",
                remedy="set pkcs11_module, pkcs11_token and pkcs11_pin_file to those that it was made with",
            )
        return self.token


@dataclass(frozen=True, slots=True)
class HeldSigningKey:
    """A signing pair, its number in the agency's succession, and when it was made (Unix seconds)."""

    key: SigningKey
    number: int
    created: int

    @property
    def key_id(self) -> str:
        """The id of the pair."""
        return self.key.public.key_set_id


@dataclass(frozen=True, slots=True)
class HeldTokenKey:
    """A token key and when it was made (Unix seconds)."""

    key: TokenKey
    created: int

    @property
    def key_id(self) -> str:
        """The key's id (not its thumbprint, which is for JOSE alone)."""
        return self.key.key_id


@dataclass(frozen=True, slots=True)
class HeldOpeningKey:
    """An opening key and when it was made (Unix seconds)."""

    key: OpeningKey
    created: int

    @property
    def key_id(self) -> str:
        """The id of its public half."""
        return self.key.public.key_id


@dataclass(frozen=True, slots=True)
class _Secrets:
    """The opened content of a keystore; keys of one kind newest first."""

    seeds: dict[str, bytes] = field(repr=False)
    logs: dict[int, bytes] = field(repr=False)
    signing: tuple[HeldSigningKey, ...]
    token: tuple[HeldTokenKey, ...]
    opening: tuple[HeldOpeningKey, ...]
    active_signing: str
    active_token: str

    def __post_init__(self) -> None:
        for held in (self.signing, self.token, self.opening, self.logs):
            require(held, "keystore: no key of one kind")
        require(self.active_signing in {one.key_id for one in self.signing}, "keystore: no active signing key")
        require(self.active_token in {one.key_id for one in self.token}, "keystore: no active token key")

    def dump(self) -> bytes:
        return canonical.encode(self._members())

    def dump_for_backup(self) -> bytes:
        members = self._members()
        del members["opening"]
        return canonical.encode(members)

    def _members(self) -> dict[str, object]:
        signing = []
        for pair in self.signing:
            first, second = pair.key.seeds
            ed25519 = _dump_in_token(pair.key.ed25519) if first is None else {"ed25519": first.hex()}
            signing.append({"number": pair.number, "created": pair.created, "mldsa65": second.hex(), **ed25519})
        return {
            **{name: seed.hex() for name, seed in self.seeds.items()},
            "logs": {str(number): seed.hex() for number, seed in self.logs.items()},
            "signing": signing,
            "token": [{"created": one.created, "seed": one.key.seed.hex()} for one in self.token],
            "opening": [{"created": one.created, "seed": one.key.seed.hex()} for one in self.opening],
            "active_signing": self.active_signing,
            "active_token": self.active_token,
        }

    @classmethod
    def parse(cls, raw: bytes, token: Pkcs11Token | None) -> _Secrets:
        members = _object(raw)
        if set(members) == _FIRST_MEMBERS:
            members = _brought_up(members)
        if set(members) == _ONE_LOG_MEMBERS:
            members["logs"] = {"1": members.pop("log")}
        return cls._of(members, token)

    @classmethod
    def parse_backup(cls, raw: bytes, opening: HeldOpeningKey, token: Pkcs11Token | None) -> _Secrets:
        """What `dump_for_backup` wrote, with a new opening key in the place of those that are not in it."""
        members = _object(raw)
        members["opening"] = [{"created": opening.created, "seed": opening.key.seed.hex()}]
        return cls._of(members, token)

    @classmethod
    def _of(cls, members: dict[str, object], token: Pkcs11Token | None) -> _Secrets:
        require(set(members) == _MEMBERS, "keystore: members are not those known here")
        logs = members["logs"]
        if not isinstance(logs, dict) or not all(str(number).isdecimal() for number in logs):
            raise MalformedError("keystore: the keys of logs have no numbers")
        return cls(
            {name: _seed_member(members, name) for name in _SEED_MEMBERS},
            {int(number): _seed_member(logs, number) for number in logs},
            tuple(
                HeldSigningKey(
                    SigningKey(_ed25519_member(one, token), _seed_member(one, "mldsa65")),
                    int_member(one, "number"),
                    int_member(one, "created"),
                )
                for one in _entries(members, "signing")
            ),
            tuple(
                HeldTokenKey(TokenKey(_seed_member(one, "seed")), int_member(one, "created"))
                for one in _entries(members, "token")
            ),
            tuple(
                HeldOpeningKey(OpeningKey(_seed_member(one, "seed")), int_member(one, "created"))
                for one in _entries(members, "opening")
            ),
            text_member(members, "active_signing"),
            text_member(members, "active_token"),
        )


def _object(raw: bytes) -> dict[str, object]:
    value: object = canonical.parse_canonical(raw, max_bytes=MAX_BOX_BYTES)
    if not isinstance(value, dict):
        raise MalformedError("keystore: not an object")
    return dict(value)


def _brought_up(members: dict[str, object]) -> dict[str, object]:
    """The members of a keystore that was made before keys were rotated, as they were after. Its keys are of its first
    day, which the first opening key remembers."""
    first, second = (_seed_member(members, name) for name in _SIGNING_MEMBERS)
    token = TokenKey(_seed_member(members, "token"))
    opening = _entries(members, "opening")
    created = min((int_member(one, "created") for one in opening), default=0)
    return {
        **{name: members[name] for name in (*_SEED_MEMBERS, "log")},
        "signing": [{"number": 1, "created": created, "ed25519": first.hex(), "mldsa65": second.hex()}],
        "token": [{"created": created, "seed": token.seed.hex()}],
        "opening": opening,
        "active_signing": SigningKey(first, second).public.key_set_id,
        "active_token": token.key_id,
    }


class Keystore:
    """The opened keystore of one gateway. Made by `create` or `open`; safe for threads."""

    def __init__(
        self, path: Path, contents: _Secrets, cost: Argon2Cost, passphrase: str, token: Pkcs11Token | None
    ) -> None:
        self._path = path
        self._token = token
        self._secrets = contents
        self._cost = cost
        self._passphrase = passphrase
        self._changing = threading.RLock()
        self._version = _version(path)
        self.master_key = DataKey(contents.seeds["master"])
        self._mac_key = hmac.digest(contents.seeds["master"], _ROW_MAC_CONTEXT, hashlib.sha256)

    @classmethod
    def create(
        cls,
        path: Path,
        passphrase: str,
        *,
        now: int,
        token: Pkcs11Token | None = None,
        random: Random = SYSTEM_RANDOM,
        cost: Argon2Cost = RFC9106_SECOND,
    ) -> Keystore:
        """Make all keys of a new gateway and write them to `path`.

        Args:
            now: Unix seconds; the age of the first keys.
            token: where signing keys are made, None for the file itself.
            cost: of one guess at the passphrase; lower only for synthetic data.

        Raises:
            ConfigError: a file is already there, the passphrase is too short, the file cannot be written, or the token
                cannot be used.
        """
        _check_new_passphrase(passphrase)
        signing = HeldSigningKey(_new_signing_key(1, token, random), 1, now)
        caller = HeldTokenKey(TokenKey.generate(random), now)
        seeds = {name: random.bytes(SEED_BYTES) for name in _SEED_MEMBERS}
        logs = {1: random.bytes(SEED_BYTES)}
        opening = HeldOpeningKey(OpeningKey.generate(random), now)
        contents = _Secrets(seeds, logs, (signing,), (caller,), (opening,), signing.key_id, caller.key_id)
        box = PassphraseBox(_GATEWAY_LABEL, cost)
        with _unless_it_fails(signing.key):
            _write(path, box.seal(passphrase, contents.dump(), random), replace_file=False)
        return cls(path, contents, cost, passphrase, token)

    @classmethod
    def open(cls, path: Path, passphrase: str, *, token: Pkcs11Token | None = None) -> Keystore:
        """The keystore in `path`.

        Args:
            token: where signing keys are made and used, None for the file itself. It is not asked yet.

        Raises:
            ConfigError: no such file, readable by others, wrong passphrase, or damaged; the remedy says what to do.
        """
        cost, contents = _read_secrets(path, passphrase, token)
        return cls(path, contents, cost, passphrase, token)

    @classmethod
    def from_backup(
        cls,
        path: Path,
        raw: bytes,
        passphrase: str,
        *,
        now: int,
        token: Pkcs11Token | None = None,
        random: Random = SYSTEM_RANDOM,
    ) -> Keystore:
        """Write the keystore of a backup to `path`, with a new opening key: backups hold none.

        Args:
            raw: what `backup_box` gave.
            passphrase: that of the gateway when the backup was made; it stays the keystore's.
            now: Unix seconds; the age of the new key.

        Raises:
            ConfigError: wrong passphrase, damaged, a file is already there, or it cannot be written.
        """
        cost, secret = _opened(raw, passphrase, _BACKUP_LABEL)
        try:
            contents = _Secrets.parse_backup(secret, HeldOpeningKey(OpeningKey.generate(random), now), token)
        except MalformedError as error:
            raise _damaged() from error
        _write(path, PassphraseBox(_GATEWAY_LABEL, cost).seal(passphrase, contents.dump(), random), replace_file=False)
        return cls(path, contents, cost, passphrase, token)

    def backup_box(self, random: Random = SYSTEM_RANDOM) -> bytes:
        """All keys but the opening keys, sealed under the passphrase."""
        box = PassphraseBox(_BACKUP_LABEL, self._cost)
        return box.seal(self._passphrase, self._current().dump_for_backup(), random)

    # What is used

    @property
    def signing_key(self) -> SigningKey:
        """The pair that signs now."""
        return self.held_signing_key.key

    @property
    def held_signing_key(self) -> HeldSigningKey:
        """The pair that signs now, with its number and age."""
        now = self._current()
        return next(one for one in now.signing if one.key_id == now.active_signing)

    @property
    def token_key(self) -> TokenKey:
        """The key that signs client assertions and DPoP proofs now."""
        now = self._current()
        return next(one.key for one in now.token if one.key_id == now.active_token)

    @property
    def opening_keys(self) -> tuple[OpeningKey, ...]:
        """All keys that still open envelopes, newest first."""
        return tuple(held.key for held in self.held_opening_keys)

    @property
    def sealing_key(self) -> SealingKey:
        """The public half of the newest opening key."""
        return self._current().opening[0].key.public

    @property
    def held_signing_keys(self) -> tuple[HeldSigningKey, ...]:
        """All signing pairs, newest first."""
        return self._current().signing

    @property
    def held_token_keys(self) -> tuple[HeldTokenKey, ...]:
        """All token keys, newest first."""
        return self._current().token

    @property
    def held_opening_keys(self) -> tuple[HeldOpeningKey, ...]:
        """The opening keys with their age, newest first."""
        return self._current().opening

    @property
    def log_numbers(self) -> tuple[int, ...]:
        """The logs whose keys are held, oldest first: one, and while a restore is under way the next one as well."""
        return tuple(sorted(self._current().logs))

    def log_key(self, origin: str) -> CheckpointKey:
        """The key that signs this gateway's checkpoints, under the name of its log.

        Raises:
            NotFoundError: the key of this log is not held, or not any more.
        """
        seed = self._current().logs.get(number_of_log(origin))
        if seed is None:
            raise NotFoundError("keystore: the key of this log is not held")
        return CheckpointKey.from_seed(origin, seed)

    def witness_key(self, name: str) -> CheckpointKey:
        """The key that cosigns partners' checkpoints."""
        return CheckpointKey.from_seed(name, self._secrets.seeds["witness"], KeyKind.COSIGNER)

    def check_signing(self) -> None:
        """Returns when the pair that signs now does sign.

        Raises:
            ConfigError, OverloadedError: its token is not there, refuses the PIN or has another key.
        """
        self.signing_key.sign(_TRIAL)

    def row_mac(self, row: bytes) -> bytes:
        """The MAC of a database row that nobody but this gateway may write."""
        return hmac.digest(self._mac_key, row, hashlib.sha256)

    # Changes

    def add_signing_key(self, *, now: int, random: Random = SYSTEM_RANDOM) -> HeldSigningKey:
        """Make the next pair of the succession, in the token if there is one. It signs nothing before it is activated.

        Raises:
            ConfigError, OverloadedError: the token cannot be used, or does not answer.
        """
        with ExitStack() as made:

            def added(held: _Secrets) -> _Secrets:
                number = held.signing[0].number + 1
                pair = HeldSigningKey(_new_signing_key(number, self._token, random), number, now)
                made.enter_context(_unless_it_fails(pair.key))
                return replace(held, signing=(pair, *held.signing))

            return self._change(added, random).signing[0]

    def activate_signing_key(self, key_id: str, *, random: Random = SYSTEM_RANDOM) -> None:
        """Sign with this pair from now on."""
        self._change(lambda held: replace(held, active_signing=key_id), random)

    def drop_signing_key(self, key_id: str, *, random: Random = SYSTEM_RANDOM) -> bool:
        """Destroy a pair that does not sign any more, in the token as well. False when it was gone.

        Raises:
            ConfigError, OverloadedError: its token is not there; the pair is still held.
        """

        def without(held: _Secrets) -> _Secrets:
            # The token first: a crash between the two leaves an entry without its key, which can be dropped again.
            for one in held.signing:
                if one.key_id == key_id and isinstance(one.key.ed25519, _TokenSigner):
                    one.key.ed25519.destroy()
            return replace(held, signing=_without(held.signing, key_id))

        return self._drop(key_id, random, without)

    def add_token_key(self, *, now: int, random: Random = SYSTEM_RANDOM) -> HeldTokenKey:
        """Make another token key. It is not used before it is activated."""
        held = HeldTokenKey(TokenKey.generate(random), now)
        return self._change(lambda old: replace(old, token=(held, *old.token)), random).token[0]

    def activate_token_key(self, key_id: str, *, random: Random = SYSTEM_RANDOM) -> None:
        """Call partners with this key from now on."""
        self._change(lambda held: replace(held, active_token=key_id), random)

    def drop_token_key(self, key_id: str, *, random: Random = SYSTEM_RANDOM) -> bool:
        """Destroy a token key that is not used any more. False when it was gone."""
        return self._drop(key_id, random, lambda held: replace(held, token=_without(held.token, key_id)))

    def add_opening_key(self, *, now: int, random: Random = SYSTEM_RANDOM) -> HeldOpeningKey:
        """Make a fresh opening key the newest; the others go on opening what was sealed for them."""
        held = HeldOpeningKey(OpeningKey.generate(random), now)
        return self._change(lambda old: replace(old, opening=(held, *old.opening)), random).opening[0]

    def drop_opening_key(self, key_id: str, *, random: Random = SYSTEM_RANDOM) -> bool:
        """Destroy an opening key, never the newest. False when it was gone.

        What was sealed for a dropped key can never be opened again. That is its purpose.
        """
        return self._drop(key_id, random, lambda held: replace(held, opening=_without(held.opening, key_id)))

    def add_log_key(self, *, random: Random = SYSTEM_RANDOM) -> int:
        """Make the key of the log that follows the newest; returns its number."""

        def added(held: _Secrets) -> _Secrets:
            return replace(held, logs={**held.logs, max(held.logs) + 1: random.bytes(SEED_BYTES)})

        return max(self._change(added, random).logs)

    def keep_log_key(self, number: int, *, random: Random = SYSTEM_RANDOM) -> None:
        """Destroy the keys of all logs but this one: nobody signs another head of a log that has ended."""
        self._change(lambda held: replace(held, logs={number: held.logs[number]}), random)

    def discard(self) -> None:
        """Destroy the file and the keys in the token, of a gateway that was never founded after all."""
        for one in self._secrets.signing:
            if isinstance(one.key.ed25519, _TokenSigner):
                with suppress(GatewayError):
                    one.key.ed25519.destroy()
        with suppress(OSError):
            self._path.unlink()

    def _drop(self, key_id: str, random: Random, without: Callable[[_Secrets], _Secrets]) -> bool:
        dropped = False

        def change(held: _Secrets) -> _Secrets:
            nonlocal dropped
            if key_id in (held.active_signing, held.active_token, held.opening[0].key_id):
                raise ConflictError("keystore: this key is in use", remedy="put another in its place first")
            after = without(held)
            dropped = after != held
            return after

        self._change(change, random)
        return dropped

    def _change(self, change: Callable[[_Secrets], _Secrets], random: Random) -> _Secrets:
        """Change the file, whoever else may be changing it; returns the content as it is then."""
        with self._changing, _locked(self._path):
            _, before = _read_secrets(self._path, self._passphrase, self._token)
            try:
                after = change(before)
            except MalformedError as error:
                raise NotFoundError("keystore: there is no such key", remedy="`gateway key list` names them") from error
            if max(len(after.signing), len(after.token), len(after.opening)) > MAX_HELD_KEYS:
                raise ConflictError("keystore: too many keys of one kind", remedy="`gateway key list`: let old ones go")
            if after != before:
                box = PassphraseBox(_GATEWAY_LABEL, self._cost)
                _write(self._path, box.seal(self._passphrase, after.dump(), random), replace_file=True)
            self._version, self._secrets = _version(self._path), after
            return after

    def _current(self) -> _Secrets:
        """The content; read again where another process has changed the file."""
        if _version(self._path) not in (self._version, None):
            with self._changing:
                # The version first: a change between the two is then noticed the next time.
                version = _version(self._path)
                _, self._secrets = _read_secrets(self._path, self._passphrase, self._token)
                self._version = version
        return self._secrets

    def __repr__(self) -> str:
        opening = ", ".join(held.key_id for held in self._secrets.opening)
        return f"Keystore(signing={self._secrets.active_signing}, opening=[{opening}])"


def _read_secrets(path: Path, passphrase: str, token: Pkcs11Token | None) -> tuple[Argon2Cost, _Secrets]:
    cost, secret = _open_box(path, passphrase, _GATEWAY_LABEL)
    try:
        return cost, _Secrets.parse(secret, token)
    except MalformedError as error:
        raise _damaged() from error


def _new_signing_key(number: int, token: Pkcs11Token | None, random: Random) -> SigningKey:
    """A fresh pair, its Ed25519 half in the token if there is one."""
    if token is None:
        return SigningKey.generate(random)
    # Random, since several gateways may share a token, and a try that failed may have left a key there.
    label = f"gateway signing {number} {random.bytes(4).hex()}"
    return SigningKey(_TokenSigner(token, label, token.generate(label)), random.bytes(SEED_BYTES))


@contextmanager
def _unless_it_fails(key: SigningKey) -> Iterator[None]:
    """Destroys a new key in its token again if the block does not end well: nobody will ever ask for it."""
    try:
        yield
    except BaseException:
        if isinstance(key.ed25519, _TokenSigner):
            with suppress(GatewayError):
                key.ed25519.destroy()
        raise


def _dump_in_token(signer: Ed25519Signer) -> dict[str, str]:
    if not isinstance(signer, _TokenSigner):
        raise TypeError("a key is held as a seed or in a token")
    return {"ed25519": f"{_LABEL_PREFIX}{signer.label}", "public": signer.public.hex()}


def _ed25519_member(entry: dict[str, object], token: Pkcs11Token | None) -> bytes | _TokenSigner:
    """The seed of an entry, or the key in the token that it names."""
    text = text_member(entry, "ed25519")
    if not text.startswith(_LABEL_PREFIX):
        return _seed_member(entry, "ed25519")
    return _TokenSigner(token, text.removeprefix(_LABEL_PREFIX), _seed_member(entry, "public"))


_Held = TypeVar("_Held", HeldSigningKey, HeldTokenKey, HeldOpeningKey)


def _without(held: tuple[_Held, ...], key_id: str) -> tuple[_Held, ...]:
    return tuple(one for one in held if one.key_id != key_id)


def _entries(members: dict[str, object], name: str) -> list[dict[str, object]]:
    found = members[name]
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise MalformedError("keystore: keys of one kind are not a list of objects")
    return found


@dataclass(frozen=True, slots=True)
class PersonalKey:
    """An administrator's own signing key: guarded acts are signed with it, never with the gateway's."""

    name: str
    signing_key: SigningKey


def create_personal(
    path: Path,
    name: str,
    passphrase: str,
    *,
    random: Random = SYSTEM_RANDOM,
    cost: Argon2Cost = RFC9106_SECOND,
) -> PersonalKey:
    """Make the signing key of administrator `name` and write it to `path` under a passphrase of their own.

    Raises:
        ConfigError: as `Keystore.create`.
    """
    _check_new_passphrase(passphrase)
    require(0 < len(name) <= MAX_TEXT_CHARS, "administrator: no name, or a name that is too long")
    seeds = {member: random.bytes(SEED_BYTES) for member in _SIGNING_MEMBERS}
    secret = canonical.encode({"name": name, **{member: seed.hex() for member, seed in seeds.items()}})
    _write(path, PassphraseBox(_PERSONAL_LABEL, cost).seal(passphrase, secret, random), replace_file=False)
    return PersonalKey(name, SigningKey(*seeds.values()))


def open_personal(path: Path, passphrase: str) -> PersonalKey:
    """The administrator's key in `path`. Raises ConfigError as `Keystore.open`."""
    _, secret = _open_box(path, passphrase, _PERSONAL_LABEL)
    try:
        value: object = canonical.parse_canonical(secret, max_bytes=MAX_BOX_BYTES)
        if not isinstance(value, dict) or set(value) != {"name", *_SIGNING_MEMBERS}:
            raise MalformedError("administrator: members are not those of version 1")
        signing_key = SigningKey(*(_seed_member(value, member) for member in _SIGNING_MEMBERS))
        return PersonalKey(text_member(value, "name"), signing_key)
    except MalformedError as error:
        raise _damaged() from error


def create_offline(
    path: Path, passphrase: str | None, *, random: Random = SYSTEM_RANDOM, cost: Argon2Cost = RFC9106_SECOND
) -> SealingKey:
    """Make the key that opens backups and write it to `path`; returns its public half, which seals them.

    Args:
        passphrase: None for an identity file as age has it, which any `age` with hybrid support reads.

    Raises:
        ConfigError: as `Keystore.create`.
    """
    key = OpeningKey.generate(random)
    raw = f"# public key: {key.public}\n{key.to_identity()}\n".encode("ascii")
    if passphrase is not None:
        _check_new_passphrase(passphrase)
        raw = PassphraseBox(_OFFLINE_LABEL, cost).seal(passphrase, raw, random)
    _write(path, raw, replace_file=False)
    return key.public


def open_offline(path: Path, passphrase: Callable[[], str]) -> OpeningKey:
    """The key in `path`, an identity file of age or one under a passphrase, which is then asked for.

    Raises:
        ConfigError: no such file, readable by others, wrong passphrase, or not one identity.
    """
    raw = _read(path, "offline key")
    if raw.startswith(b"{"):
        _, raw = _opened(raw, passphrase(), _OFFLINE_LABEL)
    lines = [line for line in raw.decode("ascii", "replace").splitlines() if line.strip() and not line.startswith("#")]
    try:
        require(len(lines) == 1, "offline key: not one identity")
        return OpeningKey.parse(lines[0].strip())
    except MalformedError as error:
        raise ConfigError(
            "offline key: the file holds no AGE-SECRET-KEY-PQ-1 identity", remedy="give the file of `backup key`"
        ) from error


def _check_new_passphrase(passphrase: str) -> None:
    if len(passphrase) < MIN_PASSPHRASE_CHARS:
        raise ConfigError(
            f"keystore: a passphrase needs at least {MIN_PASSPHRASE_CHARS} characters",
            remedy="take five or more words that nobody would guess together",
        )


def _open_box(path: Path, passphrase: str, label: str) -> tuple[Argon2Cost, bytes]:
    """The secret of a file, and what a guess at it costs."""
    return _opened(_read(path), passphrase, label)


def _opened(raw: bytes, passphrase: str, label: str) -> tuple[Argon2Cost, bytes]:
    box = PassphraseBox(label)
    try:
        return box.cost_of(raw), box.open(passphrase, raw)
    except VerificationError as error:
        raise ConfigError(
            "keystore: the passphrase does not open it", remedy="type the passphrase again; there is no way round it"
        ) from error
    except MalformedError as error:
        raise _damaged() from error


def _damaged() -> GatewayError:
    return ConfigError(
        "keystore: not a key file of this kind, or damaged", remedy="give the right file, or restore it from its backup"
    )


def _seed_member(value: object, name: str) -> bytes:
    if not isinstance(value, dict):
        raise MalformedError("keystore: an entry is not an object")
    try:
        return bytes.fromhex(text_member(value, name))
    except ValueError as error:
        raise MalformedError("keystore: a seed is not hex") from error


def read_pin(path: Path) -> str:
    """The PIN of a token in `path`: one line, in a file that only this user can read.

    Raises:
        ConfigError: no such file, readable by others, or not one line of text.
    """
    raw = _read(path, "PIN", MAX_PIN_FILE_BYTES)
    pin = raw.decode("utf-8", errors="replace").rstrip("\r\n")
    if not pin or not pin.isprintable() or "\ufffd" in pin or len(raw) > MAX_PIN_FILE_BYTES:
        raise ConfigError("PIN: the file does not hold one line of text", remedy="write the PIN into it, nothing else")
    return pin


# Files


def _version(path: Path) -> tuple[int, int, int] | None:
    """What tells one content of a file from the next; None while it cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One change at a time, among all processes that share the file."""
    try:
        descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _not_written() from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path, what: str = "keystore", max_bytes: int = MAX_BOX_BYTES) -> bytes:
    """The content of a secret's file, one byte more than `max_bytes` at most; `what` is what people see."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            raw = file.read(max_bytes + 1)
    except OSError as error:
        raise ConfigError(
            f"{what}: the file cannot be read", remedy="check that it is there and that this user may read it"
        ) from error
    # As ssh does: a private key that others can read has been read.
    if mode & 0o077:
        raise ConfigError(
            f"{what}: others may read the file",
            remedy=f"set its mode to 600 (chmod 600 {path.name}), and find out who did",
        )
    return raw


def _write(path: Path, raw: bytes, *, replace_file: bool) -> None:
    """Put `raw` at `path` in one step. A crash before that step leaves at most a sealed draft, which the next write
    removes: it may hold keys that are meant to be destroyed."""
    try:
        draft = _write_draft(path, raw)
        try:
            if replace_file:
                draft.replace(path)
            else:
                os.link(draft, path)  # unlike a rename this fails where a file already is
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(path.parent)
        for leftover in path.parent.iterdir():
            if leftover.name.startswith(f".{path.name}.") and leftover.suffix == ".new":
                leftover.unlink(missing_ok=True)
    except FileExistsError as error:
        raise ConfigError(
            "keystore: a file is already there", remedy="keep it: its keys cannot be made again. Choose another place"
        ) from error
    except OSError as error:
        raise _not_written() from error


def _not_written() -> ConfigError:
    return ConfigError("keystore: the file cannot be written", remedy="check the folder, its rights and free space")


def _write_draft(path: Path, raw: bytes) -> Path:
    """A synced file beside `path`, mode 0600, of a name that no other writer uses."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return draft


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
