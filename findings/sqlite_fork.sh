#!/usr/bin/env bash
# A forked child that opens its own connection to a SQLite file loses what it commits, if the parent had it open.
#
# SQLite says to use no connection across a fork, and to open another one in the child. The child here does. But SQLite
# keeps in memory, per file, which locks the process holds. The fork copies that memory and not the locks (POSIX locks
# are not inherited), so the new connection takes the parent's lock for one of its own process and asks for none. When
# the parent closes its connection, it finds no other lock, takes itself for the last user, and deletes the write-ahead
# log. The child goes on writing into the deleted log: its commits succeed, it reads them, and nobody else ever does.
#
# This is what `gunicorn --preload` does with an app that reads its database when it is imported.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check apsw==3.54.1.0

cat >fork.py <<'PY'
import os
import sqlite3
import subprocess
import sys

import apsw

COUNT = "SELECT count(*) FROM t"
FRESH = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM t').fetchone()[0])"


def lost(connect, path, *, open_in_parent):
    """Return how many of the child's two acknowledged commits a fresh process does not find."""
    parent = connect(path)
    list(parent.execute("PRAGMA journal_mode = wal"))
    list(parent.execute("CREATE TABLE t (n)"))
    if not open_in_parent:
        parent.close()
    ready, tell_ready = os.pipe()
    closed, tell_closed = os.pipe()
    child = os.fork()
    if child == 0:
        own = connect(path)  # new, and the only one that the child uses
        list(own.execute("INSERT INTO t VALUES (1)"))
        os.write(tell_ready, b".")
        os.read(closed, 1)
        list(own.execute("INSERT INTO t VALUES (2)"))
        seen = list(own.execute(COUNT))[0][0]
        os._exit(seen)  # what the child itself sees
    os.read(ready, 1)
    parent.close()
    os.write(tell_closed, b".")
    seen = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = int(subprocess.check_output([sys.executable, "-c", FRESH, path]))
    print(f"    the child commits 2 and sees {seen}, a fresh process finds {found}")
    return seen - found


def by_sqlite3(path):
    return sqlite3.connect(path, isolation_level=None)


changed = False
print("expected: what a connection commits that was opened after the fork is there for others")
for name, connect in (
    (f"apsw, SQLite {apsw.sqlite_lib_version()}", apsw.Connection),
    (f"sqlite3, SQLite {sqlite3.sqlite_version}", by_sqlite3),
):
    for number, open_in_parent in enumerate((True, False)):
        print(f"seen: {name}, parent {'had it open' if open_in_parent else 'had closed it'} at the fork")
        missing = lost(connect, f"{name.split(',')[0]}{number}.db", open_in_parent=open_in_parent)
        as_found = missing == (1 if open_in_parent else 0)
        changed |= not as_found
        if not as_found:
            print("    <- CHANGED")
sys.exit(changed)
PY
venv/bin/python fork.py
