"""Print what nightisp needs at run time, one requirement a line: for a layer of the container without the sources.

Arguments are names of extras, with commas between them: `python scripts/requirements.py dask,s3`.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
extras = [name for argument in sys.argv[1:] for name in argument.split(",") if name]
print(*project["dependencies"], sep="\n")
for extra in extras:
    print(*project["optional-dependencies"][extra], sep="\n")
