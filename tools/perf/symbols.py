# SPDX-License-Identifier: GPL-2.0
"""Map addresses to functions of the guest's kernel."""

import bisect
from collections.abc import Iterable
from typing import NamedTuple

KERNEL = "vmlinux"
# An address farther than this from the symbol below it is in code without a symbol,
# such as a BPF program.
_MAX_FUNCTION = 1 << 16


class Place(NamedTuple):
    """Where an address is; entry: whether it is the function's first."""
    function: str
    module: str
    entry: bool


class Symbols:
    """The functions of a running kernel, from the text of /proc/kallsyms.

    The parts of a function that the compiler splits off (.cold, .isra.0 and so on)
    have the function's name.
    """

    def __init__(self, text: str):
        found: dict[int, tuple[str, str]] = {}
        for line in text.splitlines():
            address, kind, name, *module = line.split()
            if kind in "tTwW":
                found.setdefault(int(address, 16), (
                    name.partition(".")[0],
                    module[0].strip("[]") if module else KERNEL))
        self._addresses = sorted(found)
        self._functions = [found[address] for address in self._addresses]
        self._entries: dict[str, list[int]] = {}
        for start in self._addresses:
            self._entries.setdefault(found[start][0], []).append(start)

    def at(self, address: int) -> Place:
        """Return the Place of an address."""
        index = bisect.bisect_right(self._addresses, address) - 1
        if index < 0 or address - self._addresses[index] > _MAX_FUNCTION:
            return Place("unknown", KERNEL, False)
        return Place(*self._functions[index], self._addresses[index] == address)

    def addresses(self, names: Iterable[str]) -> list[int]:
        """Return the first addresses of the functions of these names."""
        return [address for name in names
                for address in self._entries.get(name, ())]

    def extent(self, module: str) -> tuple[int, int] | None:
        """Return the first and last address of a module's code; None without any."""
        own = [address for address, (_, where)
               in zip(self._addresses, self._functions) if where == module]
        return (own[0], own[-1] + _MAX_FUNCTION) if own else None
