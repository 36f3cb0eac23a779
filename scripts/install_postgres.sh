#!/bin/sh
# Installs Debian's PostgreSQL server for the tests of database sources and exports, unless it is
# here. No server is started and none is left running: the tests start their own.
#
# As root or with a sudo that asks nothing; elsewhere it says what to type. Where it cannot be had
# the tests that need it are skipped, with this as their reason, so this never fails a build.
set -u

for initdb in "$(command -v initdb 2>/dev/null)" /usr/lib/postgresql/*/bin/initdb; do
    if [ -x "$initdb" ]; then
        echo "PostgreSQL is here: $initdb"
        exit 0
    fi
done

as_root=
if [ "$(id -u)" -ne 0 ]; then
    as_root="sudo -n"
fi

if ! command -v apt-get >/dev/null 2>&1 || { [ -n "$as_root" ] && ! sudo -n true 2>/dev/null; }; then
    echo "Not installed: install PostgreSQL yourself (Debian: sudo apt-get install postgresql)."
    exit 0
fi

echo "Installing PostgreSQL (a minute)"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# the common package comes first, with the setting that keeps Debian from making a cluster
if ! { $as_root apt-get update &&
    $as_root apt-get install -y --no-install-recommends postgresql-common &&
    $as_root sed -i 's/^#*create_main_cluster.*/create_main_cluster = false/' \
        /etc/postgresql-common/createcluster.conf &&
    $as_root apt-get install -y --no-install-recommends postgresql; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "Not installed: the tests that need PostgreSQL will be skipped."
fi
rm -f "$log"
