"""Sphinx's configuration: `make docs` builds docs/_build/html.

Pages that follow from the code are written into docs/_generated when a build begins; the two notebooks are run.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
GENERATED = DOCS / "_generated"
sys.path.insert(0, str(DOCS.parent))

import nightisp  # noqa: E402
from nightisp.pipeline import PIPELINE  # noqa: E402

project = "nightisp"
author = "the authors of nightisp"
copyright = "2026, the authors of nightisp"
version = release = nightisp.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.bibtex"]
exclude_patterns = ["_build"]
suppress_warnings = ["mystnb.unknown_mime_type"]

html_theme = "furo"
html_title = "nightisp"
html_static_path = ["_static"]
html_css_files = ["nightisp.css"]
html_copy_source = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600

bibtex_bibfiles = ["../BIBLIOGRAPHY.bib"]
bibtex_default_style = "plain"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
default_role = "code"  # docstrings mark code as Markdown does


def command_line() -> None:
    """Write the reference of the command line, as Typer tells it."""
    page = GENERATED / "cli.md"
    writer = [sys.executable, "-m", "typer", "nightisp.cli", "utils", "docs"]
    subprocess.run(
        [*writer, "--name", "nightisp", "--title", "The command line", "--output", page],
        check=True,
        cwd=DOCS.parent,
        stdout=subprocess.DEVNULL,
    )
    # Its lists cut what each command does to 45 characters; the sections say it whole.
    text = page.read_text("utf-8")
    does = dict(re.findall(r"^#+ `([^`]+)`\n\n(.+?)\n\n", text, re.MULTILINE | re.DOTALL))
    lines, at = [], "nightisp"
    for line in text.splitlines():
        if heading := re.match(r"#+ `([^`]+)`", line):
            at = heading[1]
        if item := re.match(r"\* `([^`-]+)`: .*\.\.\.$", line):
            line = f"* `{item[1]}`: {does[f'{at} {item[1]}']}"
        lines.append(line)
    page.write_text("\n".join(lines) + "\n", "utf-8")


def stage_functions() -> None:
    """Write the page of the stages' functions, in the order of the pipeline."""
    lines = ["# The stages as functions", ""]
    lines += ["Each takes a picture and its parameters, which [](../stages.md) lists, and gives a picture.", ""]
    lines += [
        "Those with a network take `networks` as well: `nightisp.models.weights.Compute(Library([folder]), 'cpu')`."
    ]
    for stage in PIPELINE:
        name = f"{stage.run.__module__}.{stage.run.__name__}"
        lines += ["", f"## {stage.name}", "", "```{eval-rst}", f".. autofunction:: {name}", "```"]
    (GENERATED / "stage_functions.md").write_text("\n".join(lines) + "\n", "utf-8")


def readable(_app: Any, _what: str, _name: str, _object: Any, _options: Any, signature: str | None, gives: str) -> Any:
    """Show a default that a dataclass makes anew each time as dots; its own way of writing is no Python."""
    return signature and signature.replace("<factory>", "..."), gives


def setup(app: Any) -> None:
    """Write what follows from the code before Sphinx looks for pages."""
    GENERATED.mkdir(exist_ok=True)
    command_line()
    stage_functions()
    app.connect("autodoc-process-signature", readable)
