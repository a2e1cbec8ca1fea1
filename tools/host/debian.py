# SPDX-License-Identifier: GPL-2.0
"""Download packages from Debian's archive without touching the host's apt.

apt runs with its own configuration, sources, lists and downloads in the cache.
Packages are unpacked into the cache, never installed.  The address of the archive
comes from the host's apt, or from the environment variable DEBIAN_MIRROR.
"""

import functools
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from . import cache, deps
from .ui import UserError, say, step

SUITES = ("bookworm", "bookworm-updates", "bookworm-security",
          "bookworm-backports", "trixie-backports")
# From the last comes only kernel source, which is the same for all architectures.
_FOREIGN_SUITES = SUITES[:-1]
# In place of an architecture: Debian 13's packages for amd64.  They have lists of their
# own, because most users do not need them.
NEXT = "trixie"
_NEXT_SUITES = (NEXT, f"{NEXT}-updates", f"{NEXT}-security", f"{NEXT}-backports")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

_Result = TypeVar("_Result")

_DAY = 24 * 3600
_PROBE_SECONDS = 25


@dataclass(frozen=True)
class Package:
    """One version of a package in the archive; size is in bytes."""
    name: str
    version: str
    size: int
    arch: str = "amd64"

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class Mirrors(NamedTuple):
    """The URIs of Debian's archive and of its security archive."""
    main: str
    security: str


def mirrors() -> Mirrors:
    """Return the URIs of Debian's archive and of its security archive."""
    chosen = os.environ.get("DEBIAN_MIRROR", "").rstrip("/")
    if chosen:
        if not re.match(r"[a-z+]+:/", chosen):
            raise UserError(f"DEBIAN_MIRROR is {chosen!r}; it must be the address of "
                            "a Debian archive, such as http://HOST/debian")
        return Mirrors(chosen, f"{chosen}-security")
    deps.need("archive")
    result = subprocess.run(["apt-get", "update", "--print-uris"], text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL)
    found: dict[str, str] = {}
    for uri, suite in re.findall(r"^'(\S+?)/*/dists/([^/\s]+)/InRelease'",
                                 result.stdout, re.MULTILINE):
        if re.fullmatch(r"(bookworm|trixie|(old|)stable)(-updates|-backports)?",
                        suite):
            found.setdefault("main", uri)
        elif re.fullmatch(r"(bookworm|trixie|(old|)stable)-security", suite):
            found.setdefault("security", uri)
    if "main" not in found:
        raise UserError("this host's apt has no source of Debian 12; set "
                        "DEBIAN_MIRROR to the address of an archive, such as "
                        "http://HOST/debian")
    return Mirrors(found["main"],
                   found.get("security", f"{found['main']}-security"))


def sources(suites: Iterable[str] = SUITES, arch: str = "amd64") -> str:
    """Return the text of an apt sources list that covers the suites."""
    main, security = mirrors()
    return "".join(
        f"deb [arch={_dpkg(arch)} target=Packages signed-by={KEYRING}] "
        f"{security if suite.endswith('-security') else main} {suite} main\n"
        for suite in suites)


def _suites(arch: str) -> tuple[str, ...]:
    return {"amd64": SUITES, NEXT: _NEXT_SUITES}.get(arch, _FOREIGN_SUITES)


def _dpkg(arch: str) -> str:
    """Return dpkg's name of an architecture."""
    return "amd64" if arch == NEXT else arch


# Paths are options of each call, because the cache can be copied or moved.
_CONF = """\
// Written by virtio-blk-mq's tools; it does not affect the host's apt.
#clear APT::Update;
#clear DPkg;
#clear APT::Architectures;
APT::Architecture "{arch}";
APT::Architectures:: "{arch}";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "10";
Acquire::https::Timeout "10";
Debug::NoLocking "true";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"""


def _here(arch: str = "amd64") -> Path:
    """Return the directory of our apt's configuration and lists.

    Each architecture has its own directory, because most users need only one.
    """
    return cache.root() / ("apt" if arch == "amd64" else f"apt-{arch}")


