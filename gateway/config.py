"""Settings and policy files: read once at start, checked whole, never changed while the gateway runs.

`gateway.toml` in the data folder holds one flat table of keys; `docs/configuration.md` lists each. An unknown key is
refused with the nearest known ones, since a misspelt limit would silently be no limit. Relative paths are relative to
the data folder. One value may come from the environment, `GATEWAY_DATABASE_URL`: a database password has no place in
a file that is copied about.

Errors are ConfigError and name keys and policy files, never the folder they are in.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from urllib.parse import urlsplit

from gateway.crypto.keys import SealingKey
from gateway.errors import ConfigError, MalformedError
from gateway.model import AGENCY, JURISDICTION, MAX_TEXT_CHARS, TLS_PIN
from gateway.policy import FEDERATION, PLACE, QUALITY_FILE, SCHEMA, SHEET

SETTINGS_FILE = "gateway.toml"
DATABASE_VARIABLE = "GATEWAY_DATABASE_URL"
MAX_SETTINGS_BYTES = 64 * 1024  # a page of keys and their comments is under 4 KiB
MAX_POLICY_BYTES = 256 * 1024  # one policy file: some hundred rules
MAX_POLICY_FILES = 1024  # of one jurisdiction and the federation together
MIN_QUORUM = 2  # four eyes; one administrator alone only in a demo
EXAMPLES = "examples.toml"
TEMPLATES = "templates"  # beside the jurisdictions that ship: rules to copy from, never opened here
CATEGORIES = "categories"  # the same: tables of categories to begin with
READ_BY_PEOPLE = "README.md"
LOCK = "LOCK"  # in the policy folder of a gateway: what administrators brought into force (`activation`)
_AT_THE_TOP = (SCHEMA, READ_BY_PEOPLE, FEDERATION, TEMPLATES, CATEGORIES, LOCK)
DRAFT = re.compile(r"\.[A-Za-z0-9.-]+\.new")  # a file of policies that is being written
DATABASE_URL = re.compile(r"(sqlite(\+pysqlite)?|postgresql(\+psycopg)?)://.+")  # the drivers that `store` has
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Key:
    """What one settings key means, and the bounds of a number (inclusive)."""

    means: str
    least: int = 0
    most: int = 0


KEYS = {
    "agency": Key("The agency that runs this gateway: its jurisdiction's code, a hyphen, its own."),
    "jurisdiction": Key("Whose law it decides under: two capital letters (ISO 3166-1). Names its folder of policies."),
    "listen_host": Key("The address to listen on. Without TLS only a loopback address is accepted."),
    "listen_port": Key("The port to listen on; 0 takes any free one.", 0, 65_535),
    "public_url": Key("Where partners reach this gateway: https, or http on a loopback address. No path."),
    "tls_certificate": Key("PEM file with the certificate chain for TLS; empty for none."),
    "tls_key": Key("PEM file with the certificate's private key; empty for none."),
    "database": Key("The SQLite file, or a database URL (sqlite:// or postgresql://)."),
    "keystore": Key("The file with this gateway's private keys; nodes that share a database share it."),
    "policies": Key("The folder of the policy in force, which the gateway writes itself: a change comes from another."),
    "demo": Key("True only for a gateway with invented data: it may then run with a quorum of 1."),
    "quorum": Key("How many administrators must sign a guarded act: 2 or more; 1 only in a demo.", 1, 9),
    "sync_interval_seconds": Key("How often each followed partner is asked for news, in seconds.", 5, 86_400),
    "signing_key_days": Key("How long a signing key is used, in days; alarms tell of its end.", 30, 1_095),
    "token_key_days": Key("How long a token key is used, in days; alarms tell of its end.", 7, 730),
    "decryption_key_days": Key("How often a new decryption key is made, in days; it happens by itself.", 1, 365),
    "key_overlap_days": Key("How long an old key still counts beside its successor, in days.", 1, 90),
    "decryption_retention_days": Key("How long after the overlap a decryption key is kept, in days.", 0, 365),
    "pkcs11_module": Key("The PKCS#11 library of a token that holds the Ed25519 signing key; empty for none."),
    "pkcs11_token": Key("The label of that token."),
    "pkcs11_pin_file": Key("A file with the token's PIN, readable by this user alone."),
    "tls_pins": Key("Further certificate keys to name in the identity card: SHA-256 pins, with commas between."),
    "alarm_command": Key(
        "A program that is started for each alarm, with the alarm as JSON on its stdin; empty for none."
    ),
    "head_lifetime_hours": Key("How long a signed feed head is valid, in hours; re-signed at half of it.", 1, 168),
    "history_days": Key("How long withdrawals and older versions in our own sets are remembered, in days.", 30, 3_650),
    "withdrawal_days": Key("How long holders have to answer a withdrawal that names no deadline, in days.", 1, 365),
    "case_duty_contact": Key("Whom partners call about a case at any hour, in one line; it goes with what we say."),
    "case_unread_hours_child_at_risk": Key("How soon a referral is to be read, in hours: a child is at risk.", 1, 720),
    "case_unread_hours_priority": Key("The same, in hours: it has priority.", 1, 720),
    "case_unread_hours_routine": Key("The same, in hours: any other.", 1, 720),
    "case_erase_days": Key(
        "How long after its review date a case is kept that nobody has looked at, in days.", 1, 3_650
    ),
    "page_changes": Key("The most changes in one page of a feed.", 1, 65_536),
    "signed_pages_days": Key("How long signed pages of hubs are kept, to give back what these lose.", 35, 3_650),
    "near_index_megabytes": Key(
        "Memory for finding near-duplicates, in MiB: ten million PDQ digests take 1,150; what has no room is read.",
        0,
        1 << 20,
    ),
    "max_envelope_bytes": Key("The largest envelope that is accepted, in bytes.", 65_536, 3 << 30),
    "max_connections": Key("The most connections that are open at once.", 4, 10_000),
    "requests_per_minute": Key("The most requests a minute from one partner.", 10, 100_000),
    "console_url": Key(
        "Where people reach the console: https, or http on localhost. No path. Empty: there is no console."
    ),
    "console_host": Key("The address on which the console listens."),
    "console_port": Key("The port on which the console listens; 0 takes any free one.", 0, 65_535),
    "look_ups_per_minute": Key("The most questions a minute from one partner that looks up digests here.", 1, 6_000),
    "look_up_digests_per_day": Key(
        "The most digests a day that one partner may ask about, those that fill its questions up included.",
        16,
        1_000_000_000,
    ),
    "look_up_contact": Key(
        "Whom partners may ask about an answer: a unit and how to reach it, in one line; told where policy permits."
    ),
    "public_docs": Key("True: /docs and /openapi.yaml answer everybody; else only this machine."),
    "backup_recipients": Key("The offline keys that backups are sealed for: age1pq1 recipients, commas between."),
    "hashsharing_url": Key(
        "The base URL of an NCMEC-style server whose list is followed (before /v2); empty for none."
    ),
    "hashsharing_user": Key("The user by which it knows us."),
    "hashsharing_password_file": Key("A file with the password for it, readable by this user alone."),
    "hashsharing_set": Key("The own set that its list becomes, with its full name; nothing else is put into it."),
    "hashsharing_interval_seconds": Key("How often it is asked for news, in seconds.", 60, 86_400),
    "log_level": Key(f"How much is logged: {', '.join(LOG_LEVELS)}."),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one gateway, checked. `folder` is the data folder; every other field is a key of `KEYS`."""

    folder: Path
    agency: str
    jurisdiction: str
    listen_host: str = "127.0.0.1"
    listen_port: int = 8440
    public_url: str = "http://127.0.0.1:8440"
    tls_certificate: str = ""
    tls_key: str = ""
    database: str = field(default="gateway.db", repr=False)  # a URL may hold a password
    keystore: str = "keystore.json"
    policies: str = "policies"
    demo: bool = False
    quorum: int = MIN_QUORUM
    sync_interval_seconds: int = 300
    signing_key_days: int = 730
    token_key_days: int = 365
    decryption_key_days: int = 30
    key_overlap_days: int = 14
    decryption_retention_days: int = 30
    pkcs11_module: str = ""
    pkcs11_token: str = ""
    pkcs11_pin_file: str = ""
    tls_pins: str = ""
    alarm_command: str = ""
    head_lifetime_hours: int = 24
    history_days: int = 400
    withdrawal_days: int = 14
    case_duty_contact: str = ""
    case_unread_hours_child_at_risk: int = 1
    case_unread_hours_priority: int = 24
    case_unread_hours_routine: int = 72
    case_erase_days: int = 90
    page_changes: int = 65_536
    signed_pages_days: int = 35
    near_index_megabytes: int = 1280
    max_envelope_bytes: int = 1 << 30
    max_connections: int = 256
    requests_per_minute: int = 600
    console_url: str = ""
    console_host: str = "127.0.0.1"
    console_port: int = 8450
    look_ups_per_minute: int = 30
    look_up_digests_per_day: int = 1_000_000
    look_up_contact: str = ""
    public_docs: bool = False
    backup_recipients: str = ""
    hashsharing_url: str = ""
    hashsharing_user: str = ""
    hashsharing_password_file: str = ""
    hashsharing_set: str = ""
    hashsharing_interval_seconds: int = 900
    log_level: str = "info"

    def __post_init__(self) -> None:
        for name, key in KEYS.items():
            _check_value(name, key, getattr(self, name))
        _check(JURISDICTION.fullmatch(self.jurisdiction), "jurisdiction", "is not two capital letters")
        _check(AGENCY.fullmatch(self.agency), "agency", "is not an agency code such as XA-NCVI")
        _check(self.agency.startswith(f"{self.jurisdiction}-"), "agency", "is of another jurisdiction")
        _check(self.demo or self.quorum >= MIN_QUORUM, "quorum", "may be 1 only with demo = true")
        _check(bool(self.tls_certificate) == bool(self.tls_key), "tls_key", "and tls_certificate go together")
        _check(self.database and self.policies and self.keystore, "database", "policies and keystore must not be empty")
        # Taken for the name of a file, a misspelt URL would make one, and its password with it.
        known = "://" not in self.database or DATABASE_URL.fullmatch(self.database)
        _check(known, "database", "is a URL that is not sqlite:// or postgresql://")
        token = (self.pkcs11_module, self.pkcs11_token, self.pkcs11_pin_file)
        _check(all(token) or not any(token), "pkcs11_module", "goes with pkcs11_token and pkcs11_pin_file")
        source = (self.hashsharing_url, self.hashsharing_user, self.hashsharing_password_file, self.hashsharing_set)
        _check(
            all(source) or not any(source),
            "hashsharing_url",
            "goes with hashsharing_user, hashsharing_password_file and hashsharing_set",
        )
        _check(all(TLS_PIN.fullmatch(pin) for pin in self.own_pins), "tls_pins", "holds something that is no pin")
        contact = self.look_up_contact
        _check(len(contact) <= MAX_TEXT_CHARS and contact.isprintable(), "look_up_contact", "is not one short line")
        _check_recipients(self)
        _check(self.log_level in LOG_LEVELS, "log_level", f"is none of {', '.join(LOG_LEVELS)}")
        _check_addresses(self)

    @property
    def database_url(self) -> str:
        """The database as a URL; a file name becomes a SQLite URL in the data folder."""
        if DATABASE_URL.fullmatch(self.database):
            return self.database
        return f"sqlite:///{self.path_of(self.database)}"

    @property
    def policies_folder(self) -> Path:
        """The folder of policies."""
        return self.path_of(self.policies)

    @property
    def tls_files(self) -> tuple[Path, Path] | None:
        """Certificate and key file, or None without TLS."""
        if not self.tls_certificate:
            return None
        return self.path_of(self.tls_certificate), self.path_of(self.tls_key)

    @property
    def own_pins(self) -> tuple[str, ...]:
        """The further pins of `tls_pins`."""
        return tuple(pin.strip() for pin in self.tls_pins.split(",") if pin.strip())

    @property
    def sealing_keys(self) -> tuple[SealingKey, ...]:
        """The keys of `backup_recipients`."""
        return tuple(SealingKey.parse(one.strip()) for one in self.backup_recipients.split(",") if one.strip())

    @property
    def keystore_path(self) -> Path:
        """The file with this gateway's private keys."""
        return self.path_of(self.keystore)

    def path_of(self, name: str) -> Path:
        """A configured path: as it is if absolute, else inside the data folder."""
        return (self.folder / name).absolute()


