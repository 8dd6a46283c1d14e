#!/usr/bin/env bash
# podman-compose does not find a service of a profile that a command names, which docker compose runs.
#
# A service that only commands need, such as a migration or an operator's shell, gets a profile, so that `up` leaves it
# out. The documentation of Compose ("Using profiles with Compose", on starting them) says that who names such a service
# on the command line need not enable its profile. podman-compose drops the services of profiles that are not enabled
# before it looks for the one that is named: `run` and `up` of it end with 1 and "missing services". `pull` of it ends
# with 0 and asks podman for nothing. With `--profile` all of them do what was meant.
#
# What podman-compose asks podman for is what is looked at, so a stand-in for podman notes it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check podman-compose==1.6.0

mkdir bin
cat >bin/podman <<'SH'
#!/bin/sh
echo "$*" >>asked
case "$1" in
--version) echo "podman version 5.4.2" ;;
ps | images | inspect) echo "[]" ;;
esac
SH
chmod 755 bin/podman

cat >compose.yaml <<'YAML'
name: findings
services:
  app:
    image: docker.io/library/app
  migrate:
    image: docker.io/library/app
    profiles: [tools]
YAML

seen() {
    : >asked
    local status=0 missing=no
    PATH=$PWD/bin:$PATH venv/bin/podman-compose "$@" >said 2>&1 </dev/null || status=$?
    grep -q 'missing services \[migrate\]' said && missing=yes
    echo "exit $status, missing services: $missing, containers and images asked for: $(grep -cE '^(run|create|pull) ' asked || true)"
}

changed=0
check() {
    local expected=$1 found
    shift
    found=$(seen "$@")
    echo "podman-compose $*: $found"
    [[ $found == "$expected" ]] || { echo "    <- CHANGED"; changed=1; }
}

check "exit 0, missing services: no, containers and images asked for: 1" run --rm app
check "exit 1, missing services: yes, containers and images asked for: 0" run --rm migrate
check "exit 1, missing services: yes, containers and images asked for: 0" up --detach migrate
check "exit 0, missing services: no, containers and images asked for: 0" pull migrate
check "exit 0, missing services: no, containers and images asked for: 1" --profile tools run --rm migrate
check "exit 0, missing services: no, containers and images asked for: 1" --profile tools pull migrate
exit $changed
