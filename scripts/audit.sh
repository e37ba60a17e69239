#!/bin/sh
# Ask PyPI which of the packages pinned in constraints.txt have known vulnerabilities. Exit status 1 if one has; where
# PyPI's data cannot be had, that is said, and nothing is claimed.
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip --disable-pip-version-check install --quiet pip-audit==2.10.1 || {
    echo "not audited: pip-audit could not be installed"
    exit 0
}
"$scratch/venv/bin/pip-audit" --requirement constraints.txt --no-deps --disable-pip --progress-spinner off \
    --format json --output "$scratch/found.json" 2>"$scratch/said.txt" || true
"$python" - "$scratch" <<'END'
import json
import sys
from pathlib import Path

scratch = Path(sys.argv[1])
file = scratch / "found.json"
if not file.is_file():
    lines = (scratch / "said.txt").read_text("utf-8").strip().splitlines()
    sys.exit(print(f"not audited: {lines[-1] if lines else 'pip-audit said nothing'}"))
packages = json.loads(file.read_text("utf-8"))["dependencies"]
audited = [package for package in packages if "vulns" in package]
print(f"{len(audited)} of {len(packages)} packages audited" if audited else "not audited: PyPI's data cannot be had here")
found = [(package, flaw) for package in audited for flaw in package["vulns"]]
for package, flaw in found:
    cure = ", ".join(flaw["fix_versions"]) or "no version without it yet"
    print(f"{package['name']} {package['version']}: {flaw['id']}; cured in: {cure}")
sys.exit(bool(found))
END