def _apt(program: str, *words: str, arch: str = "amd64",
         **options: Any) -> subprocess.CompletedProcess[str]:
    here = _here(arch)
    paths = {"Dir::State": here, "Dir::State::lists": here / "lists",
             "Dir::State::status": here / "status", "Dir::Cache": here,
             "Dir::Etc::sourcelist": here / "sources.list"}
    return subprocess.run(
        [program, "-q", "-c", str(here / "apt.conf"),
         *(word for name, path in paths.items() for word in ("-o", f"{name}={path}")),
         *words], text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env={**os.environ, "LC_ALL": "C"}, **options)


def _unreachable(detail: str) -> UserError:
    errors = re.findall(r"^E: (.*)", detail, re.MULTILINE)
    return UserError(
        f"cannot reach Debian's archive at {mirrors()[0]}: "
        f"{errors[0] if errors else 'no answer'}; check the network, or set "
        "DEBIAN_MIRROR to another archive, such as http://HOST/debian")


def _probe(arch: str) -> None:
    """Fail early, rather than once per suite, if there is no network."""
    probe = _here(arch) / "probe"
    try:
        result = _apt("/usr/lib/apt/apt-helper", "download-file",
                      f"{mirrors()[0]}/dists/{_suites(arch)[0]}/Release", str(probe),
                      arch=arch, timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired as expired:
        raise _unreachable("") from expired
    finally:
        probe.unlink(missing_ok=True)
    if result.returncode:
        raise _unreachable(result.stdout)


def refresh(force: bool = False, arch: str = "amd64") -> None:
    """Download the archive's lists if they are missing or older than a day."""
    deps.need("archive")
    text = sources(_suites(arch), arch)
    here = _here(arch)
    listed = here / "sources.list"
    stamp = here / "updated"

    def fresh() -> bool:
        return (not force and stamp.exists() and listed.exists()
                and listed.read_text() == text
                and 0 <= time.time() - stamp.stat().st_mtime < _DAY)

    if fresh():
        return
    with cache.lock(here.with_name(f".{here.name}.lock"),
                    "the lists of Debian's archive"):
        if fresh():
            return
        cache.require_space(cache.root(), 400)
        with cache.space_errors(cache.root()):
            for directory in ("lists/partial", "archives/partial"):
                (here / directory).mkdir(parents=True, exist_ok=True)
            stamp.unlink(missing_ok=True)
            (here / "apt.conf").write_text(_CONF.format(arch=_dpkg(arch)))
            (here / "status").touch()
            listed.write_text(text)
            foreign = "" if arch == "amd64" else f" for {arch}"
            with step(f"downloading the lists of Debian's archive{foreign}"):
                _probe(arch)
                result = _apt("apt-get", "update", "--error-on=any", arch=arch)
                if result.returncode:
                    raise _unreachable(result.stdout)
            _stanzas.cache_clear()
            stamp.touch()


@functools.cache
def _stanzas(names: tuple[str, ...], arch: str) -> list[Package]:
    """Return all versions of the packages in a tuple of names."""
    result = _apt("apt-cache", "show", *names, arch=arch)
    packages = []
    for stanza in result.stdout.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Size): (\S+)$", stanza,
                                 re.MULTILINE))
        if len(fields) == 3:
            packages.append(Package(fields["Package"], fields["Version"],
                                    int(fields["Size"]), arch))
    return packages


def _compare(one: Package, other: Package) -> int:
    """Compare two packages by version, with Debian's rules."""
    if one.version == other.version:
        return 0
    newer = subprocess.run(["dpkg", "--compare-versions",
                            one.version, "gt", other.version])
    return 1 if newer.returncode == 0 else -1


