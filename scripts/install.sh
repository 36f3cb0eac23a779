#!/bin/sh
# Installs the package and all that its tests need into the virtual environment $1, in the versions
# that constraints.txt names: with uv where $UV names it (a fifth of pip's time; .ci/run brings
# it), with pip otherwise and where uv fails, as behind a mirror that only pip's settings name.
set -eu

venv=$1
log=$venv/install.log

if [ -n "${UV:-}" ]; then
    "$UV" pip install --python "$venv/bin/python" -e '.[dev]' -c constraints.txt >"$log" 2>&1 && exit 0
    echo "uv could not install it (see below); pip does."
    tail -n 5 "$log"
fi
"$venv/bin/python" -m pip install --disable-pip-version-check -e '.[dev]' -c constraints.txt \
    >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
