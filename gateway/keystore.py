"""Keys at rest: one file under a passphrase for the gateway, one for each administrator.

`keystore.json` holds every private key of a gateway: the signing pair, the opening keys (the newest and those that
still overlap), the token key, the log's and the witness's checkpoint keys, and the master data key. It is a
`PassphraseBox` (Argon2id, AES-256-GCM) with mode 0600. A lost passphrase cannot be recovered; a stolen file is worth
what the passphrase is worth.

A file is written beside its place, synced, then put there in one step, so that a crash leaves the old one or the new
one. Creating never replaces a file that is already there: its keys would be gone for ever.

Private bytes leave this module only inside key objects, and `repr` shows key ids. Python cannot wipe memory, so swap
and core dumps belong off on the machine that holds these keys.
"""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway.crypto import canonical
from gateway.crypto.checkpoint import CheckpointKey, KeyKind
from gateway.crypto.keys import SEED_BYTES, SYSTEM_RANDOM, OpeningKey, Random, SealingKey, SigningKey, TokenKey
from gateway.crypto.seal import MAX_BOX_BYTES, RFC9106_SECOND, Argon2Cost, DataKey, PassphraseBox
from gateway.errors import ConfigError, ConflictError, GatewayError, MalformedError, VerificationError
from gateway.model import MAX_TEXT_CHARS, int_member, require, text_member

MIN_PASSPHRASE_CHARS = 12  # what Argon2id then leaves to guess needs years, unless the phrase is a known one
MAX_OPENING_KEYS = 24  # monthly renewal with two years of overlap

_GATEWAY_LABEL = "gateway keystore 1"
_PERSONAL_LABEL = "administrator key 1"
_SIGNING_MEMBERS = ("signing_ed25519", "signing_mldsa65")
_SEED_MEMBERS = (*_SIGNING_MEMBERS, "token", "log", "witness", "master")


@dataclass(frozen=True, slots=True)
class HeldOpeningKey:
    """An opening key and when it was made (Unix seconds)."""

    key: OpeningKey
    created: int


@dataclass(frozen=True, slots=True)
class _Secrets:
    """The opened content of a keystore."""

    seeds: dict[str, bytes] = field(repr=False)
    opening: tuple[HeldOpeningKey, ...]

    def dump(self) -> bytes:
        opening = [{"created": held.created, "seed": held.key.seed.hex()} for held in self.opening]
        return canonical.encode({**{name: seed.hex() for name, seed in self.seeds.items()}, "opening": opening})

    @classmethod
    def parse(cls, raw: bytes) -> _Secrets:
        value: object = canonical.parse_canonical(raw, max_bytes=MAX_BOX_BYTES)
        if not isinstance(value, dict) or set(value) != {*_SEED_MEMBERS, "opening"}:
            raise MalformedError("keystore: members are not those of version 1")
        opening = value["opening"]
        require(isinstance(opening, list) and 0 < len(opening) <= MAX_OPENING_KEYS, "keystore: no opening key")
        return cls(
            {name: _seed_member(value, name) for name in _SEED_MEMBERS},
            tuple(HeldOpeningKey(OpeningKey(_seed_member(e, "seed")), int_member(e, "created")) for e in opening),
        )


