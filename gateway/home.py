"""The data folder: everything that one gateway keeps, founded once and opened by every command and by the server.

    gateway.toml          settings (`config`)
    keystore.json         private keys, sealed under the passphrase (`keystore`)
    gateway.db            the database, unless the settings name another
    policies/             schema, the federation's rules, the rules of this gateway's jurisdiction
    administrators/       where administrators' own key files go unless they are kept elsewhere

Rules:

1. Founding is one step: the folder is made beside its place and put there whole, mode 0700. A crash before that step
   leaves a folder `.NAME.….new` beside it, whose keys nobody has seen; founding again takes no notice of it.
2. Opening brings the database to the newest schema, and compares the log's newest leaf with its newest checkpoint. The
   policy in force decides; a policy folder that is not as administrators signed it stops the gateway (`activation`).
3. What the founders chose as four eyes cannot be lowered by editing the settings: agency, demo and the least quorum
   are also in the database, and opening compares them. Who is an administrator, how many must sign and where each
   partner stands is proved from the log (`standing`).
4. A folder that was restored from a backup (`backup`) opens for nothing but looking and signing, until its
   administrators have signed that the gateway goes on (`beginning`).

Several processes may have one folder open: the database orders what they do.
"""

from __future__ import annotations

import hmac
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gateway import activation
from gateway.audit import EventKind
from gateway.config import READ_BY_PEOPLE, SETTINGS_FILE, Settings, dump_settings, load_settings, read_policies
from gateway.crypto import checkpoint, merkle
from gateway.crypto.keys import SYSTEM_RANDOM, Random
from gateway.crypto.seal import RFC9106_SECOND, Argon2Cost
from gateway.errors import AuditBrokenError, ConfigError, ConflictError, GatewayError, NotFoundError
from gateway.keystore import Keystore, read_pin
from gateway.model import MAX_TEXT_CHARS
from gateway.node import CheckpointSigner, Clock, Node, Policies, awaits_restore, log_origin, own_log
from gateway.policy import FEDERATION, SCHEMA
from gateway.shipped import policies_path
from gateway.standing import settle
from gateway.store import Store, Transaction

if TYPE_CHECKING:
    from gateway.crypto.pkcs11 import Pkcs11Token

ADMINISTRATORS = "administrators"

AGENCY_META, NAME_META, DEMO_META, QUORUM_META = "agency", "name", "demo", "quorum"

_NO_RULES_YET = """\
// The rules of {jurisdiction}. Without a rule nothing leaves this gateway and nothing is taken in.
// Write one file for each agreement, such as agreement-xb.cedar, and try it with `gateway policy check`.
"""
_README = """\
# The rules of {jurisdiction}

No rules for this jurisdiction came with the program, so this gateway shares nothing and takes nothing yet.
Write one file for each agreement (`agreement-xb.cedar`), with worked examples beside them in `examples.toml`, and try
both with `gateway policy check`. The folders of other jurisdictions, as the program ships them, show how.
"""


def system_clock() -> int:
    """Unix seconds of this machine."""
    return int(time.time())


def found(
    settings: Settings,
    passphrase: str,
    *,
    name: str,
    clock: Clock = system_clock,
    random: Random = SYSTEM_RANDOM,
    cost: Argon2Cost = RFC9106_SECOND,
) -> None:
    """Make `settings.folder`: keys, settings, starter policies, a database whose log begins with this founding.

    Args:
        name: the agency's name for people, as its identity card says it.
        cost: of one guess at the passphrase; lower only for invented data.

    Raises:
        ConfigError: the folder holds something, or cannot be written; the passphrase is too short; no name.
        ConflictError: the database that the settings name belongs to a gateway already.
    """
    if not 0 < len(name) <= MAX_TEXT_CHARS or not name.isprintable():
        raise ConfigError(f"the agency's name is not one line of at most {MAX_TEXT_CHARS} characters")
    with ExitStack() as undoing:
        with put_in_place(settings.folder) as draft:
            building = replace(settings, folder=draft)
            # 1. Keys first: if the passphrase will not do, nothing else needs to be made.
            keystore = Keystore.create(
                building.keystore_path, passphrase, now=clock(), token=open_token(settings), random=random, cost=cost
            )
            undoing.callback(keystore.discard)  # a file elsewhere, a key in a token: neither goes with the draft
            # 2. Settings and starter policies.
            (draft / SETTINGS_FILE).write_text(dump_settings(settings), encoding="utf-8")
            (draft / ADMINISTRATORS).mkdir(mode=0o700)
            if not building.policies_folder.exists():
                _copy_policies(building.policies_folder, settings.jurisdiction)
            # 3. The database, with the first leaves of its log.
            #    Read as every opening reads them: GATEWAY_DATABASE_URL stands over what was written.
            node = assemble(load_settings(draft), keystore, clock, random)
            try:
                node.store.migrate()
                _begin(node, name)
                if building.policies_folder.is_relative_to(draft):
                    activation.bring_folder(node)
            finally:
                node.store.close()
        undoing.pop_all()


