# SPDX-License-Identifier: GPL-2.0
"""The sections of VIRTIO that comments, documents and rules cite exist."""

import re
from pathlib import Path

import pytest

from .virtio_sections import SECTIONS, wrong_citations

TOP = Path(__file__).resolve().parents[3]


def test_rules_cite_sections() -> None:
    """Each rule of vblksim and vdpadrv has a section of the standard."""
    cited = set(re.findall(r'^\tX\(\w+, "([^"]+)"', "".join(
        (TOP / f"tools/{rules}.h").read_text() for rules in (
            "vblksim/rules_block", "vblksim/rules_ring", "vdpadrv/rules")), re.MULTILINE))
    assert len(cited) > 30
    assert cited <= SECTIONS.keys()


def test_citations_name_sections() -> None:
    """Each citation of VIRTIO in the tree is of this version, and of a section it has."""
    assert wrong_citations(TOP) == []


@pytest.mark.parametrize("text,wrong", (
    ("/* @1.3, 5.2.6: old */", "VIRTIO 1.3 has no section 5.2.6"),
    ("/* (@1.4, 2.7.15.1) */", "VIRTIO 1.4 has no section 2.7.15.1"),
    (" * Ranges (@1.4,\n * 5.2.9 and 5.2.6).", "no section 5.2.9"),
    ("# @1.4, 2.1, 2.2 and\n# 3.9", "no section 3.9"),
    ("/* @1.4, 2.7.5.3.1, 2.8.17 and\n * 3.4.1: good */", "")))
def test_wrong_citation_is_found(tmp_path: Path, text: str, wrong: str) -> None:
    """A citation of another version or an unknown section is found, across lines too."""
    (tmp_path / "drivers").mkdir()
    # This file is in the tree, too.
    (tmp_path / "drivers/some.c").write_text(text.replace("@", "VIRTIO ") + "\n")
    found = wrong_citations(tmp_path)
    assert len(found) == bool(wrong) and all(wrong in each for each in found), found
