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
# Prefect asks for `whenever` on Python 3.13 and newer only: pinned here as well.
pip install --quiet --editable . --group dev whenever
{
    echo "# Written by \`make constraints\`: every package of an environment of nightisp, runtime and development."
    # torch's builds differ in what follows the plus sign (+cpu, +cu130): any build of this version will do.
    pip freeze --all --exclude-editable | sed 's/^\(torch==[^+]*\)+.*/\1/'
} >"$scratch/constraints.txt"
mv "$scratch/constraints.txt" constraints.txt
