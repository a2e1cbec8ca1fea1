# SPDX-License-Identifier: GPL-2.0
"""The sections of VIRTIO 1.4 (v1.4-cs01) that this project cites, with their titles.

Here are chapters 2 to 6 except what no block device needs: objects, groups and device
parts (2.11 to 2.14), the transports apart from one section, and other device types.
"""

import re
from dataclasses import dataclass
from pathlib import Path

VERSION = "1.4"

# Number, how often the section's text says MUST (or MUST NOT) to a driver, title.
_TABLE = """
2 0 Basic Facilities of a Virtio Device
2.1 0 Device Status Field
2.1.1 3 Driver Requirements: Device Status Field
2.1.2 0 Device Requirements: Device Status Field
2.2 0 Feature Bits
2.2.1 7 Driver Requirements: Feature Bits
2.2.2 0 Device Requirements: Feature Bits
2.2.3 2 Legacy Interface: A Note on Feature Bits
2.3 0 Notifications
2.4 0 Device Reset
2.4.1 0 Device Requirements: Device Reset
2.4.2 0 Driver Requirements: Device Reset
2.5 0 Device Configuration Space
2.5.1 3 Driver Requirements: Device Configuration Space
2.5.2 0 Device Requirements: Device Configuration Space
2.5.3 0 Legacy Interface: A Note on Device Configuration Space endian-ness
2.5.4 0 Legacy Interface: Device Configuration Space
2.6 0 Virtqueues
2.6.1 0 Virtqueue Reset
2.6.1.1 0 Virtqueue Reset
2.6.1.1.1 0 Device Requirements: Virtqueue Reset
2.6.1.1.2 1 Driver Requirements: Virtqueue Reset
2.6.1.2 0 Virtqueue Re-enable
2.6.1.2.1 0 Device Requirements: Virtqueue Re-enable
2.6.1.2.2 1 Driver Requirements: Virtqueue Re-enable
2.7 0 Split Virtqueues
2.7.1 1 Driver Requirements: Virtqueues
2.7.2 3 Legacy Interfaces: A Note on Virtqueue Layout
2.7.3 1 Legacy Interfaces: A Note on Virtqueue Endianness
2.7.4 0 Message Framing
2.7.4.1 0 Device Requirements: Message Framing
2.7.4.2 1 Driver Requirements: Message Framing
2.7.4.3 0 Legacy Interface: Message Framing
2.7.5 0 The Virtqueue Descriptor Table
2.7.5.1 0 Device Requirements: The Virtqueue Descriptor Table
2.7.5.2 2 Driver Requirements: The Virtqueue Descriptor Table
2.7.5.3 0 Indirect Descriptors
2.7.5.3.1 5 Driver Requirements: Indirect Descriptors
2.7.5.3.2 0 Device Requirements: Indirect Descriptors
2.7.6 0 The Virtqueue Available Ring
2.7.6.1 1 Driver Requirements: The Virtqueue Available Ring
2.7.7 0 Used Buffer Notification Suppression
2.7.7.1 3 Driver Requirements: Used Buffer Notification Suppression
2.7.7.2 0 Device Requirements: Used Buffer Notification Suppression
2.7.8 0 The Virtqueue Used Ring
2.7.8.1 0 Legacy Interface: The Virtqueue Used Ring
2.7.8.2 0 Device Requirements: The Virtqueue Used Ring
2.7.8.3 1 Driver Requirements: The Virtqueue Used Ring
2.7.9 0 In-order use of descriptors
2.7.10 0 Available Buffer Notification Suppression
2.7.10.1 5 Driver Requirements: Available Buffer Notification Suppression
2.7.10.2 0 Device Requirements: Available Buffer Notification Suppression
2.7.11 0 Helpers for Operating Virtqueues
2.7.12 0 Virtqueue Operation
2.7.13 0 Supplying Buffers to The Device
2.7.13.1 0 Placing Buffers Into The Descriptor Table
2.7.13.2 0 Updating The Available Ring
2.7.13.3 0 Updating idx
2.7.13.3.1 1 Driver Requirements: Updating idx
2.7.13.4 0 Notifying The Device
2.7.13.4.1 1 Driver Requirements: Notifying The Device
2.7.14 0 Receiving Used Buffers From The Device
2.8 0 Packed Virtqueues
2.8.1 0 Driver and Device Ring Wrap Counters
2.8.2 0 Polling of available and used descriptors
2.8.3 0 Write Flag
2.8.4 0 Element Address and Length
2.8.5 0 Scatter-Gather Support
2.8.6 0 Next Flag: Descriptor Chaining
2.8.7 0 Indirect Flag: Scatter-Gather Support
2.8.8 0 In-order use of descriptors
2.8.9 0 Multi-buffer requests
2.8.10 0 Driver and Device Event Suppression
2.8.10.1 0 Structure Size and Alignment
2.8.11 1 Driver Requirements: Virtqueues
2.8.12 0 Device Requirements: Virtqueues
2.8.13 0 The Virtqueue Descriptor Format
2.8.14 0 Event Suppression Structure Format
2.8.15 0 Device Requirements: The Virtqueue Descriptor Table
2.8.16 3 Driver Requirements: The Virtqueue Descriptor Table
2.8.17 6 Driver Requirements: Scatter-Gather Support
2.8.18 0 Device Requirements: Scatter-Gather Support
2.8.19 4 Driver Requirements: Indirect Descriptors
2.8.20 0 Virtqueue Operation
2.8.21 0 Supplying Buffers to The Device
2.8.21.1 0 Placing Available Buffers Into The Descriptor Ring
2.8.21.1.1 1 Driver Requirements: Updating flags
2.8.21.2 0 Sending Available Buffer Notifications
2.8.21.3 0 Implementation Example
2.8.21.3.1 1 Driver Requirements: Sending Available Buffer Notifications
2.8.22 0 Receiving Used Buffers From The Device
2.9 0 Driver Notifications
2.10 0 Shared Memory Regions
2.10.1 0 Addressing within regions
2.10.2 0 Device Requirements: Shared Memory Regions
3 0 General Initialization And Device Operation
3.1 0 Device Initialization
3.1.1 5 Driver Requirements: Device Initialization
3.1.2 1 Legacy Interface: Device Initialization
3.2 0 Device Operation
3.2.1 0 Notification of Device Configuration Changes
3.3 0 Device Cleanup
3.3.1 2 Driver Requirements: Device Cleanup
3.4 0 Device Suspend
3.4.1 5 Driver Requirements: Device Suspend
3.4.2 0 Device Requirements: Device Suspend
4 0 Virtio Transport Options
4.1 0 Virtio Over PCI Bus
4.1.4 0 Virtio Structure PCI Capabilities
4.1.4.3 0 Common configuration structure layout
4.1.4.3.1 0 Device Requirements: Common configuration structure layout
5 0 Device Types
5.2 0 Block Device
5.2.1 0 Device ID
5.2.2 0 Virtqueues
5.2.3 0 Feature bits
5.2.3.1 0 Legacy Interface: Feature bits
5.2.4 0 Device configuration layout
5.2.4.1 1 Legacy Interface: Device configuration layout
5.2.5 0 Device Initialization
5.2.5.1 4 Driver Requirements: Device Initialization
5.2.5.2 0 Device Requirements: Device Initialization
5.2.5.3 0 Legacy Interface: Device Initialization
5.2.6 0 Device Operation
5.2.6.1 20 Driver Requirements: Device Operation
5.2.6.2 0 Device Requirements: Device Operation
5.2.6.3 3 Legacy Interface: Device Operation
5.2.6.4 3 Legacy Interface: Framing Requirements
6 0 Reserved Feature Bits
6.1 6 Driver Requirements: Reserved Feature Bits
6.2 0 Device Requirements: Reserved Feature Bits
6.3 1 Legacy Interface: Reserved Feature Bits
"""


