"""The file whose secret proves, on loopback, that both sides belong to one user of the host.

It is `$XDG_RUNTIME_DIR/greenroom/CLUSTER.secret`, or `~/.local/state/greenroom/CLUSTER.secret`: the first of
these that is there. The processes of a cluster make it; stores and commands of the same user find it. It is
read when a connection begins, so a store may be made before its cluster has ever run.
"""

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias, get_args
from urllib.parse import quote

from greenroom.addresses import numeric, parse_address
from greenroom.errors import UsageError
from greenroom.loopback import is_loopback
from greenroom.private_files import is_private
from greenroom.proofs import SECRET_BYTES_MIN, Challenge, http_token_of
from greenroom.secret_file import SecretFile

Mode: TypeAlias = Literal["require", "accept", "off"]
MODES: tuple[Mode, ...] = get_args(Mode)

_NAME_CHARACTERS_MAX = 100


class LoopbackSecrets:
    """The secret of one cluster, for connections on loopback; if `file` is given, for all of them.

    `require`: nothing is said to who does not prove that it knows the secret, if we know one. `accept`: who
    can prove it is asked to. `option` is how a file is given, for errors.
    """

    def __init__(
        self,
        cluster: str,
        file: str | os.PathLike[str] | None = None,
        *,
        required: bool = True,
        option: str = "secret_file",
    ) -> None:
        self._cluster = cluster
        self._file = None if file is None else Path(file)
        self._required = required
        self._option = option
        self._known: tuple[Path, object, bytes] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._cluster!r}>"

    def covers(self, host: str) -> bool:
        """Whether connections to this host, a number, or those that come in at it, are proven by a secret."""
        return self._file is not None or is_loopback(host)

    def make(self) -> None:
        """Make the file unless it is there. Raises UsageError, also if it is there and others can open it."""
        path = self._path() or self._new_path()
        if not os.path.lexists(path):
            _write_new(path, self._option)
        self._read(path)

    def challenge(self, address: str, nonce: bytes) -> Challenge | None:
        """Return our half of a proof on a connection to this address; None if it needs none, or we know none.

        It is the one that the connection has reached, a number: what a name stands for is not known before.
        Raises UsageError if there is a file and it cannot serve: then nothing may be said on the connection.
        """
        host, port = parse_address(address)
        secret = self._secret() if self.covers(host) else None
        return None if secret is None else Challenge(secret, nonce, numeric(host, port), self._required)

    def challenge_at(self, bound: str, address: str, nonce: bytes) -> Challenge | None:
        """Return our half of a proof on a connection that came in at this address, as above.

        `bound` is the host that its listener is bound to. If that is beyond loopback, nobody has to prove
        anything, unless a file was given; who asks for a proof gets one. Raises UsageError if a proof is to
        be demanded and no secret is known: then nobody may be served.
        """
        demanded = self._required and self.covers(bound)
        try:
            secret = self._secret()
        except UsageError:
            if self.covers(bound):
                raise
            return None
        if secret is None and demanded:
            raise UsageError(f"the secret of the cluster is gone: name a file with {self._option}")
        return (
            None if secret is None else Challenge(secret, nonce, numeric(*parse_address(address)), demanded)
        )

    def http_token_at(self, bound: str) -> str | None:
        """Return the token that is demanded at an HTTP port bound to this host; None if none is.

        Raises UsageError if one is to be demanded and no secret is known: then nobody may be shown anything.
        """
        if not self._required or not self.covers(bound):
            return None
        return self.http_token()

    def http_token(self) -> str:
        """Return the token of this cluster's HTTP ports. Raises UsageError if no secret is known."""
        secret = self._secret()
        if secret is None:
            raise UsageError(
                f"there is no secret of the cluster {self._cluster!r} yet: it is made when that first runs. "
                f"Run as the same user, or name its file with {self._option}"
            )
        return http_token_of(secret, self._cluster)

    def _secret(self) -> bytes | None:
        """Return the secret as it is now; the one that was read last, if there is none that can serve."""
        path = self._path()
        if path is not None:
            try:
                return self._read(path)
            except UsageError:
                if self._known is None:
                    raise
        return None if self._known is None else self._known[2]

    def _read(self, path: Path) -> bytes:
        file = SecretFile(path)
        mark = file.mark()
        if mark is not None and self._known is not None and self._known[:2] == (path, mark):
            return self._known[2]
        try:
            content = file.read()
        except UsageError as error:
            raise UsageError(f"{error} ({self._option})") from None
        if len(content.secrets) != 1 or len(content.secrets[0]) < SECRET_BYTES_MIN:
            raise UsageError(
                f"the file of secrets {path} must hold one line of at least {SECRET_BYTES_MIN} random "
                f"characters ({self._option})"
            )
        secret = content.secrets[0].encode()
        self._known = (path, content.mark, secret)
        return secret

    def _path(self) -> Path | None:
        """Return the file to read; None if there is none. One that was named is read in any case."""
        if self._file is not None:
            return self._file
        return next((path for path in usual_files(self._cluster) if os.path.lexists(path)), None)

    def _new_path(self) -> Path:
        """Return the first place in which a file can be made, with its directory."""
        failure = "this user has no home directory"
        for path in usual_files(self._cluster):
            try:
                _make_private_directory(path.parent)
            except OSError as error:
                failure = f"{path.parent} cannot be made ({error.strerror or type(error).__name__})"
            else:
                return path
        raise UsageError(f"the secret of the cluster: {failure}; name a file elsewhere with {self._option}")


def usual_files(cluster: str, environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Return where the secret of a cluster may be, in the order in which to look."""
    name = quote(cluster, safe="")
    if len(name) > _NAME_CHARACTERS_MAX:
        name = hashlib.blake2b(cluster.encode(), digest_size=16).hexdigest()
    runtime, home = environment.get("XDG_RUNTIME_DIR", ""), environment.get("HOME", "")
    folders = ([Path(runtime)] if runtime else []) + ([Path(home, ".local", "state")] if home else [])
    return [folder / "greenroom" / f"{name}.secret" for folder in folders if folder.is_absolute()]


def _make_private_directory(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or not is_private(found.st_mode):
        raise PermissionError(errno.EPERM, "it must be a directory of this user with the mode 0700")


def _write_new(path: Path, option: str) -> None:
    """Write a new secret. Of several processes that do so at once one wins, and nobody sees half a file."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask is
            os.write(descriptor, secrets.token_urlsafe(SECRET_BYTES_MIN).encode() + b"\n")
        finally:
            os.close(descriptor)
        try:
            os.link(beside, path)
        except FileExistsError:
            pass
        finally:
            beside.unlink()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(
            f"the secret of the cluster cannot be written to {path} ({reason}): name another with {option}"
        ) from None