def open_home(
    folder: Path,
    passphrase: str,
    *,
    clock: Clock = system_clock,
    random: Random = SYSTEM_RANDOM,
    check_log: bool = True,
    restored: bool = False,
) -> Node:
    """The gateway in a data folder, ready to work.

    Args:
        check_log: False only for looking at a log that may be broken.
        restored: also a gateway whose administrators have not signed yet that it goes on after a restore.

    Raises:
        ConfigError: settings, keys or policies cannot be used; the remedy says what to do.
        AuditBrokenError: the end of the log is not what its checkpoint says.
    """
    # 1. Settings and keys: each checked whole.
    settings = load_settings(folder)
    keystore = Keystore.open(settings.keystore_path, passphrase, token=open_token(settings))
    node = assemble(settings, keystore, clock, random, policies={} if check_log else None)
    try:
        # 2. The database at the newest schema, and of this gateway.
        node.store.migrate()
        with node.store.reading() as tx:
            _check_founded(tx, settings)
            # 3. The end of the log as its checkpoint says.
            if check_log:
                _check_end_of_log(tx, node)
        # 4. Administrators, partners, pauses and the policy in force as the log has them; the policy folder as signed.
        if check_log:
            settle(node)
            activation.settle(node)
        # 5. A restored gateway does nothing before its restore statement is signed; then the old log's key goes.
        _check_restored(node, restored=restored)
    except BaseException:
        node.store.close()
        raise
    return node


def open_token(settings: Settings) -> Pkcs11Token | None:
    """The PKCS#11 token that the settings name, None if they name none. It is asked for nothing before it signs.

    Raises:
        ConfigError: its PIN cannot be read, or `python-pkcs11` is not installed.
    """
    if not settings.pkcs11_module:
        return None
    try:
        from gateway.crypto.pkcs11 import Pkcs11Token  # noqa: PLC0415  only a gateway with a token needs its library
    except ImportError as error:
        raise ConfigError(
            "python-pkcs11 is not installed",
            place="pkcs11_module",
            remedy='install the gateway with it: pip install "partner-exchange-gateway[hsm]"',
        ) from error
    pin = read_pin(settings.path_of(settings.pkcs11_pin_file))
    return Pkcs11Token(str(settings.path_of(settings.pkcs11_module)), settings.pkcs11_token, pin)


def agency_name(node: Node) -> str:
    """The agency's name for people."""
    with node.store.reading() as tx:
        return tx.people.meta(NAME_META) or node.agency


# Founding


