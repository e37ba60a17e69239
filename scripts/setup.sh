#!/bin/sh
# Make .venv with everything that the verbs of the Makefile need; quick when nothing has changed.
#
#   PYTHON  the interpreter to use    [python3, else the newest python3.N found; 3.11 or newer, with venv]
#   TORCH   what pip is asked for     [torch==2.13.0; it may hold options of pip as well]
set -eu
cd "$(dirname "$0")/.."
TORCH=${TORCH:-torch==2.13.0}
STAMP=.venv/setup-stamp

say() { printf 'setup: %s\n' "$*" >&2; }

apt_install() {
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing $* with apt-get"
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" </dev/null >&2 && return
        apt-get update >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" </dev/null >&2
    else
        say "missing: $*. Install it and run this again:"
        say "    sudo apt-get install $*"
        exit 1
    fi
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# The system's own python3 comes first: that is what its administrator, or pyenv's, has chosen.
find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if is_new_enough "$candidate" && { [ "${1-}" = any ] || has_venv "$candidate"; }; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

# What the environment was made from, where it lies (scripts hold absolute paths), and the rules it was made by.
state() {
    cat pyproject.toml constraints.txt scripts/setup.sh
    printf '%s\n%s\n' "$TORCH" "$PWD"
}

works() { [ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null; }

wanted=$(state | sha256sum)
if works && [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

if ! python=$(find_python); then
    if python=$(find_python any); then
        apt_install "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    elif [ -n "${PYTHON:-}" ]; then
        say "PYTHON=$PYTHON: not found, or older than 3.11; nightisp needs Python 3.11 or newer"
        exit 1
    else
        apt_install python3 python3-venv
    fi
    python=$(find_python) || {
        say "no Python 3.11 or newer with venv was found; install one and name it: make setup PYTHON=/path/to/python3.11"
        exit 1
    }
fi

pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input "$@"; }

if ! works || [ "$(cat .venv/made-at 2>/dev/null)" != "$PWD" ]; then
    say "making .venv with $("$python" --version), $python"
    rm -f "$STAMP"
    "$python" -m venv --clear .venv
    pwd >.venv/made-at
fi
rm -f "$STAMP"
say "installing the packages pinned in constraints.txt"
pip install --quiet --constraint constraints.txt pip
# By itself and first: nothing else may choose which build of torch is taken.
# shellcheck disable=SC2086  # TORCH may hold several words
pip install --quiet --constraint constraints.txt $TORCH
# setuptools tells at every editable install how such an install works.
PYTHONWARNINGS=ignore pip install --quiet --constraint constraints.txt --editable . --group dev
printf '%s\n' "$wanted" >"$STAMP"
say "done: .venv/bin/nightisp"
