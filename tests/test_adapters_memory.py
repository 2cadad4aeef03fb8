"""The big formats are read in constant memory: three times the bytes, the same peak."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Runs in a process of its own. The stream is made as it is read, so neither side ever holds the file. VmHWM is the
# peak of this process alone; getrusage would start from its parent's.
SCRIPT = """
import io, json, re, sys
from gateway.adapters import read_hashes
from gateway.model import AdapterReport

format_name, megabytes = sys.argv[1], int(sys.argv[2])
digits = [f"{n:032x}" for n in range(1, 1001)]
if format_name == "vics":
    context = "http://github.com/VICSDATAMODEL/ProjectVic/DataModels/2.0.xml/US/$metadata#Media"
    head, tail = '{"@odata.context": "%s", "value": [{"MediaID": 0}' % context, "]}"
    block = "".join(
        "," + json.dumps({"MediaID": n, "MD5": d, "Category": 1, "Series": "x", "Comments": "y" * 2000})
        for n, d in enumerate(digits)
    )
else:
    head, tail = "md5,source_ref,series,victim_ref,media_type\\n", ""
    block = "".join(f"{d},{n},{'s' * 250},{'v' * 250},{'m' * 250}\\n" for n, d in enumerate(digits))


class Source(io.RawIOBase):
    def __init__(self):
        repeats = megabytes * 1_000_000 // len(block)
        self.pieces = (piece for group in ([head], (block for _ in range(repeats)), [tail]) for piece in group)
        self.rest = b""

    def readable(self):
        return True

    def readinto(self, buffer):
        while not self.rest:
            piece = next(self.pieces, None)
            if piece is None:
                return 0
            self.rest = piece.encode()
        taken = self.rest[: len(buffer)]
        self.rest = self.rest[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)


report = AdapterReport(format_name)
rows = sum(1 for _ in read_hashes(Source(), format_name, report))
assert rows == report.accepted > megabytes * 200, report
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""
SLACK_KIB = 4 * 1024  # what the allocator keeps varies; a reader that gathers rows would grow by tens of megabytes


def peak_kib(format_name: str, megabytes: int) -> int:
    command = [sys.executable, "-c", SCRIPT, format_name, str(megabytes)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["vics", "gateway_csv"])
def test_peak_memory_does_not_grow_with_the_file(format_name: str) -> None:
    small, large = peak_kib(format_name, 50), peak_kib(format_name, 150)
    assert large - small < SLACK_KIB
