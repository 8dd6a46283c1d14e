#!/usr/bin/env bash
# A load_cert_chain that raises has taken the former certificate away all the same, and the server serves nobody.
#
# To renew a certificate without a restart, `load_cert_chain` is called again on the context that the server uses. If
# the renewal is under way, so that the certificate is new and the key is not, or not there, it raises. It has put the
# new certificate into the context by then, and OpenSSL has dropped the former key, which does not fit. So a server that
# catches the error to go on with what it had refuses every handshake from then on. The reverse, a former certificate
# and a new key, raises the same error and harms nothing.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -qq --disable-pip-version-check trustme==1.2.1 cryptography==50.0.2

cat >renewal.py <<'PY'
import platform
import ssl
import sys

import trustme

AUTHORITY = trustme.CA()
FORMER, NEW = ("former.pem", "former.key"), ("new.pem", "new.key")
HALF_WAY = {
    "the certificate is new, the key is the former": (("new.pem", "former.key"), "refused"),
    "the certificate is new, the key is not there": (("new.pem", "absent.key"), "refused"),
    "the certificate is the former, the key is new": (("former.pem", "new.key"), "served"),
}


def handshake(context):
    """Return whether a client that trusts the authority is served."""
    trusting = ssl.create_default_context()
    AUTHORITY.configure_trust(trusting)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname="localhost")
    server = context.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    try:
        for _ in range(4):
            for side in tuple(waiting):
                try:
                    side.do_handshake()
                    waiting.remove(side)
                except ssl.SSLWantReadError:
                    pass
    except ssl.SSLError as error:
        return f"refused ({error.reason})"
    return "left waiting" if waiting else "served"


for stage in ("former", "new"):
    issued = AUTHORITY.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(f"{stage}.pem")
    issued.private_key_pem.write_to_path(f"{stage}.key")

print("expected: if load_cert_chain raises, the context goes on with the certificate and key that it has had")
print(f"    with Python {platform.python_version()}, {ssl.OPENSSL_VERSION}")
changed = False
for what, (files, wanted) in HALF_WAY.items():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*FORMER)
    before = handshake(context)
    try:
        context.load_cert_chain(*files)
        raised = "nothing"
    except OSError as error:
        raised = type(error).__name__
    after = handshake(context)
    context.load_cert_chain(*NEW)
    last = handshake(context)
    as_found = (before, raised != "nothing", after.split()[0], last) == ("served", True, wanted, "served")
    changed |= not as_found
    print(
        f"seen: {what}: {raised}; a client is {before} before it, {after} after it, and {last} once both are new"
        f"{'' if as_found else '  <- CHANGED'}"
    )
sys.exit(changed)
PY
venv/bin/python renewal.py
