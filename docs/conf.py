"""How Sphinx renders these pages; `make docs` runs it."""

project = "Raylift"
author = "The Raylift authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.mermaid"]
myst_heading_anchors = 3
html_theme = "furo"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_use_rtype = False
add_module_names = False
default_role = "literal"  # as Markdown has it
smartquotes = False  # it would make dashes of the -- of options
