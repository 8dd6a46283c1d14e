"""The options of a coordinator that keeps its map in etcd."""

import ssl
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import msgspec

from greenroom.errors import UsageError
from greenroom.secret_file import read_private
from greenroom_cluster.coordination.etcd.settings import EtcdSettings, etcd_settings
from greenroom_cluster.flags import Flag

_STORE = "--store (GREENROOM_STORE)"


class EtcdOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where the map is kept if not in a file, and how etcd lets us in."""

    store: Annotated[
        str,
        Flag(
            help="Keep the map in etcd, for several coordinators: etcd://host:2379,host:2379/prefix, or "
            "etcds:// with TLS. Without it, in --data-dir.",
            shown_default=False,
        ),
    ] = ""
    etcd_user: Annotated[str, Flag(help="With --store: the user of etcd.", shown_default=False)] = ""
    etcd_password_file: Annotated[
        Path | None,
        Flag(
            help="With --etcd-user: file of mode 0600 whose first line is the password.", shown_default=False
        ),
    ] = None
    etcd_ca: Annotated[
        Path | None, Flag(help="With etcds://: CAs of etcd's members, in PEM.", shown_default=False)
    ] = None
    etcd_cert: Annotated[
        Path | None,
        Flag(help="With etcds://: our certificate, without a common name, in PEM.", shown_default=False),
    ] = None
    etcd_key: Annotated[Path | None, Flag(help="With --etcd-cert: its key.", shown_default=False)] = None

    def check(self) -> None:
        """Raise UsageError, naming the option, if something cannot be."""
        if not self.store:
            given = (self.etcd_user, self.etcd_password_file, self.etcd_ca, self.etcd_cert, self.etcd_key)
            if any(given):
                raise UsageError(f"options of etcd are for a map that is kept there: give {_STORE} too")
            return
        settings = etcd_settings(self.store, _STORE)
        if find_spec("httpx") is None:
            raise UsageError(
                f"{_STORE} needs httpx: install it, or the wheel of greenroom-cluster with its extra `etcd`"
            )
        if bool(self.etcd_user) != bool(self.etcd_password_file):
            raise UsageError("--etcd-user and --etcd-password-file belong together: give both or none")
        if bool(self.etcd_cert) != bool(self.etcd_key):
            raise UsageError("--etcd-cert and --etcd-key belong together: give both or none")
        if not settings.secure and (self.etcd_ca or self.etcd_cert):
            raise UsageError(f"{_STORE} is without TLS: write etcds:// for the certificates to be used")

    def settings(self, cluster: str) -> EtcdSettings:
        """Return where and by whom etcd is asked, with a prefix for each cluster. Raises UsageError."""
        found = etcd_settings(self.store, _STORE)
        self.password()  # told at the start if it cannot be read
        return msgspec.structs.replace(found, prefix=f"{found.prefix}/{cluster}", user=self.etcd_user)

    def password(self) -> str:
        """Return what the file of the user's password holds now; empty without one. Raises UsageError."""
        if self.etcd_password_file is None:
            return ""
        content, _ = read_private(self.etcd_password_file, "--etcd-password-file")
        return content.decode(errors="replace").partition("\n")[0].strip()

    def tls(self) -> ssl.SSLContext | None:
        """Return how etcd is spoken to by TLS, None if it is not. Raises UsageError."""
        if not etcd_settings(self.store, _STORE).secure:
            return None
        try:
            context = ssl.create_default_context(cafile=None if self.etcd_ca is None else str(self.etcd_ca))
            if self.etcd_cert is not None:
                context.load_cert_chain(self.etcd_cert, self.etcd_key)
        except OSError as error:
            raise UsageError(f"the files of --etcd-ca, --etcd-cert or --etcd-key: {error}") from None
        return context
