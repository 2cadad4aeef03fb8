"""What travels with the program: the starter policies and the contracts.

In the source tree they are the folders `policies/` and `contracts/` beside `gateway/`. A wheel has no such neighbour:
there `setup.py` puts copies into `gateway/_shipped/` while building. Both are read-only; `gateway init` copies the
policies into the data folder, where an agency makes them its own.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from gateway.errors import ConfigError


def policies_path() -> Path:
    """The folder of the starter policies.

    Raises:
        ConfigError: the program was installed without them.
    """
    return _folder("policies")


def contracts_path() -> Path:
    """The folder of the contracts: formats, OpenAPI, glossary.

    Raises:
        ConfigError: the program was installed without them.
    """
    return _folder("contracts")


def _folder(name: str) -> Path:
    package = Path(str(files("gateway")))
    for folder in (package / "_shipped" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise ConfigError(f"the program was installed without its {name}", remedy="install it again from a wheel")
