"""Figures of this gateway as ratios to baselines measured in the same run (docs/performance.md).

usage: scripts/bench [--quick] [--json] [--folder DIR] [NAME …]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests"))  # whole gateways in a folder: tests/factory.py
sys.path.append(str(Path(__file__).parents[2]))

from classes import bench_classes
from console import bench_console
from crypto import bench_envelope
from finding import bench_lookup, bench_memory, measure_deed
from growth import CHILDREN, bench_scale
from hashsharing import bench_hashsharing
from large import bench_large
from lists import bench_accept, bench_delta, bench_import, bench_poll
from measure import Figure, Scale, machine
from near import bench_near
from notices import bench_notice
from partners import bench_partner_lookup
from postgresql import bench_postgresql
from reconcile import bench_repair
from rules import bench_audit, bench_policy
from taxii import bench_taxii

BENCHES: dict[str, Callable[[Scale], Iterator[Figure]]] = {
    "import": bench_import,
    "accept": bench_accept,
    "delta": bench_delta,
    "poll": bench_poll,
    "envelope": bench_envelope,
    "policy": bench_policy,
    "audit": bench_audit,
    "lookup": bench_lookup,
    "partner-lookup": bench_partner_lookup,
    "near": bench_near,
    "memory": bench_memory,
    "repair": bench_repair,
    "postgresql": bench_postgresql,
    "classes": bench_classes,
    "taxii": bench_taxii,
    "hashsharing": bench_hashsharing,
    "notice": bench_notice,
    "console": bench_console,
    "scale": bench_scale,
    "large": bench_large,
}
LONG = {"console", "scale", "large"}  # minutes each: only by name, or with --quick


def main() -> None:
    """Run the benches named, or all."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=(__doc__ or "").partition("\n")[0])
    described = f"some of: {', '.join(BENCHES)} (default: all but {', '.join(sorted(LONG))})"
    parser.add_argument("names", nargs="*", metavar="NAME", help=described)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works, not how fast it is")
    parser.add_argument("--json", action="store_true", help="one JSON object for machines")
    parser.add_argument("--folder", type=Path, help="where databases are made: durable writes depend on the disk")
    parser.add_argument("--svg", type=Path, help="where `scale` draws its curves")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - BENCHES.keys():
        parser.error(f"no such figure: {', '.join(sorted(unknown))}; there are: {', '.join(BENCHES)}")
    if chosen.child:
        name, count = chosen.child[0], int(chosen.child[1])
        deed = CHILDREN.get(name)
        print(json.dumps(deed(count, chosen.folder) if deed else measure_deed(name, count, chosen.folder)))
        return
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=chosen.folder) as place:
        scale = Scale(chosen.quick, Path(place), chosen.svg)
        usual = [name for name in BENCHES if chosen.quick or name not in LONG]
        figures = run(scale, chosen.names or usual, show=not chosen.json)
    if chosen.json:
        listed = [figure.to_json() for figure in figures]
        print(json.dumps({"machine": machine(), "quick": chosen.quick, "figures": listed}, indent=2))


def run(scale: Scale, names: list[str], *, show: bool) -> list[Figure]:
    """Every figure of the benches named, printed as it comes."""
    if show:
        print("# " + ", ".join(f"{name} {value}" for name, value in machine().items()))
    figures = []
    for name in names:
        bench = BENCHES[name]
        if show:
            print(f"# {name}: {(bench.__doc__ or '').strip()}", flush=True)
        for found in bench(scale):
            figure = replace(found, judged=not scale.quick)  # tiny sizes meet no bar, and need not
            figures.append(figure)
            if show:
                print(figure, flush=True)
    return figures


if __name__ == "__main__":
    main()
