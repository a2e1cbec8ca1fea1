# SPDX-License-Identifier: GPL-2.0
"""Which function of the guest's kernel an address belongs to."""

import bisect

KERNEL = "vmlinux"
# Beyond this the nearest symbol below is no longer what an address is in: code
# that has no name of its own, such as BPF programs.
_MAX_FUNCTION = 1 << 16


class Symbols:
    """The functions of a running kernel, from the text of /proc/kallsyms.

    The parts into which a compiler splits a function (.cold, .isra.0 and
    the like) go by the name of the whole.
    """

    def __init__(self, text):
        found = {}
        for line in text.splitlines():
            address, kind, name, *module = line.split()
            if kind in "tTwW":
                found.setdefault(int(address, 16), (
                    name.partition(".")[0],
                    module[0].strip("[]") if module else KERNEL))
        self._addresses = sorted(found)
        self._functions = [found[address] for address in self._addresses]
        self._entries = {}
        for address in self._addresses:
            self._entries.setdefault(found[address][0], []).append(address)

    def at(self, address):
        """Return (function, module, whether the address is its first)."""
        index = bisect.bisect_right(self._addresses, address) - 1
        if index < 0 or address - self._addresses[index] > _MAX_FUNCTION:
            return "unknown", KERNEL, False
        return *self._functions[index], self._addresses[index] == address

    def addresses(self, names):
        """Return where functions of these names begin."""
        return [address for name in names
                for address in self._entries.get(name, ())]

    def extent(self, module):
        """Return the first and last address at which a module has a function.

        None if it has none.
        """
        own = [address for address, (_, where)
               in zip(self._addresses, self._functions) if where == module]
        return (own[0], own[-1] + _MAX_FUNCTION) if own else None