class Keystore:
    """The opened keystore of one gateway. Made by `create` or `open`."""

    __slots__ = ("_cost", "_path", "_secrets", "master_key", "signing_key", "token_key")

    def __init__(self, path: Path, contents: _Secrets, cost: Argon2Cost) -> None:
        self._path = path
        self._secrets = contents
        self._cost = cost
        seeds = contents.seeds
        self.signing_key = SigningKey(*(seeds[name] for name in _SIGNING_MEMBERS))
        self.token_key = TokenKey(seeds["token"])
        self.master_key = DataKey(seeds["master"])

    @classmethod
    def create(
        cls,
        path: Path,
        passphrase: str,
        *,
        now: int,
        random: Random = SYSTEM_RANDOM,
        cost: Argon2Cost = RFC9106_SECOND,
    ) -> Keystore:
        """Make all keys of a new gateway and write them to `path`.

        Args:
            now: Unix seconds; the age of the first opening key.
            cost: of one guess at the passphrase; lower only for synthetic data.

        Raises:
            ConfigError: a file is already there, the passphrase is too short, or the file cannot be written.
        """
        _check_new_passphrase(passphrase)
        seeds = {name: random.bytes(SEED_BYTES) for name in _SEED_MEMBERS}
        contents = _Secrets(seeds, (HeldOpeningKey(OpeningKey.generate(random), now),))
        box = PassphraseBox(_GATEWAY_LABEL, cost)
        _write(path, box.seal(passphrase, contents.dump(), random), replace_file=False)
        return cls(path, contents, cost)

    @classmethod
    def open(cls, path: Path, passphrase: str) -> Keystore:
        """The keystore in `path`.

        Raises:
            ConfigError: no such file, readable by others, wrong passphrase, or damaged; the remedy says what to do.
        """
        cost, secret = _open_box(path, passphrase, _GATEWAY_LABEL)
        try:
            return cls(path, _Secrets.parse(secret), cost)
        except MalformedError as error:
            raise _damaged() from error

    @property
    def opening_keys(self) -> tuple[OpeningKey, ...]:
        """All keys that still open envelopes, newest first."""
        return tuple(held.key for held in self.held_opening_keys)

    @property
    def held_opening_keys(self) -> tuple[HeldOpeningKey, ...]:
        """The opening keys with their age, newest first."""
        return self._secrets.opening

    @property
    def sealing_key(self) -> SealingKey:
        """What partners should seal for: the public half of the newest opening key."""
        return self._secrets.opening[0].key.public

    def log_key(self, origin: str) -> CheckpointKey:
        """The key that signs this gateway's checkpoints, under the name of its log."""
        return CheckpointKey.from_seed(origin, self._secrets.seeds["log"])

    def witness_key(self, name: str) -> CheckpointKey:
        """The key that cosigns partners' checkpoints."""
        return CheckpointKey.from_seed(name, self._secrets.seeds["witness"], KeyKind.COSIGNER)

    def add_opening_key(self, passphrase: str, *, now: int, random: Random = SYSTEM_RANDOM) -> None:
        """Make a fresh opening key the newest; the others go on opening what was sealed for them."""
        if len(self._secrets.opening) == MAX_OPENING_KEYS:
            raise ConflictError("keystore: too many opening keys overlap", remedy="drop the oldest first")
        newest = HeldOpeningKey(OpeningKey.generate(random), now)
        self._save(passphrase, replace(self._secrets, opening=(newest, *self._secrets.opening)), random)

    def drop_opening_keys(self, passphrase: str, *, created_before: int, random: Random = SYSTEM_RANDOM) -> int:
        """Destroy opening keys made before `created_before` (Unix seconds), never the newest. Returns how many.

        What was sealed for a dropped key can never be opened again. That is its purpose.
        """
        newest, *older = self._secrets.opening
        kept = tuple(held for held in older if held.created >= created_before)
        if len(kept) < len(older):
            self._save(passphrase, replace(self._secrets, opening=(newest, *kept)), random)
        return len(older) - len(kept)

    def _save(self, passphrase: str, contents: _Secrets, random: Random) -> None:
        # The passphrase is not kept, so it is asked for again, and proved before it seals anything.
        _open_box(self._path, passphrase, _GATEWAY_LABEL)
        box = PassphraseBox(_GATEWAY_LABEL, self._cost)
        _write(self._path, box.seal(passphrase, contents.dump(), random), replace_file=True)
        self._secrets = contents

    def __repr__(self) -> str:
        opening = ", ".join(held.key.public.key_id for held in self._secrets.opening)
        return f"Keystore(signing={self.signing_key.public.key_set_id}, opening=[{opening}])"


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


def _check_new_passphrase(passphrase: str) -> None:
    if len(passphrase) < MIN_PASSPHRASE_CHARS:
        raise ConfigError(
            f"keystore: a passphrase needs at least {MIN_PASSPHRASE_CHARS} characters",
            remedy="take five or more words that nobody would guess together",
        )


def _open_box(path: Path, passphrase: str, label: str) -> tuple[Argon2Cost, bytes]:
    """The secret of a file, and what a guess at it costs."""
    raw = _read(path)
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


# Files


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            raw = file.read(MAX_BOX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            "keystore: the file cannot be read", remedy="check that it is there and that this user may read it"
        ) from error
    # As ssh does: a private key that others can read has been read.
    if mode & 0o077:
        raise ConfigError(
            "keystore: others may read the file",
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
        raise ConfigError(
            "keystore: the file cannot be written", remedy="check the folder, its rights and free space"
        ) from error


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
