"""Floors and doors: who may import whom, which library has which door, and what the pure floors must not touch.

The checks read the source as a syntax tree, so that an import inside a function or under TYPE_CHECKING counts too. Each
check is itself checked against a line that it must catch.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gateway"

FLOORS = ("words", "crypto", "rules", "edges", "deeds", "doors")
PURE = FLOORS[:3]
FLOOR_OF = {
    "": "words",  # the package itself: its version
    "errors": "words",
    "model": "words",
    "caserecord": "words",
    "categories": "rules",
    "crypto": "crypto",
    "adapters": "rules",
    "addresses": "rules",
    "audit": "rules",
    "backupfile": "rules",
    "columns": "rules",
    "comparisons": "rules",
    "eventwords": "rules",
    "exportmanifest": "rules",
    "gossip": "rules",
    "interchange": "rules",
    "policy": "rules",
    "keylife": "rules",
    "lookups": "rules",
    "certificates": "rules",
    "opinions": "rules",
    "problem_words": "rules",
    "statuses": "rules",
    "statusmail": "rules",
    "vidx": "rules",
    "xml": "rules",
    "client": "edges",
    "config": "edges",
    "enumerating": "edges",
    "keystore": "edges",
    "newfile": "edges",
    "policyarchive": "edges",
    "policyfolder": "edges",
    "shipped": "edges",
    "store": "edges",
    "tls": "edges",
    "activation": "deeds",
    "approvals": "deeds",
    "backup": "deeds",
    "beginning": "deeds",
    "logexport": "deeds",
    "logsearch": "deeds",
    "restoring": "deeds",
    "proposals": "deeds",
    "standing": "deeds",
    "keyacts": "deeds",
    "callers": "deeds",
    "cases": "deeds",
    "evidencepack": "deeds",
    "exchange": "deeds",
    "home": "deeds",
    "keyadmin": "deeds",
    "logcheck": "deeds",
    "mailbox": "deeds",
    "keyring": "deeds",
    "node": "deeds",
    "ownkeys": "deeds",
    "partners": "deeds",
    "passkeyacts": "deeds",
    "policyacts": "deeds",
    "policydrafts": "deeds",
    "policyhistory": "deeds",
    "policymatrix": "deeds",
    "signin": "deeds",
    "policytexts": "deeds",
    "receipts": "deeds",
    "reconcile": "deeds",
    "recording": "deeds",
    "sourcing": "deeds",
    "sourcestate": "deeds",
    "alarms": "deeds",
    "sync": "deeds",
    "watch": "deeds",
    "witness": "deeds",
    "app": "doors",
    "cli": "doors",
    "console": "doors",
    "doors": "doors",
    "problems": "doors",
}
# One library, one door: module prefixes that may import it.
LIBRARY_DOORS = {
    "aiohttp": ("client", "doors", "console", "app"),
    "alembic": ("store",),
    "apscheduler": ("sync",),
    "cedarpy": ("policy",),
    "cryptography": ("crypto",),
    "fido2": ("crypto.passkeys",),
    "ijson": ("adapters",),
    "jinja2": ("console",),
    "jwt": ("crypto.tokens",),
    "lxml": ("xml",),
    "markupsafe": ("console",),
    "numpy": ("columns",),
    "pkcs11": ("crypto.pkcs11",),
    "psycopg": ("store.postgresql",),
    "rich": ("cli",),
    "sqlalchemy": ("store",),
    "sqlmodel": ("store",),
    "typer": ("cli",),
    "zstandard": ("columns",),
}
ASYNC_HOMES = ("client", "reconcile", "sourcing", "sync", "watch", "doors", "console", "app", "cli")
# Outside crypto nothing draws randomness by itself: it is passed in.
RANDOM_MODULES = {"random", "secrets", "uuid"}
# Clock, files, network, processes and async: not below the edges.
IMPURE_MODULES = {
    "aiohttp", "asyncio", "fileinput", "ftplib", "glob", "http", "logging", "multiprocessing", "pathlib", "select",
    "selectors", "shutil", "signal", "smtplib", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "tempfile",
    "time", "zoneinfo",
}  # fmt: skip
IMPURE_NAMES = {
    "urllib.request", "os.environ", "os.getenv", "os.listdir", "os.makedirs", "os.open", "os.remove", "os.rename",
    "os.scandir", "os.system", "os.walk", "datetime.now", "datetime.today", "datetime.utcnow", "date.today",
}  # fmt: skip
IMPURE_CALLS = {"open", "input", "print"}


def within(module: str, homes: tuple[str, ...]) -> bool:
    """Whether a module (named without `gateway.`) is one of the homes or lies below one."""
    return any(module == home or module.startswith(home + ".") for home in homes)


def floor_of(module: str) -> str | None:
    return FLOOR_OF.get(module.partition(".")[0])


def imports(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Each imported module with its line, as an absolute name; `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = f"gateway.{module}".split(".")[: None if is_package else -1]
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute chain, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return ""


def complaints(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What is wrong with one module, named without `gateway.`."""
    floor = floor_of(module)
    if floor is None:
        return [f"{module}: stands on no floor; give it one in tests/test_floors.py"]
    tree = ast.parse(source)
    found = [*_import_complaints(module, floor, tree, is_package), *_use_complaints(module, floor, tree)]
    return [f"{module}:{line}: {text}" for line, text in sorted(set(found))]