def versions(pattern: str, arch: str = "amd64") -> list[Package]:
    """Return all versions of the packages whose whole name matches a pattern.

    pattern: a regular expression.  The newest version comes first; packages of one
    version are sorted by name.
    """
    refresh(arch=arch)
    names = tuple(sorted(
        name for name in _apt("apt-cache", "pkgnames", arch=arch).stdout.split()
        if re.fullmatch(pattern, name)))
    found = sorted(set(_stanzas(names, arch)) if names else (),
                   key=lambda package: package.name)
    return sorted(found, key=functools.cmp_to_key(_compare), reverse=True)


def newest(pattern: str, variable: str,
           wanted: Callable[[Package], bool] = lambda package: True,
           arch: str = "amd64") -> Package:
    """Return the newest version of a package that matches.

    pattern: a regular expression for the whole name; wanted: a further condition.
    If no package matches, the UserError lists the suites searched, and tells the
    user to choose another package with the environment variable `variable`.
    """
    for package in versions(pattern, arch):
        if wanted(package):
            return package
    raise gone(pattern, variable, arch)


def gone(what: str, variable: str, arch: str = "amd64") -> UserError:
    """Return the UserError for a package that is not in the archive."""
    name = what.replace("\\", "")
    return UserError(
        f"Debian's archive at {mirrors()[0]} has no package {name} (or no longer has "
        f"it) in {', '.join(_suites(arch))} for {_dpkg(arch)}; set {variable} to the "
        "name of a package that it has")


def download(packages: list[Package], directory: Path) -> list[Path]:
    """Download packages into a directory and return the paths of the .debs.

    Raises UserError if the archive cannot be reached, and FileNotFoundError if the
    archive no longer has a version that the lists name.
    """
    what = ", ".join(map(str, packages)) if len(packages) < 6 else \
        f"{len(packages)} packages"
    size = sum(package.size for package in packages)
    say(f"    downloading {what} ({size / 1e6:.1f} MB)")
    for arch in sorted({package.arch for package in packages}):
        _download([package for package in packages if package.arch == arch],
                  arch, directory)
    return sorted(Path(directory).glob("*.deb"))


def _download(packages: list[Package], arch: str, directory: Path) -> None:
    result = _apt("apt-get", "download",
                  *(f"{package.name}={package.version}" for package in packages),
                  arch=arch, cwd=directory)
    if result.returncode:
        if re.search(r"\b404\b|was not found", result.stdout):
            raise FileNotFoundError(result.stdout)
        # On a full disk raise that error instead.
        cache.require_space(directory, 1)
        raise _unreachable(result.stdout)


def unpack(packages: list[Package], directory: Path) -> None:
    """Download packages and unpack them into one directory."""
    for deb in download(packages, directory):
        subprocess.run(["dpkg", "-x", str(deb), str(directory)], check=True)
        deb.unlink()


def current(function: Callable[[], _Result], *arches: str) -> _Result:
    """Call function; on FileNotFoundError, refresh the lists and call it again.

    arches: the architectures, besides amd64, whose lists function reads.

    The archive removes a version when the next point release appears, and the lists
    can be a day old.
    """
    try:
        return function()
    except FileNotFoundError:
        say("    the archive no longer has this version; updating the lists and "
            "trying again")
        for arch in {"amd64", *arches}:
            refresh(force=True, arch=arch)
        return function()


def closure(names: Iterable[str], suite: str, arch: str = "amd64") -> list[Package]:
    """Return packages of a suite and all their dependencies.

    Dependencies that the host has installed are included.
    """
    refresh(arch=arch)
    result = _apt("apt-get", "install", "--print-uris", "-y", "-t", suite,
                  *names, arch=arch)
    if result.returncode:
        raise UserError(f"apt-get cannot resolve {' '.join(names)} from {suite} of "
                        f"Debian's archive at {mirrors()[0]}; its output:\n"
                        f"{result.stdout.strip()}")
    return [Package(name, version.replace("%3a", ":"), int(size), arch)
            for name, version, size in re.findall(
                r"^'\S+' ([^_\s]+)_([^_\s]+)_\w+\.deb (\d+) ",
                result.stdout, re.MULTILINE)]
