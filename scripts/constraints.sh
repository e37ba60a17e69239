#!/bin/sh
# Write constraints.txt anew: the newest versions that pyproject.toml admits, all of them, as a fresh environment gets
# them. Linux, CPython 3.11 (the oldest supported); the pins are good for newer Pythons too.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.11}
torch=${TORCH:-torch==2.13.0}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m venv "$scratch/venv"
pip() { "$scratch/venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

pip install --quiet --upgrade pip
# shellcheck disable=SC2086  # TORCH may hold several words
pip install --quiet $torch
pip install --quiet --editable . --group dev --group docs
# What packages ask for on newer Pythons only is pinned as well, within the bounds that they set.
"$scratch/venv/bin/python" - >"$scratch/newer.txt" <<'EOF'
from importlib.metadata import distributions

from packaging.requirements import Requirement

for distribution in distributions():
    for requirement in map(Requirement, distribution.requires or ()):
        marker, requirement.marker = requirement.marker, None
        here = marker is None or marker.evaluate({"extra": ""})
        if not here and any(marker.evaluate({"extra": "", "python_version": f"3.{minor}"}) for minor in range(12, 15)):
            print(requirement)
EOF
pip install --quiet --requirement "$scratch/newer.txt"
{
    echo "# Written by \`make constraints\`: every package of an environment of nightisp, runtime and development."
    # torch's builds differ in what follows the plus sign (+cpu, +cu130): any build of this version will do.
    pip freeze --all --exclude-editable | sed 's/^\(torch==[^+]*\)+.*/\1/'
} >"$scratch/constraints.txt"
mv "$scratch/constraints.txt" constraints.txt