@dataclass(frozen=True)
class Section:
    """A section of the standard.

    musts: how often it says MUST or MUST NOT to a driver.
    """

    number: str
    title: str
    musts: int

    @property
    def binds_drivers(self) -> bool:
        """Whether it has requirements on drivers, if only with SHOULD."""
        return self.musts > 0 or self.title.startswith("Driver Requirements")

    @property
    def binds_devices(self) -> bool:
        """Whether it has requirements on devices, apart from the legacy interface."""
        return self.title.startswith("Device Requirements")


SECTIONS: dict[str, Section] = {
    number: Section(number, title, int(musts)) for number, musts, title in
    (line.split(" ", 2) for line in _TABLE.strip().splitlines())}

_NUMBER = r"\d+(?:\.\d+)*(?!\d)"
_CITATION = re.compile(rf"VIRTIO (\d\.\d),? (?:section )?({_NUMBER}(?:(?:, | and | to )"
                       rf"{_NUMBER})*)")
# The end of a line, and the mark of a comment at the start of the next.
_BREAK = re.compile(r"[ \t]*\n[ \t]*(?:\*(?!/)|#|//)?[ \t]*")
_PLACES = ("drivers", "include", "tools", "Documentation")
_KINDS = {".c", ".h", ".py", ".rst", ".1", ".8", ".pml"}


def wrong_citations(top: Path) -> list[str]:
    """Return the citations in a tree that name no section of this version.

    A citation is "VIRTIO 1.4, 5.2.6", with one number or several.
    """
    wrong = []
    for path in sorted(file for place in _PLACES for file in (top / place).rglob("*")
                       if file.suffix in _KINDS and file.is_file()):
        text = _BREAK.sub(" ", path.read_text())
        for version, numbers in _CITATION.findall(text):
            for number in re.findall(_NUMBER, numbers):
                if version != VERSION or number not in SECTIONS:
                    wrong.append(f"{path.relative_to(top)}: VIRTIO {version} has no "
                                 f"section {number} here")
    return wrong
