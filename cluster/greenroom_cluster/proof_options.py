"""The options of the secret that is proven on loopback, where there is no TLS."""

from pathlib import Path
from typing import Annotated

import msgspec

from greenroom.errors import UsageError
from greenroom.loopback_secrets import MODES, LoopbackSecrets, Mode
from greenroom_cluster.flags import Flag

_FILE_OPTION = "--secret-file (GREENROOM_SECRET_FILE)"


class ProofOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which secret is proven on loopback, and whether it must be."""

    secret_file: Annotated[
        Path | None,
        Flag(
            help="Without TLS: file of the secret that both sides prove; else one of this user, on loopback.",
            shown_default=False,
        ),
    ] = None
    loopback_proof: Annotated[
        Mode,
        Flag(
            help="Without TLS: whether others must prove that secret (require), may (accept), or not (off)."
        ),
    ] = "require"

    def check(self) -> None:
        """Raise UsageError, naming the options, if something cannot be."""
        if self.loopback_proof not in MODES:
            raise UsageError(f"--loopback-proof must be {' or '.join(MODES)}; it is {self.loopback_proof!r}")
        if self.loopback_proof == "off" and self.secret_file is not None:
            raise UsageError("--secret-file is not used with --loopback-proof off: give one of them")

    def store_options(self) -> dict[str, str]:
        """Return the options of a store for clusters with these."""
        options = {} if self.secret_file is None else {"secret_file": str(self.secret_file.absolute())}
        return (
            options
            if self.loopback_proof == "require"
            else {**options, "loopback_proof": self.loopback_proof}
        )

    def secrets(self, cluster: str) -> LoopbackSecrets | None:
        """Return the secret of a cluster; None if none is used. Raises UsageError."""
        self.check()
        if self.loopback_proof == "off":
            return None
        required = self.loopback_proof == "require"
        return LoopbackSecrets(cluster, self.secret_file, required=required, option=_FILE_OPTION)
