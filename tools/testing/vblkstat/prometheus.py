# SPDX-License-Identifier: GPL-2.0
"""Debian's Prometheus and node_exporter, unpacked in the cache and never installed.

    with prometheus.Servers(directory, rules) as servers:
        print(servers.value("virtio_blk_disks"), servers.firing())

Both listen on the loopback interface only, and end with the block.
"""

import http.client
import json
import re
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from host import cache, debian, process
from host.ui import step

_PACKAGES = ("prometheus", "prometheus-node-exporter")
# The web pages of the server, which the packages depend on, are not needed.
_NEEDED = "|".join(_PACKAGES)
# An idle host needs a second, a busy one more.
_SETTLE_SECONDS = 60

_CONF = """\
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [{rules}]
scrape_configs:
  - job_name: node
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


def programs() -> Path:
    """Return the directory of the programs, downloaded if need be (24 MB)."""
    def build(directory: Path) -> None:
        def unpack() -> None:
            debian.unpack([package for package in debian.closure(_PACKAGES, "bookworm")
                           if re.fullmatch(_NEEDED, package.name)], directory)

        with step("getting Prometheus from Debian"):
            debian.current(unpack)

    return cache.populate("prometheus", build, mib=200) / "usr/bin"


def promtool(*words: Any, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool with a standard input; its standard error is in the output."""
    return subprocess.run([programs() / "promtool", *map(str, words)], input=text,
                          text=True, timeout=60, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Servers:
    """node_exporter with the textfile collector only, and Prometheus, which reads it.

    directory: of the collector, whose files end in .prom; rules: of alerts.  The
    exporter is read, and the rules are evaluated, each second.
    """

    def __init__(self, directory: Path, rules: Path) -> None:
        self.collected = directory
        self._rules = rules
        self._running: list[subprocess.Popen[bytes]] = []
        self._ports = _free_port(), _free_port()

    def __enter__(self) -> "Servers":
        exporter, server = (f"127.0.0.1:{port}" for port in self._ports)
        self._place = process.work_directory()
        try:
            conf = self._place / "prometheus.yml"
            conf.write_text(_CONF.format(rules=self._rules, port=self._ports[0]))
            self._start("prometheus-node-exporter", "--collector.disable-defaults",
                        "--collector.textfile",
                        f"--collector.textfile.directory={self.collected}",
                        f"--web.listen-address={exporter}")
            self._start("prometheus", f"--config.file={conf}",
                        f"--storage.tsdb.path={self._place / 'data'}",
                        f"--web.listen-address={server}")
            assert process.wait_for(self._is_up, _SETTLE_SECONDS), self._log()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for program in self._running:
            process.end(program)
        process.remove_work_directory(self._place)

    def _start(self, program: str, *words: str) -> None:
        self._running.append(process.spawn([programs() / program, *words],
                                           self._place / f"{program}.log"))

    def _log(self) -> str:
        return "".join(path.read_text() for path in self._place.glob("*.log"))

    def _is_up(self) -> bool:
        try:
            return self.value("up") == 1
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError):
            return False

    def _ask(self, path: str, **words: str) -> Any:
        url = (f"http://127.0.0.1:{self._ports[1]}/api/v1/{path}?"
               f"{urllib.parse.urlencode(words)}")
        # A proxy of the environment would not reach the loopback interface.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and values of an expression."""
        return [(row["metric"], float(row["value"][1]))
                for row in self._ask("query", query=expression)["result"]]

    def value(self, expression: str) -> float | None:
        """Return the value of an expression that has one; None if it has none."""
        rows = self.query(expression)
        assert len(rows) <= 1, rows
        return rows[0][1] if rows else None

    def firing(self) -> set[tuple[str, str]]:
        """Return the alerts that fire: their names and disks."""
        return {(alert["labels"]["alertname"], alert["labels"].get("disk", ""))
                for alert in self._ask("alerts")["alerts"]
                if alert["state"] == "firing"}
