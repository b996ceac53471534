"""How Sphinx builds these pages: ``sphinx-build -W docs OUT``. What is generated is in ``_ext/generated.py``."""

from __future__ import annotations

import sys
from pathlib import Path

import zmqpipeline

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "zmqpipeline"
author = "the zmqpipeline authors"
copyright = author
release = version = zmqpipeline.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated"]
exclude_patterns = ["_build", "_ext"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"zmqpipeline {release}"
html_copy_source = False
html_show_sphinx = False
