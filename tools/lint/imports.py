# SPDX-License-Identifier: GPL-2.0
"""How the tools' Python files import each other: circles of files and of folders.

An import inside a function counts: it only hides a circle from Python.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


def circular(edges: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """Return the edges of a graph that are part of a circle, sorted.

    edges: for each node, the nodes that it leads to.
    """
    def reached(start: str) -> set[str]:
        found: set[str] = set()
        left = [start]
        while left:
            new = set(edges.get(left.pop(), ())) - found
            found |= new
            left += new
        return found

    below = {node: reached(node) for node in edges}
    return [(node, other) for node in sorted(edges) for other in sorted(edges[node])
            if node in below.get(other, ())]


def _names(path: Path, text: str) -> Iterator[str]:
    """Yield the dotted names that a file imports, from the folder of all modules."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = path.parts[1:len(path.parts) - node.level] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def between_files(files: Iterable[Path], top: Path) -> dict[str, set[str]]:
    """Return for each Python file of tools/ the files there that it imports."""
    sources = [path for path in files if path.suffix == ".py"
               and path.parts[0] == "tools"]
    modules = {".".join(path.with_suffix("").parts[1:]).removesuffix(".__init__"):
               str(path) for path in sources}
    edges = {}
    for path in sources:
        # `from a.b import c` imports the module a.b.c, or a name of a.b.
        found = {modules.get(name) or modules.get(name.rpartition(".")[0])
                 for name in _names(path, (top / path).read_text())}
        edges[str(path)] = {name for name in found if name}
    return edges


def circles(files: Iterable[Path], top: Path) -> list[str]:
    """Return a line for each import that is part of a circle of files or of folders.

    files: of the project, relative to its top.
    """
    edges = between_files(files, top)
    folders: dict[str, set[str]] = {}
    why: dict[tuple[str, str], str] = {}
    for source, others in sorted(edges.items()):
        for other in sorted(others):
            pair = str(Path(source).parent), str(Path(other).parent)
            if pair[0] != pair[1]:
                folders.setdefault(pair[0], set()).add(pair[1])
                why.setdefault(pair, f"{source} imports {other}")
    return [f"{source}: imports {other}, which imports back"
            for source, other in circular(edges)] + [
        f"{why[pair]}, and {pair[1]}/ imports from {pair[0]}/"
        for pair in circular(folders)]
