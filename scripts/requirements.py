"""Print what nightisp needs at run time, one requirement a line: for a layer of the container without the sources."""

import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
print(*project["dependencies"], sep="\n")
