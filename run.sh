#!/bin/bash
# Render every photograph in a folder; the pictures are written beside them. This is what the container runs:
#
#   docker run --gpus all -v "$PWD/data:/data" nightisp ./run.sh [OPTIONS OF nightisp flow run]
#
#   DATA    folder of raws, and of PNG + JSON pairs                [/data]
#   OUTPUT  folder of the pictures                                 [DATA]
#   NIGHTISP_STORE  folder of the artifacts  [/var/cache/nightisp in the container, artifacts/ elsewhere]
#
# As root it works as the owner of DATA, so that the pictures belong to whom the photographs belong to.
# The exit status is that of `nightisp flow run`.
set -euo pipefail

fail() {
    printf 'run.sh: %s\n' "$*" >&2
    exit 2
}

data=$(realpath -m -- "${DATA:-/data}")
output=$(realpath -m -- "${OUTPUT:-$data}")
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

[[ -d $data ]] || fail "$data: no such folder; mount one: docker run -v \"\$PWD/data:/data\" ..., or set DATA"
read -r user group < <(stat --format '%u %g' -- "$data")
if [[ $(id -u) == 0 && $user != 0 ]]; then
    exec setpriv --reuid "$user" --regid "$group" --clear-groups --inh-caps=-all \
        env DATA="$data" OUTPUT="$output" HOME= ./run.sh "$@"
fi
if [[ -d $output && ! -w $output ]]; then
    fail "$output: user $(id -u) may not write here; docker run --user \"\$(id -u):\$(id -g)\" ... with its owner's"
fi
# A user who is not in the container's list of users has no home, and Prefect keeps its settings there.
if [[ -z ${HOME:-} || ! -w $HOME ]]; then
    HOME=$(mktemp -d)
    export HOME
fi
# There is nobody to look at the embedded server of Prefect here; with a server of one's own the run is recorded there.
engine=local
[[ -z ${PREFECT_API_URL:-} ]] || engine=prefect

PATH=$PWD/.venv/bin:$PATH # outside a container: what `make setup` made
exec nightisp flow run --engine "$engine" --input "$data" --output "$output" "$@"
