"""Puts the starter policies and the contracts into a wheel; everything else stands in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("policies", "contracts")


class BuildWithShippedFolders(build_py):
    """`build_py`, and copies of the top-level folders under `gateway/_shipped`, where `gateway.shipped` finds them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # the folders themselves are at hand
            return
        for name in SHIPPED:
            target = Path(self.build_lib) / "gateway" / "_shipped" / name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(name, target, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithShippedFolders})
