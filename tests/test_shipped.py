"""A wheel holds everything that the program needs, and finds it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gateway.shipped import contracts_path, policies_path

ROOT = Path(__file__).parents[1]
SOURCES = ("gateway", "policies", "contracts")
BUILD_FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BUILD_FILES:
        shutil.copy(ROOT / name, tree / name)
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(target), str(tree)], check=True, timeout=120)
    (built,) = target.glob("*.whl")
    return built


def test_the_source_tree_finds_its_own_folders() -> None:
    assert policies_path() == ROOT / "policies"
    assert contracts_path() == ROOT / "contracts"


def test_a_wheel_holds_every_file_of_the_program_the_policies_and_the_contracts(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    skipped = {"__pycache__", ".mypy_cache"}
    program = {p for p in (ROOT / "gateway").rglob("*") if p.is_file() and not skipped & set(p.parts)}
    shipped = {p for name in SOURCES[1:] for p in (ROOT / name).rglob("*") if p.is_file()}
    wanted = {str(p.relative_to(ROOT)) for p in program}
    wanted |= {f"gateway/_shipped/{p.relative_to(ROOT)}" for p in shipped if not skipped & set(p.parts)}
    assert wanted - held == set()


def test_an_installed_wheel_finds_its_policies_and_contracts(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import gateway.shipped as shipped\n"
        "print(shipped.policies_path()); print(shipped.contracts_path())\n"
        "assert (shipped.policies_path() / 'schema.cedarschema').is_file()\n"
    )
    answered = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60
    )
    assert answered.stdout.split() == [
        str(tmp_path / "gateway" / "_shipped" / "policies"),
        str(tmp_path / "gateway" / "_shipped" / "contracts"),
    ]


def test_the_locks_name_no_host_and_no_folder_and_hash_everything() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        lines = [line for line in (ROOT / name).read_text(encoding="ascii").splitlines() if not line.startswith("#")]
        assert not [line for line in lines if "://" in line or line.startswith(("-", "/"))]
        pinned = [line for line in lines if "==" in line]
        hashed = [line for line, after in zip(lines, [*lines[1:], ""], strict=True) if after.startswith("    --hash")]
        assert [line for line in pinned if line not in hashed] == []
