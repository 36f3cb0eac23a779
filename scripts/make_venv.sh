#!/bin/sh
# Makes a virtual environment in the folder $1 with the first Python that can.
#
# A candidate must run (version managers leave commands that do not), be 3.11 or newer, and have
# venv and ensurepip (Debian ships those in a package of their own). Folders that an interrupted
# run left half-made are made anew; a whole environment is left alone. PYTHON=... goes first.
set -eu

venv=$1
candidates="${PYTHON:-} python3.13 python3.12 python3.11 python3"

is_new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
version='import sys; print("%d.%d" % sys.version_info[:2])'

works() {
    "$1" -c "$is_new_enough" 2>/dev/null
}

if works "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    exit 0
fi

without_venv=
for candidate in $candidates; do
    works "$candidate" || continue
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "Making $venv with $(command -v "$candidate") ($("$candidate" -c "$version"))"
        exec "$candidate" -m venv --clear "$venv"
    fi
    [ -n "$without_venv" ] || without_venv=$("$candidate" -c "$version")
done

if [ -n "$without_venv" ]; then
    echo "Python $without_venv is here, but it cannot make virtual environments." >&2
    echo "On Debian or Ubuntu: apt install python3-venv   (or python$without_venv-venv)" >&2
else
    echo "No Python 3.11 or newer on the PATH (tried:${PYTHON:+ $PYTHON,} python3.13, python3.12, python3.11, python3)." >&2
    echo "On Debian 12 or newer: apt install python3 python3-venv   Another one: make PYTHON=/path/to/python3" >&2
fi
exit 1