@contextmanager
def put_in_place(folder: Path) -> Iterator[Path]:
    """A draft folder that becomes `folder` when the block ends well, and is removed when it does not.

    Raises:
        ConfigError: the folder holds something, or cannot be written.
    """
    folder = folder.absolute()
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError("the data folder exists and is not empty", remedy="choose another with --home")
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".new", dir=folder.parent))
    except OSError as error:
        raise _not_written(error) from error
    try:
        yield draft
        _sync(draft)
        draft.replace(folder)  # over an empty folder as well; fails if one with content has come meanwhile
        _sync(folder.parent)
    except OSError as error:
        raise _not_written(error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _not_written(error: OSError) -> ConfigError:
    return ConfigError(f"the data folder cannot be made: {error.strerror}", remedy="choose another with --home")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_policies(target: Path, jurisdiction: str) -> None:
    """The schema, the federation's rules and the jurisdiction's own as far as the program ships them."""
    source = policies_path()
    target.mkdir(mode=0o700)
    shutil.copyfile(source / SCHEMA, target / SCHEMA)
    shutil.copytree(source / FEDERATION, target / FEDERATION, copy_function=shutil.copyfile)
    own = target / jurisdiction
    if (source / jurisdiction).is_dir():
        shutil.copytree(source / jurisdiction, own, copy_function=shutil.copyfile)
        return
    own.mkdir()
    (own / "national.cedar").write_text(_NO_RULES_YET.format(jurisdiction=jurisdiction), encoding="utf-8")
    (own / READ_BY_PEOPLE).write_text(_README.format(jurisdiction=jurisdiction), encoding="utf-8")


def _begin(node: Node, name: str) -> None:
    """The database's own facts and the first leaves."""
    settings, keystore = node.settings, node.keystore
    origin = log_origin(node.agency)
    details: dict[str, object] = {
        "agency": node.agency,
        "jurisdiction": settings.jurisdiction,
        "origin": origin,
        "quorum": settings.quorum,
        "demo": settings.demo,
        "key_ids": [*keystore.signing_key.public.key_ids, keystore.sealing_key.key_id],
    }
    _ = node.policy.digest  # every rule is sound
    with node.store.transaction() as tx:
        if tx.people.meta(AGENCY_META) is not None:
            raise ConflictError("the database belongs to a gateway already", remedy="name another database")
        facts = {
            AGENCY_META: node.agency,
            NAME_META: name,
            DEMO_META: str(settings.demo).lower(),
            QUORUM_META: str(settings.quorum),
        }
        for key, value in facts.items():
            tx.people.set_meta(key, value)
        founded = node.event(EventKind.GATEWAY_INITIALISED, actor=node.agency, subject=node.agency, details=details)
        tx.log.append([founded])
        activation.begin(tx, node)


# Opening


def assemble(
    settings: Settings,
    keystore: Keystore,
    clock: Clock,
    random: Random,
    *,
    policies: Mapping[str, str] | None = None,
) -> Node:
    """A node over what is there, nothing of it checked.

    Args:
        policies: the texts that it decides by; None for those in its folder.
    """
    key = keystore.log_key(log_origin(settings.agency, keystore.log_numbers[0]))
    store = Store(settings.database_url, CheckpointSigner(key, random, keystore.log_key))
    if policies is None:
        policies = read_policies(settings.policies_folder, settings.jurisdiction)
    return Node(settings, store, keystore, Policies(policies), clock, random)


def _check_founded(tx: Transaction, settings: Settings) -> None:
    """The settings agree with what was founded: a quorum may rise, but editing a file never lowers it."""
    agency = tx.people.meta(AGENCY_META)
    if agency is None:
        raise ConfigError("the database belongs to no gateway", remedy="restore it, or found a new one with `init`")
    if agency != settings.agency:
        raise ConfigError("the database belongs to another agency than the settings name", place=SETTINGS_FILE)
    if tx.people.meta(DEMO_META) != str(settings.demo).lower():
        raise ConfigError(
            "a demo never becomes a real gateway, nor the reverse", place="demo", remedy="found a new one"
        )
    if settings.quorum < int(tx.people.meta(QUORUM_META) or 0):
        raise ConfigError("the quorum is lower than the one founded with", place="quorum", remedy="set it back")


def _check_restored(node: Node, *, restored: bool) -> None:
    if len(node.keystore.log_numbers) == 1:
        return
    with node.store.reading() as tx:
        waits = awaits_restore(node, tx)
    if waits and not restored:
        raise ConfigError(
            "this gateway was restored from a backup, and waits for its restore statement",
            remedy="`gateway backup resume --admin NAME`; as many as the quorum sign it",
        )
    if not waits:
        node.keystore.keep_log_key(node.keystore.log_numbers[-1], random=node.random)


def _check_end_of_log(tx: Transaction, node: Node) -> None:
    """A quick look, not a proof: the newest leaf, the tree above it and the newest checkpoint belong together."""
    size = tx.log.size()
    key = own_log(node, tx).verifier
    try:
        head = checkpoint.verify(tx.log.latest_checkpoint(), key, key.name)
    except NotFoundError as error:
        raise _broken("the audit log is empty") from error
    except GatewayError as error:
        raise _broken("the newest checkpoint of the audit log does not verify") from error
    if head.size != size:
        raise _broken(f"the audit log has {size} leaves, its newest checkpoint says {head.size}")
    leaf = merkle.leaf_hash(next(tx.log.leaves(size - 1, size)).entry)
    if not hmac.compare_digest(leaf, tx.log.read_node(0, size - 1)):
        raise AuditBrokenError("the newest leaf of the audit log was altered", index=size - 1)
    if not hmac.compare_digest(head.root, merkle.root(size, tx.log.read_node)):
        raise _broken("the audit log's tree does not lead to its newest checkpoint")


def _broken(message: str) -> AuditBrokenError:
    error = AuditBrokenError(message)
    error.remedy = "stop the gateway, keep everything as it is, and run `gateway audit verify`"
    return error
