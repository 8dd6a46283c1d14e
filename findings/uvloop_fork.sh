#!/usr/bin/env bash
# What a daemon opens is closed in the workers that it forks, if uvloop ran before it became a daemon.
#
# What happens is as every guide to daemons has it: a program does something on uvloop, becomes a daemon (python-daemon
# closes all that was inherited, as PEP 3143 says), opens its logs, and forks a worker that writes to them. But once libuv has made a loop, it keeps a pipe, known by the numbers of its two descriptors. In
# every forked child it closes these numbers and opens a new pipe. The daemon has closed the pipe long ago, and two
# logs have got these numbers: in the worker they are the ends of a pipe now. One fails, the other swallows what is
# written to it.
#
# In the daemon itself the file is still there. Importing uvloop is harmless, and so is asyncio's own loop.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check uvloop==0.23.0 python-daemon==3.1.2

cat >service.py <<'PY'
"""Run something on a loop, become a daemon, open a log, and have a forked worker write to it."""

import asyncio
import os
import stat
import sys
from pathlib import Path

import daemon
import uvloop


async def migrate():
    await asyncio.sleep(0)


runner = uvloop.run if sys.argv[1] == "uvloop" else asyncio.run
runner(migrate())
told = Path(sys.argv[1] + ".told")
with daemon.DaemonContext(working_directory=os.getcwd(), umask=0o022):
    logs = [os.open(f"{sys.argv[1]}.{n}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND) for n in range(8)]
    worker = os.fork()
    if worker == 0:
        files, written, errors = 0, 0, []
        for log in logs:
            files += stat.S_ISREG(os.fstat(log).st_mode)
            try:
                written += os.write(log, b"one line\n")
            except OSError as error:
                errors.append(error.strerror)
        outcome = f"has {files} files, writes {written} bytes, errors {errors}"
        told.with_suffix(".worker").write_text(outcome)
        os._exit(0)
    os.waitpid(worker, 0)
    arrived = sum(os.fstat(log).st_size for log in logs)
    told.with_suffix(".new").write_text(f"{arrived} arrive")
    told.with_suffix(".new").rename(told)
PY

seen() {
    venv/bin/python service.py "$1"
    for _ in $(seq 100); do # the daemon is nobody's child here
        [[ -e $1.told ]] && break
        sleep 0.1
    done
    printf '%s, %s' "$(cat "$1.worker")" "$(cat "$1.told")"
}

changed=0
echo "expected: the worker has 8 files, writes 72 bytes, errors [], 72 arrive"
for loop in asyncio uvloop; do
    found=$(seen $loop)
    echo "seen, $loop before: the worker $found"
    case $loop in
    asyncio) [[ $found == "has 8 files, writes 72 bytes, errors [], 72 arrive" ]] || changed=1 ;;
    uvloop) [[ $found == "has 6 files, writes 63 bytes, errors ['Bad file descriptor'], 54 arrive" ]] || changed=1 ;;
    esac
done
if ((changed)); then echo "    <- CHANGED"; fi
exit $changed
