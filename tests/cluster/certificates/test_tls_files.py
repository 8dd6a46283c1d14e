"""The files that `greenroom certs` writes serve as those of TLS."""

from pathlib import Path

import pytest

from greenroom.identities import IDENTITY_ROLES, Identity, IdentityRole
from greenroom.tls.channel import TlsError
from greenroom.tls.credentials import LOOK_SECONDS, Credentials, TlsFiles, load
from greenroom_cluster.certificates import issuing
from greenroom_cluster.certificates.authority import OWN, create, open_authority
from greenroom_cluster.certificates.denied import deny
from greenroom_cluster.certificates.examining import serial_text
from greenroom_cluster.certificates.holders import TRUSTED, Holder, read_certificates, write_new
from greenroom_cluster.certificates.renewing import renew_holder
from greenroom_cluster.certificates.rotation import STEPS
from tests.cluster.certificates.stage import CLUSTER, DAY, NOW, hold, make_authority, meet


def no_passphrase() -> bytes:
    raise AssertionError


def written(ca: Path, directory: Path, role: IdentityRole) -> tuple[TlsFiles, Holder]:
    with open_authority(ca) as authority:
        holder = authority.issue(Identity(CLUSTER, role, "n1"), no_passphrase, now=NOW, lifetime=90 * DAY)
        path = write_new(directory, "n1", holder)
    files = TlsFiles(cert=str(path), key=str(path.with_suffix(".key")), ca=str(directory / TRUSTED))
    return files, holder


@pytest.mark.parametrize("role", IDENTITY_ROLES)
@pytest.mark.parametrize("authorities", [1, 2])
def test_files_of_every_role_serve(authorities: int, role: IdentityRole, tmp_path: Path) -> None:
    if authorities == 1:
        create(tmp_path / "ca", CLUSTER, "all", None, now=NOW)
        ca = tmp_path / "ca"
    else:
        own, other = ("clients", "servers") if role == "client" else ("servers", "clients")
        create(tmp_path / own, CLUSTER, own, None, now=NOW)  # type: ignore[arg-type]
        create(tmp_path / other, CLUSTER, other, None, now=NOW)  # type: ignore[arg-type]
        ca = tmp_path / own
        with open_authority(ca) as authority:
            authority.trust(read_certificates(tmp_path / other / OWN))
    files, holder = written(ca, tmp_path / "n1", role)
    loaded = load(files)
    assert loaded.identity == Identity(CLUSTER, role, "n1")
    assert loaded.serial == holder.certificate.serial_number
    assert loaded.ends_at == (NOW + 90 * DAY).timestamp()


def test_deny_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    create(tmp_path / "ca", CLUSTER, "all", None, now=NOW)
    files, holder = written(tmp_path / "ca", tmp_path / "n1", "node")
    denied = tmp_path / "denied.txt"
    deny(denied, ["0A", serial_text(holder.certificate.serial_number)])
    loaded = load(TlsFiles(cert=files.cert, key=files.key, ca=files.ca, deny=str(denied)))
    assert loaded.trusted.revoked == {10, holder.certificate.serial_number}


def test_renewed_files_are_taken_up_without_a_restart(tmp_path: Path) -> None:
    create(tmp_path / "ca", CLUSTER, "all", None, now=NOW)
    files, _ = written(tmp_path / "ca", tmp_path / "n1", "node")
    now = 0.0
    told: list[str] = []
    credentials = Credentials(files, told.append, clock=lambda: now)
    with open_authority(tmp_path / "ca") as authority:
        for step in STEPS[:2]:
            authority.rotate(step, no_passphrase, now=NOW)
        renewed = renew_holder(authority, Path(files.cert), no_passphrase, now=NOW)
    now = LOOK_SECONDS
    assert credentials.current().serial == renewed.serial_number
    assert told == []


def test_forged_role_is_nobody_to_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(tmp_path / "ca", CLUSTER, "all", None, now=NOW)
    files, _ = written(tmp_path / "ca", tmp_path / "n1", "node")
    servers, clients = make_authority("servers"), make_authority("clients")
    both = (servers, clients)
    monkeypatch.setattr(issuing, "_check_may_certify", lambda *_: None)
    seen, _ = meet(hold(servers, "node", trusted=both), hold(clients, "node", trusted=both), tmp_path)
    with pytest.raises(TlsError, match="may not certify the role node"):
        load(files).identity_in(seen)
