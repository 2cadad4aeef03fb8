"""How figures are taken and printed: product and baselines in turn, each result asserted before its time counts.

A figure is a ratio to a baseline of the same run, since absolute times on a shared machine drift by a quarter. Rounds
go A B A B …; the ratio is taken round by round; median, least and most are printed. One line a figure:

    NAME | VALUE UNIT | xRATIO (LEAST-MOST) of BASELINE (ITS VALUE UNIT) | target N: BAR: met
"""

from __future__ import annotations

import gc
import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("numpy", "zstandard", "cryptography", "sqlalchemy", "sqlmodel", "cedarpy")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much to measure: `quick` shows that every figure can be taken, not what it is worth."""

    quick: bool
    folder: Path
    svg: Path | None = None

    def size(self, full: int, quick: int) -> int:
        """One of two sizes."""
        return quick if self.quick else full

    @property
    def rounds(self) -> int:
        """How many pairs."""
        return 2 if self.quick else 5


@dataclass(frozen=True, slots=True)
class Run:
    """One timed run: seconds, and how many units it did in them."""

    seconds: float
    units: float

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.units / self.seconds


@dataclass(frozen=True, slots=True)
class Bar:
    """A target of this project: `at_least` and `at_most` speak of the ratio, or of the value where there is none."""

    target: int
    at_least: float | None = None
    at_most: float | None = None

    def met(self, value: float) -> bool:
        """Whether the value keeps the bar."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        least = "" if self.at_least is None else f">= {self.at_least:g}"
        most = "" if self.at_most is None else f"<= {self.at_most:g}"
        return f"target {self.target}: {' and '.join(filter(None, (least, most)))}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. `ratio` is (median, least, most), None for a plain value."""

    name: str
    value: float
    unit: str
    baseline: str = ""
    base_value: float = 0.0
    ratio: tuple[float, float, float] | None = None
    bar: Bar | None = None
    judged: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the bar is kept; None without a bar, or where the figure is not for judging."""
        if self.bar is None or not self.judged:
            return None
        return self.bar.met(self.value if self.ratio is None else self.ratio[0])

    def __str__(self) -> str:
        compared = "-"
        if self.ratio is not None:
            median, least, most = (_short(one) for one in self.ratio)
            compared = f"x{median} ({least}-{most}) of {self.baseline} ({_short(self.base_value)} {self.unit})"
        word = {None: "not judged", True: "met", False: "not met"}[self.met]
        judged = "-" if self.bar is None else f"{self.bar}: {word}"
        return f"{self.name:<24} | {_short(self.value) + ' ' + self.unit:>18} | {compared} | {judged}"

    def to_json(self) -> dict[str, object]:
        """For machines."""
        return {**asdict(self), "bar": self.bar and str(self.bar), "met": self.met}


def _short(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def timed(function: Callable[[], object], units: float) -> Run:
    """One run, with the collector asked to finish its work before, not meanwhile."""
    gc.collect()
    start = time.perf_counter()
    function()
    return Run(time.perf_counter() - start, units)


def compare(
    name: str,
    product: Callable[[], Run],
    baselines: Mapping[str, Callable[[], Run]],
    *,
    unit: str,
    rounds: int,
    bars: Mapping[str, Bar] | None = None,
    slower: bool = False,
) -> list[Figure]:
    """One figure for each baseline: how many times faster the product is, or with `slower` how many times slower.

    Args:
        unit: of `Run.rate`; with `slower`, the value printed is microseconds a unit instead.
        bars: by baseline.
    """
    runs: list[Run] = []
    bases: dict[str, list[Run]] = {baseline: [] for baseline in baselines}
    for _ in range(rounds):
        runs.append(product())
        for baseline, run in baselines.items():
            bases[baseline].append(run())
    figures = []
    for baseline, found in bases.items():
        ratios = [one.rate / base.rate for one, base in zip(runs, found, strict=True)]
        ratios = sorted(1 / ratio for ratio in ratios) if slower else sorted(ratios)
        rates = [statistics.median(run.rate for run in listed) for listed in (runs, found)]
        value, base_value = (1e6 / rate for rate in rates) if slower else rates
        bar = (bars or {}).get(baseline)
        spread = statistics.median(ratios), ratios[0], ratios[-1]
        full = f"{name}" if len(bases) == 1 else f"{name}.{baseline.split(' ', maxsplit=1)[0].lower().rstrip(',')}"
        figures.append(Figure(full, value, unit, baseline, base_value, spread, bar))
    return figures


def against(  # noqa: PLR0917  the words of one line, in their order
    name: str, value: float, unit: str, baseline: str, base_value: float, bar: Bar | None = None
) -> Figure:
    """A figure that does not vary from round to round, as a ratio to another such."""
    ratio = value / base_value
    return Figure(name, value, unit, baseline, base_value, (ratio, ratio, ratio), bar)


def machine() -> dict[str, str]:
    """What the figures were taken on."""
    found = {"cores": str(os.cpu_count()), "processor": _processor(), "system": platform.platform(terse=True)}
    found |= {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    return found | {package: _version(package) for package in PACKAGES}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
