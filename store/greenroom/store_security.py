"""How the options of a store say that its connections are secured."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

from greenroom.drivers.security import Security
from greenroom.errors import UsageError
from greenroom.identities import Identity
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom.tls.credentials import (
    BearerCredentials,
    BearerFiles,
    Bearing,
    Credentials,
    Loaded,
    TlsFiles,
)

_log = logging.getLogger("greenroom")


def secrets_of(cluster: str, file: str | None, mode: str) -> LoopbackSecrets | None:
    """Return the secret to prove; None if there shall be none. Raises UsageError for a contradiction."""
    if mode != "off":
        return LoopbackSecrets(cluster, file, required=mode == "require")
    if file is not None:
        raise UsageError('secret_file is not used with loopback_proof="off": give one of them')
    return None


def security_of(cluster: str, files: Mapping[str, str | None]) -> Security | None:
    """Return how to secure connections; None without TLS. Raises UsageError for files that cannot serve."""
    given = {name: path for name, path in files.items() if path is not None}
    if not given:
        return None
    if "token_file" in given:
        return _security_by_token(cluster, given)
    if missing := [name for name in ("tls_cert", "tls_key", "tls_ca") if name not in given]:
        raise UsageError(f"TLS needs {' and '.join(missing)} too: paths of PEM files")
    paths = TlsFiles(
        cert=given["tls_cert"],
        key=given["tls_key"],
        ca=given["tls_ca"],
        deny=given.get("tls_deny", ""),
    )
    return Security(Credentials(paths, _log.error, _tell_taken, check=partial(_check, cluster)), cluster)


def _check(cluster: str, identity: Identity) -> None:
    """Raise UsageError if a store of this cluster shows no certificate of that identity."""
    if (identity.cluster, identity.role) == (cluster, "client"):
        return
    hint = ""
    if identity.role == "client":
        hint = (
            f"; if the cluster {identity.cluster!r} is meant, name it: greenrooms://HOST:PORT/"
            f"{identity.cluster}?..., or cluster={identity.cluster!r}"
        )
    raise UsageError(
        f"tls_cert: the certificate is that of {identity.uri}, and a store of this cluster shows that of "
        f"greenroom://{cluster}/client/NAME{hint}"
    )


def _security_by_token(cluster: str, given: Mapping[str, str]) -> Security:
    if clashing := [name for name in ("tls_cert", "tls_key") if name in given]:
        raise UsageError(
            f"token_file is for apps without a certificate: give it, or {' and '.join(clashing)}, not both"
        )
    if "tls_ca" not in given:
        raise UsageError(
            "token_file is sent only within TLS, to who has proven to be a node: give tls_ca too, the path "
            "of the CAs that certify the nodes, in PEM"
        )
    files = BearerFiles(token=given["token_file"], ca=given["tls_ca"], deny=given.get("tls_deny", ""))
    return Security(BearerCredentials(files, _log.error, _tell_token_taken), cluster)


def _tell_token_taken(bearing: Bearing) -> None:
    _log.info("token read anew: %s", bearing.token.id)


def _tell_taken(loaded: Loaded) -> None:
    ends = datetime.fromtimestamp(loaded.ends_at, UTC)
    _log.info("TLS files read anew: %s, until %s", loaded.identity.uri, ends.isoformat())
