# SPDX-License-Identifier: GPL-2.0
"""make soak: figures on what the driver survives, and the tests' short forms."""
