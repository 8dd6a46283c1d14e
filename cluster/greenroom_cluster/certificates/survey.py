"""All certificates below some directories: those of holders, and those that an authority has issued."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography import x509

from greenroom.errors import UsageError
from greenroom_cluster.certificates.authority import OWN, STATE, AuthorityDirectory, read_authority
from greenroom_cluster.certificates.denied import read_denied
from greenroom_cluster.certificates.examining import Examined, examine, examine_authority, serial_text
from greenroom_cluster.certificates.holders import (
    TRUSTED,
    certificates_in,
    find_key,
    read_certificates,
    read_file,
)

_DEPTH_MAX = 3


def survey(paths: Sequence[Path], ca: Path, deny_list: Path | None, *, now: datetime) -> list[Examined]:
    """Return what there is to say about the certificates below these paths. Raises UsageError.

    `ca` is the directory of an authority, if there is one, whose certificates may be below.
    """
    authority = read_authority(ca) if (ca / STATE).exists() else None
    denied = _denied(authority, deny_list)
    found = [
        _noting_trusted(
            authority,
            certificate,
            trusted,
            _noting_rotation(
                authority,
                certificate,
                examine(str(path), certificate, trusted=trusted, key=find_key(path), denied=denied, now=now),
            ),
        )
        for path, certificate in holders_below(paths)
        for trusted in [_trusted_beside(path)]
    ]
    shown = {each.serial for each in found}
    for directory in _authorities_below(paths):
        found += _of_authority(read_authority(directory), shown, deny_list, now)
    return found


def holders_below(paths: Sequence[Path]) -> list[tuple[Path, x509.Certificate]]:
    """Return the files of holders' certificates that these paths name, or that lie below, with the leaf."""
    found: dict[Path, x509.Certificate] = {}
    for path in paths:
        if not path.is_dir():
            found[path] = read_certificates(path)[0]
            continue
        for directory in _directories(path):
            if (directory / STATE).exists() or (directory.parent / STATE).exists():
                continue
            for file in sorted(directory.glob("*.pem")):
                inside = [] if file.name == TRUSTED else certificates_in(read_file(file))
                if inside:
                    found[file] = inside[0]
    return list(found.items())


def _of_authority(
    authority: AuthorityDirectory, shown: Collection[str], deny_list: Path | None, now: datetime
) -> Iterator[Examined]:
    """Yield an authority's own certificates, and the newest it has issued, except what is shown already."""
    denied = _denied(authority, deny_list)
    for each in authority.own:
        yield examine_authority(str(authority.path / OWN), each, now=now)
    for each in authority.issued(now):
        serial = serial_text(each.serial_number)
        if serial not in shown and serial not in denied:
            path = authority.path / "issued" / f"{serial}.pem"
            examined = examine(str(path), each, trusted=authority.own, key=None, denied=(), now=now)
            yield _noting_rotation(authority, each, examined)


def _noting_rotation(
    authority: AuthorityDirectory | None, certificate: x509.Certificate, examined: Examined
) -> Examined:
    if authority is None or not authority.is_of_former(certificate):
        return examined
    problem = "it is of the authority that is about to be dropped: renew it"
    return msgspec.structs.replace(examined, problems=(*examined.problems, problem))


def _noting_trusted(
    authority: AuthorityDirectory | None,
    certificate: x509.Certificate,
    trusted: Sequence[x509.Certificate],
    examined: Examined,
) -> Examined:
    """Note that a holder's directory does not say what the authority does, which its host may get to see."""
    if authority is None or not authority.has_issued(certificate) or set(trusted) == set(authority.trusted):
        return examined
    problem = f"its {TRUSTED} is not that of the authority: `greenroom certs renew` brings it up to date"
    return msgspec.structs.replace(examined, problems=(*examined.problems, problem))


def _denied(authority: AuthorityDirectory | None, deny_list: Path | None) -> frozenset[str]:
    if deny_list is not None:
        if not deny_list.exists():
            raise UsageError(f"--deny: there is no file {deny_list}")
        return read_denied(deny_list)
    return frozenset() if authority is None else read_denied(authority.deny_list)


def _trusted_beside(path: Path) -> list[x509.Certificate]:
    file = path.with_name(TRUSTED)
    return certificates_in(read_file(file)) if file.exists() else []


def _authorities_below(paths: Sequence[Path]) -> list[Path]:
    below = (directory for path in paths if path.is_dir() for directory in _directories(path))
    return list(dict.fromkeys(each for each in below if (each / STATE).exists()))


def _directories(path: Path, depth: int = 0) -> Iterator[Path]:
    yield path
    if depth < _DEPTH_MAX:
        for each in sorted(path.iterdir()):
            if each.is_dir() and not each.is_symlink() and not each.name.startswith("."):
                yield from _directories(each, depth + 1)
