"""Pictures of the console, by day and by night, from a demo of three gateways: all data are invented.

scripts/screenshots               the pictures that stand in the documentation, into docs/screens
scripts/screenshots --all DIR     one of every screen, into another folder
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests"))  # whole gateways in a folder, and a browser to look at them
sys.path.append(str(Path(__file__).parents[2]))

from picture import take
from scene import Scene, asked, in_use

from console_browser import Browser, browser, serving_console
from gateway.signin import Role

SCREENS = Path(__file__).parents[2] / "docs" / "screens"
TOLD = ("now", "partners", "keys", "policy", "log", "entry", "case", "look-up")  # what the documentation shows


def main() -> None:
    """Take the pictures."""
    logging.getLogger("gateway").setLevel(logging.ERROR)  # of browsers that hang up there is nothing to tell
    parser = argparse.ArgumentParser(prog="scripts/screenshots", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--all", type=Path, metavar="DIR", help="a picture of every screen, into this folder")
    folder = parser.parse_args().all
    with tempfile.TemporaryDirectory(prefix="gateway-screens-") as place:
        scene = in_use(Path(place))
        try:
            for path in shoot(scene, folder or SCREENS, every=folder is not None):
                print(f"{path.name}  {path.stat().st_size / 1024:.0f} KiB")
        finally:
            scene.close()


def shoot(scene: Scene, folder: Path, *, every: bool) -> list[Path]:
    """The pictures' files."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with serving_console(scene.exchange):
        for dark in (False, True):
            with browser(dark=dark) as page:
                page.driver.execute_cdp_cmd(
                    "Emulation.setDeviceMetricsOverride",
                    {"width": 1366, "height": 900, "deviceScaleFactor": 1, "mobile": False},
                )
                page.sign_up(scene.exchange, "bob" if dark else "alice", *Role)
                for name, path in scene.screens().items():
                    if every or name in TOLD:
                        visit(page, name, path)
                        file = folder / f"{name}-{'dark' if dark else 'light'}.png"
                        file.write_bytes(take(page.driver))
                        made.append(file)
    return made


def visit(page: Browser, name: str, path: str) -> None:
    """Go there, and do what makes the screen tell something."""
    page.get(path)
    if name == "entry":
        page.click("Verify in this browser")
        page.wait(lambda driver: driver.find_element("id", "verdict").get_attribute("data-verdict") == "holds")
    elif name == "look-up":
        field = page.driver.find_element("name", "digests")
        page.driver.execute_script("arguments[0].value = arguments[1]", field, "\n".join(asked()))
        page.click("Look up")
        page.wait(lambda driver: driver.find_elements("css selector", ".tile"))


if __name__ == "__main__":
    main()
