# SPDX-License-Identifier: GPL-2.0
"""The environment of commands that tests start."""

import os


def plain_environment(**more: str) -> dict[str, str]:
    """Return the environment without what `make check` and its variables set, and more.

    An inner make would take it for its own variables.
    """
    private = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "KERNEL", "KDIR",
               "LINUX", "NAME", "DEBUG", "ONLY", "RECORD", "SEED", "T")
    return {**{name: value for name, value in os.environ.items()
               if name not in private}, **more}
