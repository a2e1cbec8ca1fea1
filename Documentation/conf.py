# SPDX-License-Identifier: GPL-2.0
"""How Sphinx makes HTML of these pages: see `make html`."""

project = "Multi-queue virtio-blk driver"
html_title = project

# Literal blocks are shells, logs and drawings; none is to be taken for Python.
highlight_language = "none"

html_theme = "alabaster"
html_theme_options = {
    # Tables are wide here.
    "page_width": "1200px",
    "body_max_width": "none",
    "description": "One virtqueue, lock and interrupt for each blk-mq context",
    "fixed_sidebar": True,
    "show_powered_by": False,
}
html_sidebars = {"**": ["about.html", "navigation.html", "searchbox.html"]}
html_copy_source = False
html_show_copyright = False
