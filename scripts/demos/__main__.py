"""`scripts/demo`: three agencies exchange lists of identified victims, told as a story. Invented data only.

scripts/demo                  tell the story, clean up, exit 0
scripts/demo --keep           leave the gateways running in demo-data/, and say how to look further
scripts/demo --entries 50000  with a longer list
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import types
from pathlib import Path

from commands import Commands
from stage import StageError, Teller
from story import ROOT, XA_LIST, Story

ENTRIES = 20_000
MIN_ENTRIES = 1_000  # with fewer, some words of the story would have nothing behind them
MAX_ENTRIES = 400_000
KEPT_FOLDER = ROOT / "demo-data"
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main() -> int:
    """Run the demo; the exit code."""
    options = _options()
    if options.keep and KEPT_FOLDER.exists():
        print(f"{KEPT_FOLDER.name}/ is there from another run: stop its gateways and remove it.", file=sys.stderr)
        return EXIT_USAGE
    signal.signal(signal.SIGTERM, _interrupt)
    if options.keep:
        KEPT_FOLDER.mkdir(mode=0o700)
    folder = KEPT_FOLDER if options.keep else Path(tempfile.mkdtemp(prefix="gateway-demo-"))
    with Commands() as commands:
        return _tell(Story(folder, options.entries, Teller(), commands), keep=options.keep)


def _tell(story: Story, *, keep: bool) -> int:
    """The story, and what is left of it afterwards; the exit code."""
    teller, kept = story.teller, False
    try:
        story.tell()
        kept = keep
    except StageError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        if not kept:
            story.stop()
            shutil.rmtree(story.folder, ignore_errors=True)
    teller.title(f"The end, after {teller.seconds:.0f} s. {_HELD}")
    if kept:
        _how_to_look_further(story)
    else:
        teller.say(
            "The gateways are stopped and their data is gone. `scripts/demo --keep` leaves them running.", indent=""
        )
    return 0


_HELD = "All that was claimed was checked on the way."


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Three gateways exchange invented lists.")
    parser.add_argument("--keep", action="store_true", help="leave the gateways running, with their data in demo-data/")
    parser.add_argument(
        "--entries", type=int, default=ENTRIES, metavar="N", help=f"entries of XA's list (default {ENTRIES})"
    )
    options = parser.parse_args()
    if not MIN_ENTRIES <= options.entries <= MAX_ENTRIES:
        parser.error(f"--entries goes from {MIN_ENTRIES} to {MAX_ENTRIES}")
    return options


def _how_to_look_further(story: Story) -> None:
    print("\nThe gateways go on running:")
    for one in story.gateways:
        pid = one.process.pid if one.process is not None else 0
        print(f"  {one.agency}  {one.url}  process {pid}  data in {one.home.relative_to(ROOT)}")
    where = f"--passphrase-file {story.passphrase_file.relative_to(ROOT)}"
    print("\nLook further:")
    for agency, command in (
        (story.xc, "sync status"),
        (story.xb, f"set show {XA_LIST}"),
        (story.xa, "audit list --limit 20"),
        (story.xa, "partner list"),
    ):
        print(f"  .venv/bin/gateway --home {agency.home.relative_to(ROOT)} {where} {command}")
    print("\nOr in a browser on this machine, with a passkey that it makes for you (the link works once):")
    print(f"  {story.console_link()}")
    pids = " ".join(str(one.process.pid) for one in story.gateways if one.process is not None)
    print(f"\nStop them and remove everything:\n  kill {pids}; rm -r {KEPT_FOLDER.relative_to(ROOT)}")


def _interrupt(_number: int, _frame: types.FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