def _import_complaints(module: str, floor: str, tree: ast.AST, is_package: bool) -> Iterator[tuple[int, str]]:
    for line, name in imports(tree, module, is_package=is_package):
        top = name.split(".")[0]
        if top == "gateway":
            # `from gateway.errors import X` also yields gateway.errors.X, which falls under gateway.errors.
            target = name.removeprefix("gateway").removeprefix(".")
            below = floor_of(target)
            if below is None and target.split(".")[0] not in ("__version__",):
                yield line, f"imports {name}, which stands on no floor"
            elif below is not None and FLOORS.index(below) > FLOORS.index(floor):
                yield line, f"{floor} must not import {name} of {below}"
        elif top not in sys.stdlib_module_names:
            homes = LIBRARY_DOORS.get(top)
            if homes is None:
                yield line, f"{top} has no door"
            elif not within(module, homes):
                yield line, f"{top} is imported outside its door"
        if floor in PURE and (top in IMPURE_MODULES or name in IMPURE_NAMES):
            yield line, f"{floor} must not use {name}"
        if floor != "crypto" and (top in RANDOM_MODULES or name == "os.urandom"):
            yield line, f"{name} draws randomness outside crypto"


def _use_complaints(module: str, floor: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        name = dotted(node) if isinstance(node, ast.Attribute) else ""
        if name == "os.urandom" and floor != "crypto":
            yield line, "os.urandom draws randomness outside crypto"
        if isinstance(node, ast.AsyncFunctionDef) and not within(module, ASYNC_HOMES):
            yield line, "async def outside client, sync and the doors"
        if floor not in PURE:
            continue
        if name and any(name == bad or name.endswith("." + bad) for bad in IMPURE_NAMES):
            yield line, f"{floor} must not use {name}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            yield line, f"{floor} must not call {node.func.id}()"
        if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield line, f"{floor} must not wait"


def modules() -> dict[str, Path]:
    """Every module of the gateway, named without `gateway.`; migrations are run by alembic and are left out."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if "migrations" not in parts:
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@pytest.mark.parametrize(("module", "path"), modules().items(), ids=lambda v: v if isinstance(v, str) else "")
def test_a_module_keeps_to_its_floor_and_to_the_doors_of_the_libraries(module: str, path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert complaints(module, source, is_package=path.name == "__init__.py") == []


def test_migrations_import_nothing_but_the_store_and_its_libraries() -> None:
    for path in (PACKAGE / "store" / "migrations").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        foreign = {name.split(".")[0] for _, name in imports(tree, "store.migrations", is_package=False)}
        assert foreign - set(sys.stdlib_module_names) <= {"gateway", "alembic", "sqlalchemy", "sqlmodel"}, path.name


@pytest.mark.parametrize("name", ["verify_receipt.py", "verify_certificate.py"])
def test_a_verifier_needs_nothing_but_python_and_cryptography(name: str) -> None:
    tree = ast.parse((ROOT / "scripts" / name).read_text(encoding="utf-8"))
    needed = {name.split(".")[0] for _, name in imports(tree, "", is_package=False)} - set(sys.stdlib_module_names)
    assert needed <= {"cryptography"}


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("brand_new", "", "stands on no floor"),
        ("crypto.age", "from gateway.policy import decide", "must not import"),
        ("crypto.age", "def f():\n    import gateway.store", "must not import"),
        ("model", "from gateway import audit", "must not import"),
        ("columns.block", "from ..exchange import Exchange", "must not import"),
        ("store.blocks", "from gateway.exchange import Exchange", "must not import"),
        ("exchange", "from gateway.problems import problem", "must not import"),
        ("client", "if TYPE_CHECKING:\n    from gateway.doors.guards import accepts", "must not import"),
        ("exchange", "import gateway.brand_new", "no floor"),
        ("exchange", "import requests", "has no door"),
        ("exchange", "import aiohttp", "outside its door"),
        ("exchange", "import numpy as np", "outside its door"),
        ("crypto.dsse", "import jwt", "outside its door"),
        ("keystore", "from cryptography.fernet import Fernet", "outside its door"),
        ("doors.native", "from sqlmodel import select", "outside its door"),
        ("interchange", "from lxml import etree", "outside its door"),
        ("policyx.sub", "", "stands on no floor"),
        ("policy", "import time", "must not use"),
        ("crypto.keys", "from asyncio import sleep", "must not use"),
        ("crypto.keys", "import pathlib", "must not use"),
        ("adapters.vics", "from urllib import request", "must not use"),
        ("adapters.vics", "import urllib.request", "must not use"),
        ("interchange", "from datetime import datetime\nx = datetime.now()", "must not use"),
        ("interchange", "import datetime\nx = datetime.datetime.now()", "must not use"),
        ("interchange", "import datetime\nx = datetime.date.today()", "must not use"),
        ("audit", "open('x')", "must not call"),
        ("audit", "import os\nos.environ['A']", "must not use"),
        ("audit", "from os import environ", "must not use"),
        ("audit", "async def f(): pass", "async def"),
        ("store.blocks", "async def f(): pass", "async def"),
        ("exchange", "import secrets", "randomness"),
        ("sync", "import random", "randomness"),
        ("doors.guards", "from os import urandom", "randomness"),
        ("store.sets", "import os\nos.urandom(4)", "randomness"),
        ("store.sets", "import uuid", "randomness"),
    ],
)
def test_each_check_catches_what_it_is_there_for(module: str, source: str, complaint: str) -> None:
    found = complaints(module, source)
    assert found
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("crypto.keys", "import os\nx = os.urandom(4)"),
        ("crypto.tokens", "import jwt"),
        ("exchange", "import time\nx = time.time()"),
        ("policy", "from datetime import datetime\nx = datetime.fromisoformat('2026-11-22')"),
        ("sync", "async def f(): pass"),
        ("columns.block", "from .rows import Rows"),
        ("audit", "def read_node(open): return 1"),
        ("cli", "from gateway import __version__"),
    ],
)
def test_what_is_allowed_is_let_through(module: str, source: str) -> None:
    assert complaints(module, source) == []


def test_the_map_holds_no_library_twice_and_only_known_floors() -> None:
    assert set(FLOOR_OF.values()) <= set(FLOORS)
    assert all(floor_of(home) for homes in LIBRARY_DOORS.values() for home in homes)
