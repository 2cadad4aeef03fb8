"""Where passphrases come from: a file, the service manager's credential, or a person at the terminal. Never the
command line itself, nor the environment, which other programs can read.

The gateway's passphrase, in this order: `--passphrase-file`; the file that GATEWAY_PASSPHRASE_FILE names; the systemd
credential `gateway-passphrase` (`LoadCredential=`, in $CREDENTIALS_DIRECTORY); the prompt. An administrator's own:
`--admin-passphrase-file`, else the prompt.
"""

from __future__ import annotations

import getpass
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.crypto.seal import MAX_PASSPHRASE_CHARS, RFC9106_SECOND, Argon2Cost
from gateway.errors import ConfigError

FILE_VARIABLE = "GATEWAY_PASSPHRASE_FILE"
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"  # systemd.exec(5), Credentials
CREDENTIAL = "gateway-passphrase"
COST_VARIABLE = "GATEWAY_DEMO_ARGON2_KIB"  # cheaper guesses, for demos and tests; no effect on any other gateway


@dataclass(frozen=True, slots=True)
class Passphrases:
    """The passphrases of one command. `file` is what --passphrase-file named."""

    file: Path | None = None

    def gateway(self, *, new: bool = False) -> str:
        """The gateway's passphrase; a new one is asked for twice."""
        file = self.file or _named_by_environment(os.environ)
        return _read(file) if file else _ask("Passphrase of the gateway", "--passphrase-file", new=new)

    def administrator(self, name: str, file: Path | None, *, new: bool = False) -> str:
        """The passphrase of an administrator."""
        return _read(file) if file else _ask(f"Passphrase of {name}", "--admin-passphrase-file", new=new)


def cost(*, demo: bool, environ: Mapping[str, str] = os.environ) -> Argon2Cost:
    """What a guess at a new passphrase costs: the standard's choice, unless a demo is told otherwise."""
    asked = environ.get(COST_VARIABLE, "")
    if not demo or not asked:
        return RFC9106_SECOND
    if not asked.isdecimal():
        raise ConfigError(f"{COST_VARIABLE} is not a number of KiB")
    return Argon2Cost(int(asked), 1, 1)


def _named_by_environment(environ: Mapping[str, str]) -> Path | None:
    if environ.get(FILE_VARIABLE):
        return Path(environ[FILE_VARIABLE])
    if environ.get(CREDENTIALS_VARIABLE):
        credential = Path(environ[CREDENTIALS_VARIABLE]) / CREDENTIAL
        return credential if credential.exists() else None
    return None


def _read(path: Path) -> str:
    """The first line of a file that nobody else may read."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            raw = file.read(4 * MAX_PASSPHRASE_CHARS + 2)  # UTF-8 has at most four bytes a character, and a line end
    except OSError as error:
        raise ConfigError(f"the passphrase file cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise ConfigError("others may read the passphrase file", remedy="set its mode to 600")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("the passphrase file is not UTF-8 text") from error
    line = text.split("\n", maxsplit=1)[0].rstrip("\r")
    if not line:
        raise ConfigError("the passphrase file is empty")
    return line


def _ask(what: str, option: str, *, new: bool) -> str:
    if not sys.stdin.isatty():
        raise ConfigError("there is no terminal to ask for the passphrase", remedy=f"give a file with {option}")
    first = getpass.getpass(f"{what}: ")
    if new and getpass.getpass("The same again: ") != first:
        raise ConfigError("the two passphrases differ", remedy="start again")
    return first
