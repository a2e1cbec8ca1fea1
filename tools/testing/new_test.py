# SPDX-License-Identifier: GPL-2.0
"""make new-test NAME=topic: a file for new tests, from the template."""

import re
import sys
from pathlib import Path

from host import ui
from host.ui import UserError

_HERE = Path(__file__).resolve().parent
# Most tests are about the driver.
_FOLDER = _HERE / "driver"


def create(name: str, directory: Path = _FOLDER) -> Path:
    """Copy the template to test_<name>.py in a directory; return its path.

    Raises UserError for a name that is none, or is taken.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        raise UserError(f"NAME is {name!r}, and must be a topic of up to 40 lower-case "
                        "letters, digits and _, such as NAME=write_zeroes")
    path = next(_HERE.rglob(f"test_{name}.py"), directory / f"test_{name}.py")
    text = (_HERE / "template.py").read_text()
    text = text.replace("test_TOPIC", f"test_{name}_data")
    try:
        with path.open("x") as file:
            file.write(text.replace("TOPIC", name.replace("_", " ").capitalize()))
    except FileExistsError:
        raise UserError(f"{path} is there already; add the test to it, or give another "
                        "NAME=") from None
    return path


def main() -> int:
    """Create the file that NAME= asks for, and say what comes next."""
    path = create(sys.argv[1] if len(sys.argv) == 2 else "")
    shown = path.relative_to(_HERE.parents[1])
    print(f"{shown}\nnext: make check T={path.stem}; then add it to the table of "
          "Documentation/testing.rst\nif it is not about the driver, move it to the "
          "folder of its subject")
    return 0


if __name__ == "__main__":
    ui.main(main)
