#!/bin/bash
# Do what the container does, as far as that goes without one: the files that .dockerignore lets in, in a folder of
# their own, without git; run.sh on a copy of data/, in an empty environment.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
bin=$PWD/.venv/bin

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
image=$scratch/nightisp data=$scratch/data
fail() {
    printf 'container: %s\n' "$*" >&2
    exit 1
}
run() { env -i PATH="$bin:/usr/bin:/bin" DATA="$data" NIGHTISP_STORE="$scratch/store" "$image/run.sh"; }

mkdir "$image" "$scratch/store"
sed -n 's/^!//p' .dockerignore | while read -r name; do
    [[ -e $name ]] || fail ".dockerignore lets in $name, which is not there"
    mkdir -p "$image/$(dirname "$name")"
    cp -R "$name" "$image/$name"
done
cp -R data "$data"

echo "container: the packages of the image"
(cd "$image" && "$bin/python" scripts/requirements.py) >"$scratch/requirements.txt"
"$bin/pip" install --quiet --disable-pip-version-check --dry-run --constraint constraints.txt \
    --requirement "$scratch/requirements.txt"
(cd "$image" && "$bin/dvc" init --no-scm --quiet && "$bin/dvc" config core.analytics false && "$bin/dvc" status --quiet) ||
    [[ $? == 1 ]] || fail "dvc does not work in the image" # 1: stages are due, as in any new project

echo "container: run.sh"
run
for photograph in "$data"/*.dng "$data"/*.png; do
    picture=${photograph%.*}.jpg
    [[ $(head -c 2 "$picture" | od -An -tx1) == " ff d8" ]] || fail "no JPEG beside $photograph"
done

echo "container: run.sh with a broken photograph"
head -c 1000 "$(find "$data" -name '*.dng' | head -n 1)" >"$data/broken.dng"
status=0
run >"$scratch/log" 2>&1 || status=$?
[[ $status == 3 ]] || fail "a broken photograph gave exit status $status, not 3: $(cat "$scratch/log")"
grep -q broken.dng "$scratch/log" || fail "the broken photograph is not named: $(cat "$scratch/log")"
echo "container: good"