def load_settings(folder: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in a data folder's `gateway.toml`, with `GATEWAY_DATABASE_URL` over its `database`.

    Raises:
        ConfigError: the file is missing, is not TOML, or a key is unknown, missing, ill-typed or out of bounds.
    """
    text = _read_text(folder / SETTINGS_FILE, SETTINGS_FILE, MAX_SETTINGS_BYTES)
    try:
        found: dict[str, object] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the settings are not TOML: {error}", place=SETTINGS_FILE) from error
    return _settings(folder, found, environ.get(DATABASE_VARIABLE, ""))


def dump_settings(settings: Settings) -> str:
    """The text of a `gateway.toml` that loads as these settings, each key with what it means.

    It holds the database as these settings have it: what came from the environment would be written down.
    """
    lines = ["# Settings of a partner-exchange gateway. Read once at start.", ""]
    for name, key in KEYS.items():
        bounds = f" {key.least} to {key.most}." if key.most else ""
        # A JSON string, number or boolean is a TOML one as well, DEL apart, which no setting holds.
        lines += [f"# {key.means}{bounds}", f"{name} = {json.dumps(getattr(settings, name), ensure_ascii=False)}", ""]
    return "\n".join(lines)


def read_policies(folder: Path, jurisdiction: str) -> dict[str, str]:
    """The policy texts that a gateway of this jurisdiction decides by: relative path to content, for `policy.load`.

    The schema, the federation's rules and the jurisdiction's own; other jurisdictions' folders are not opened. A
    symbolic link, a file of another name or kind, or one too large is refused.
    """
    if not folder.is_dir():
        raise ConfigError(
            "there is no such folder of policies", place=folder.name, remedy="name the folder that holds them"
        )
    texts = {SCHEMA: _read_text(folder / SCHEMA, SCHEMA, MAX_POLICY_BYTES)}
    _check_top(folder)
    for name in _policy_files(folder, jurisdiction):
        if name.endswith((".cedar", f"{jurisdiction}/{QUALITY_FILE}")):
            texts[name] = _read_text(folder / name, name, MAX_POLICY_BYTES)
    return texts


def read_examples(folder: Path, jurisdiction: str) -> dict[str, str]:
    """The worked examples beside those rules: folder name to the content of its `examples.toml`."""
    names = [name for name in _policy_files(folder, jurisdiction) if name.endswith(f"/{EXAMPLES}")]
    return {name.split("/")[0]: _read_text(folder / name, name, MAX_POLICY_BYTES) for name in names}


def read_sheets(folder: Path, jurisdiction: str) -> dict[str, str]:
    """The sheets made of those rules (`policy.describe`): relative path to content, as far as they are there."""
    names = [name for name in _policy_files(folder, jurisdiction) if name.endswith(f"/{SHEET}")]
    return {name: _read_text(folder / name, name, MAX_POLICY_BYTES) for name in names}


def read_policy_files(folder: Path, jurisdiction: str) -> dict[str, str]:
    """All that belongs to a gateway's policy: its rules, and what stands beside them for people and for checks."""
    texts = read_policies(folder, jurisdiction)
    for name in _policy_files(folder, jurisdiction):
        texts[name] = _read_text(folder / name, name, MAX_POLICY_BYTES)
    return dict(sorted(texts.items()))


def is_policy_file(path: str, jurisdiction: str) -> bool:
    """Whether a policy of this jurisdiction may have a file of this relative path (contracts/policy-1.md, rule 1)."""
    folder, _, name = path.partition("/")
    if path == SCHEMA:
        return True
    if folder not in (FEDERATION, jurisdiction):
        return False
    beside = (EXAMPLES, READ_BY_PEOPLE, SHEET)
    return PLACE.fullmatch(path) is not None or name in beside or path == f"{jurisdiction}/{QUALITY_FILE}"


def may_lie_beside(path: str, jurisdiction: str) -> bool:
    """Whether a file of this relative path may lie in a policy folder, and is not opened: another's, or none's."""
    top, _, rest = path.partition("/")
    if top in (READ_BY_PEOPLE, LOCK):
        return not rest
    others = JURISDICTION.fullmatch(top) is not None and top != jurisdiction
    return bool(rest) and (others or top in (TEMPLATES, CATEGORIES))


def read_lock(folder: Path) -> str | None:
    """What `LOCK` in a policy folder says, None without one."""
    path = folder / LOCK
    return _read_text(path, LOCK, MAX_POLICY_BYTES) if os.path.lexists(path) else None


def _check_top(folder: Path) -> None:
    """ConfigError for anything in the policy folder but the schema, a README and the folders of rules and templates."""
    for entry in _entries(folder, "policies"):
        known = entry.name in _AT_THE_TOP or JURISDICTION.fullmatch(entry.name)
        if not known or entry.is_symlink():
            raise ConfigError("an unexpected file among the policies", place=entry.name)


def _policy_files(folder: Path, jurisdiction: str) -> list[str]:
    """The relative paths of what the federation's and the jurisdiction's folder hold; ConfigError for a stray one."""
    if JURISDICTION.fullmatch(jurisdiction) is None:
        raise ConfigError("jurisdiction is not two capital letters")
    names = []
    for part in (FEDERATION, jurisdiction):
        here = folder / part
        if here.is_symlink() or not here.is_dir():
            raise ConfigError("there is no such folder of policies", place=part)
        for entry in _entries(here, part):
            name = f"{part}/{entry.name}"
            if entry.is_symlink() or not entry.is_file():
                raise ConfigError("a policy is not an ordinary file", place=name)
            if not is_policy_file(name, jurisdiction):
                raise ConfigError("an unexpected file among the policies", place=name)
            names.append(name)
    if len(names) > MAX_POLICY_FILES:
        raise ConfigError(f"more than {MAX_POLICY_FILES} policy files")
    return names


def _entries(folder: Path, name: str) -> list[Path]:
    """What a folder holds, sorted, without drafts that a crash left behind; `name` is what people see."""
    try:
        return sorted(entry for entry in folder.iterdir() if DRAFT.fullmatch(entry.name) is None)
    except OSError as error:
        raise ConfigError(f"the folder cannot be read: {error.strerror}", place=name) from error


def _read_text(path: Path, name: str, max_bytes: int) -> str:
    """The UTF-8 text of an ordinary file that is no link and not over its bound; `name` is what people see."""
    try:
        # Checked on the open file, so that it cannot be swapped between the look and the reading.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as source:
            if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                raise ConfigError("this is not an ordinary file", place=name)
            raw = source.read(max_bytes + 1)
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", place=name) from error
    if len(raw) > max_bytes:
        raise ConfigError(f"the file is larger than {max_bytes} bytes", place=name)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("the file is not UTF-8", place=name) from error


def _settings(folder: Path, found: dict[str, object], database_url: str) -> Settings:
    """The settings of a parsed file."""
    for name in found:
        if name not in KEYS:
            close = difflib.get_close_matches(name, KEYS, n=3)
            remedy = f"did you mean {' or '.join(close)}?" if close else "see docs/configuration.md"
            raise ConfigError(f"unknown key {name!r}", place=SETTINGS_FILE, remedy=remedy)
    for setting in fields(Settings):
        if setting.name in KEYS and setting.default is MISSING and setting.name not in found:
            raise ConfigError(f"key {setting.name!r} is missing", place=SETTINGS_FILE)
    if database_url:
        if DATABASE_URL.fullmatch(database_url) is None:
            raise ConfigError("the database URL is not sqlite:// or postgresql://", place=DATABASE_VARIABLE)
        found = {**found, "database": database_url}
    # Values are of any type here: Settings checks each against its key before anything reads it.
    return Settings(folder=folder, **found)  # type: ignore[arg-type]


def _check_value(name: str, key: Key, value: object) -> None:
    """Type and bounds of one value, by the type of the key's field."""
    wanted = _types()[name]
    # bool is an int to Python, but `quorum = true` is a mistake.
    if type(value) is not wanted:
        words = {str: "a text", int: "a whole number", bool: "true or false"}
        raise ConfigError(f"key {name!r} is not {words[wanted]}", place=SETTINGS_FILE)
    if isinstance(value, str) and not value.isprintable():
        raise ConfigError(f"key {name!r} holds a character that does not print", place=SETTINGS_FILE)
    if key.most and isinstance(value, int):
        _check(key.least <= value <= key.most, name, f"is not from {key.least} to {key.most}")


def _types() -> dict[str, type]:
    """The type of each key, from the annotations of Settings."""
    known = {"str": str, "int": int, "bool": bool}
    return {setting.name: known[str(setting.type)] for setting in fields(Settings) if setting.name in KEYS}


def _check_recipients(settings: Settings) -> None:
    try:
        _ = settings.sealing_keys
    except MalformedError as error:
        raise ConfigError(
            "key 'backup_recipients' holds something that is no age1pq1 recipient",
            place=SETTINGS_FILE,
            remedy="`gateway backup key` prints one",
        ) from error


def _check_addresses(settings: Settings) -> None:
    """Plain HTTP never leaves the machine: neither where we listen nor where we send partners."""
    _check(
        settings.tls_files or _is_loopback(settings.listen_host),
        "listen_host",
        "is no loopback address, and there is no TLS",
    )
    try:
        url = urlsplit(settings.public_url)
        host, port_ok = url.hostname or "", url.port != 0
    except ValueError as error:
        raise ConfigError("key 'public_url' is not a URL", place=SETTINGS_FILE) from error
    bare = not (url.path.strip("/") or url.query or url.fragment or url.username or url.password)
    _check(host and port_ok and bare, "public_url", "is not scheme, host and port alone")
    _check(url.scheme == "https" or (url.scheme == "http" and _is_loopback(host)), "public_url", "is not https")
    if settings.console_url:
        _check_console(settings)


def _check_console(settings: Settings) -> None:
    """Browsers give passkeys to https alone, and to http where the page comes from `localhost`; never to an address."""
    secure = settings.tls_files or _is_loopback(settings.console_host)
    _check(secure, "console_host", "is no loopback address, and there is no TLS")
    try:
        url = urlsplit(settings.console_url)
        host, port = url.hostname or "", url.port
    except ValueError as error:
        raise ConfigError("key 'console_url' is not a URL", place=SETTINGS_FILE) from error
    named = host and not host.replace(".", "").isdigit() and ":" not in host
    _check(named, "console_url", "names no host: passkeys are for a name, not for an address")
    _check(url.scheme == "https" or (url.scheme == "http" and host == "localhost"), "console_url", "is not https")
    # The origin as browsers write it, since it is compared with theirs.
    default = {"https": 443, "http": 80}[url.scheme]
    origin = f"{url.scheme}://{host}" + (f":{port}" if port not in (None, default) else "")
    _check(settings.console_url == origin, "console_url", f"is not written as browsers write it: {origin}")


def _is_loopback(host: str) -> bool:
    """True for `localhost` and the loopback addresses; any other name could come to mean any machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check(condition: object, name: str, fault: str) -> None:
    if not condition:
        raise ConfigError(f"key {name!r} {fault}", place=SETTINGS_FILE)
