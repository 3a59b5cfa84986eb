"""How Sphinx builds the documentation: ``make docs``."""

from __future__ import annotations

from pathlib import Path
import sys

sys.path.insert(0, str(Path(__file__).parent.parent))

from pytest_eventlet_debug import __version__

project = "pytest-eventlet-debug"
author = "The pytest-eventlet-debug developers"
copyright = f"2026, {author}"
release = __version__

extensions = ["myst_parser", "sphinx_copybutton"]
exclude_patterns = ["_build"]
nitpicky = True
# Most literal blocks are what a terminal shows; console and Python blocks name their language.
highlight_language = "none"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_title = f"{project} {release}"
html_theme_options = {
    "source_repository": "https://github.com/eventlet/pytest-eventlet-debug/",
    "source_branch": "main",
    "source_directory": "docs/",
}

# The prompt is not copied, and neither is what a command prints.
copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"

linkcheck_timeout = 10
