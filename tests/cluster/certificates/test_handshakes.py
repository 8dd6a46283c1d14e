"""What `greenroom certs` issues, in handshakes of the standard library."""

import ssl
from pathlib import Path

import pytest
from cryptography import x509

from greenroom.identities import IDENTITY_ROLES, IdentityError, IdentityRole, identity_of
from greenroom_cluster.certificates import issuing
from greenroom_cluster.certificates.examining import described
from greenroom_cluster.certificates.holders import Holder, new_key
from tests.cluster.certificates.stage import (
    CLUSTER,
    DAY,
    NOW,
    context,
    handshake,
    hold,
    make_authority,
    meet,
    sub_authority,
)

SERVERS: tuple[IdentityRole, ...] = ("node", "coordinator")


@pytest.mark.parametrize("role", IDENTITY_ROLES)
@pytest.mark.parametrize("server", SERVERS)
def test_every_role_is_accepted_as_whom_it_says(
    server: IdentityRole, role: IdentityRole, tmp_path: Path
) -> None:
    authority = make_authority()
    seen = meet(hold(authority, server, "here"), hold(authority, role, "there"), tmp_path)
    assert [identity_of(each).uri for each in seen] == [
        f"greenroom://{CLUSTER}/{role}/there",
        f"greenroom://{CLUSTER}/{server}/here",
    ]


def test_our_own_reading_of_a_certificate_is_that_of_ssl(tmp_path: Path) -> None:
    authority = make_authority()
    client = hold(authority, "client", hosts=issuing.parse_hosts("web.example, 10.0.0.1"))
    seen, _ = meet(hold(authority, "node"), client, tmp_path)
    ours = described(client.certificate)
    assert ours["issuer"] == seen["issuer"]
    assert ours["serialNumber"] == seen["serialNumber"]
    assert ours["subjectAltName"] == tuple(each for each in seen["subjectAltName"] if each[0] == "URI")
    assert len(seen["subjectAltName"]) == 3


@pytest.mark.parametrize("role", ["client", "operator", "observer"])
def test_no_client_can_show_its_certificate_as_a_server(role: IdentityRole, tmp_path: Path) -> None:
    authority = make_authority()
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        meet(hold(authority, role), hold(authority, "client"), tmp_path)


def test_another_authority_of_the_same_name_is_refused_both_ways(tmp_path: Path) -> None:
    ours, theirs = make_authority(), make_authority()
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(hold(ours, "node"), hold(theirs, "client", trusted=(ours,)), tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(hold(theirs, "node", trusted=(ours,)), hold(ours, "client"), tmp_path)


def test_certificates_that_have_ended_are_refused(tmp_path: Path) -> None:
    authority = make_authority(now=NOW - 365 * DAY)
    over = hold(authority, "client", now=NOW - 91 * DAY)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        meet(hold(authority, "node"), over, tmp_path)
    last_day = hold(authority, "client", now=NOW - 89 * DAY)
    meet(hold(authority, "node"), last_day, tmp_path)


def test_certificates_of_the_future_are_refused_beyond_skewed_clocks(tmp_path: Path) -> None:
    authority = make_authority()
    server = hold(authority, "node")
    meet(server, hold(authority, "client", now=NOW + DAY / 48), tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="not yet valid"):
        meet(server, hold(authority, "client", now=NOW + DAY), tmp_path)


def test_authority_that_has_ended_certifies_nobody(tmp_path: Path) -> None:
    authority = issuing.create_authority(
        CLUSTER, "all", key=new_key(), serial=1, now=NOW - 60 * DAY, lifetime=59 * DAY
    )
    today = make_authority()
    former = hold(authority, "client", now=NOW - 10 * DAY, trusted=(today,))
    assert former.certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        meet(hold(today, "node", trusted=(authority,)), former, tmp_path)


# --- two authorities ----------------------------------------------------------------------------------------


def test_clients_and_servers_of_two_authorities_meet(tmp_path: Path) -> None:
    servers, clients = make_authority("servers"), make_authority("clients")
    both = (servers, clients)
    seen, _ = meet(hold(servers, "node", trusted=both), hold(clients, "client", trusted=both), tmp_path)
    assert identity_of(seen).role == "client"


@pytest.mark.parametrize("role", ["node", "coordinator", "operator", "observer"])
def test_authority_of_clients_certifies_nobody_else(
    role: IdentityRole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key signs whatever its owner wants, so whoever reads the certificate must look at the issuer."""
    servers, clients = make_authority("servers"), make_authority("clients")
    monkeypatch.setattr(issuing, "_check_may_certify", lambda *_: None)
    forged = hold(clients, role, trusted=(servers, clients))
    seen, _ = meet(hold(servers, "node", trusted=(servers, clients)), forged, tmp_path)
    with pytest.raises(IdentityError, match="may not certify the role"):
        identity_of(seen)


def test_authority_of_clients_makes_none_with_the_servers_name(tmp_path: Path) -> None:
    servers, clients = make_authority("servers"), make_authority("clients")
    key = new_key()
    made = sub_authority(clients, servers.certificate.subject, key)
    forged = hold(issuing.Authority(made, key), "node", trusted=(servers, clients))
    server = context(hold(servers, "node", trusted=(servers, clients)), tmp_path, server=True)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, context(forged, tmp_path, made, server=False))
    other = sub_authority(clients, x509.Name(make_authority("servers").certificate.subject), key)
    forged = hold(issuing.Authority(other, key), "node", trusted=(servers, clients))
    with pytest.raises(ssl.SSLCertVerificationError, match="path length"):
        handshake(server, context(forged, tmp_path, other, server=False))


def test_authority_below_one_of_clients_has_its_name_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X.509 does not count one that has its issuer's own name; then the name still tells the purpose."""
    servers, clients = make_authority("servers"), make_authority("clients")
    key = new_key()
    made = sub_authority(clients, clients.certificate.subject, key)
    monkeypatch.setattr(issuing, "_check_may_certify", lambda *_: None)
    forged = hold(issuing.Authority(made, key), "node", trusted=(servers, clients))
    server = context(hold(servers, "node", trusted=(servers, clients)), tmp_path, server=True)
    try:
        seen, _ = handshake(server, context(forged, tmp_path, made, server=False))
    except ssl.SSLCertVerificationError:
        return
    with pytest.raises(IdentityError, match="may not certify the role"):
        identity_of(seen)


def test_authority_of_another_cluster_is_none_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = make_authority(), make_authority(cluster="other")
    monkeypatch.setattr(issuing, "_check_may_certify", lambda *_: None)
    forged = hold(theirs, "client", trusted=(ours,))
    seen, _ = meet(hold(ours, "node", trusted=(ours, theirs)), forged, tmp_path)
    with pytest.raises(IdentityError, match="that of cluster 'other'"):
        identity_of(seen)


# --- rotation -----------------------------------------------------------------------------------------------


def test_all_who_meet_between_two_steps_of_a_rotation_trust_each_other(tmp_path: Path) -> None:
    """Holders take part in each step when they will: any two of neighbouring steps meet."""
    old, new = make_authority(), make_authority()

    def states(role: IdentityRole) -> list[Holder]:
        return [
            hold(old, role),
            hold(old, role, trusted=(old, new)),
            hold(new, role, trusted=(old, new)),
            hold(new, role),
        ]

    servers, clients = states("node"), states("client")
    for here, server in enumerate(servers):
        for there, client in enumerate(clients):
            if abs(here - there) <= 1:
                meet(server, client, tmp_path)
            elif abs(here - there) == 3:
                with pytest.raises(ssl.SSLCertVerificationError):
                    meet(server, client, tmp_path)
