"""An authority in a directory: what it issues, renews and revokes, and how it is rotated."""

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from greenroom.errors import GreenroomError, UsageError
from greenroom.identities import Identity, IdentityRole, Purpose
from greenroom_cluster.certificates import issuing
from greenroom_cluster.certificates.authority import (
    OWN,
    STATE,
    AuthorityDirectory,
    create,
    open_authority,
    read_authority,
)
from greenroom_cluster.certificates.denied import deny, read_denied
from greenroom_cluster.certificates.examining import identity_in, is_issued_by, serial_text
from greenroom_cluster.certificates.holders import (
    TRUSTED,
    Holder,
    certificates_pem,
    find_key,
    key_pem,
    read_certificates,
    write_new,
)
from greenroom_cluster.certificates.renewing import renew_holder
from greenroom_cluster.certificates.rotation import STEPS
from greenroom_cluster.certificates.survey import survey
from tests.cluster.certificates.stage import CLUSTER, DAY, NOW, hold, make_authority

PASSPHRASE = b"correct horse battery staple"


def never() -> bytes:
    raise AssertionError("asked for a passphrase that there is not")


def made(path: Path, purpose: Purpose = "all", passphrase: bytes | None = None) -> Path:
    create(path, CLUSTER, purpose, passphrase, now=NOW)
    return path


def issue(
    authority: AuthorityDirectory,
    role: IdentityRole = "node",
    name: str = "n1",
    *,
    passphrase: Callable[[], bytes] = never,
    now: datetime = NOW,
    lifetime: timedelta = 90 * DAY,
) -> Holder:
    return authority.issue(Identity(CLUSTER, role, name), passphrase, now=now, lifetime=lifetime)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    return made(tmp_path / "ca")


def test_directory_and_its_keys_are_for_this_user_alone(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        path = made(tmp_path / "ca")
        with open_authority(path) as authority:
            issue(authority)
    finally:
        os.umask(former)
    assert path.stat().st_mode & 0o777 == 0o700
    assert (path / "issued").stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in path.rglob("*") if each.is_file()} == {0o600}


def test_authority_is_made_once(ca: Path) -> None:
    before = (ca / STATE).read_bytes()
    with pytest.raises(UsageError, match="already"):
        made(ca)
    assert (ca / STATE).read_bytes() == before


def test_what_it_issues_is_noted_and_can_be_revoked_by_its_identity(ca: Path) -> None:
    with open_authority(ca) as authority:
        holder = issue(authority)
        assert authority.issued(NOW) == [holder.certificate]
        assert authority.issued(NOW + 91 * DAY) == []
        assert holder.trusted == authority.own
        authority.withdraw(holder.certificate)
        assert authority.issued(NOW) == []


def test_two_commands_do_not_use_one_directory_at_once(ca: Path) -> None:
    with open_authority(ca), pytest.raises(GreenroomError, match="try again"), open_authority(ca):
        pass


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o770])
def test_directory_that_others_can_use_is_refused(ca: Path, mode: int) -> None:
    ca.chmod(mode)
    with pytest.raises(UsageError, match="chmod 700"), open_authority(ca):
        pass


def test_key_that_others_can_read_issues_nothing(ca: Path) -> None:
    (key,) = ca.glob("*.key")
    key.chmod(0o640)
    with open_authority(ca) as authority, pytest.raises(UsageError, match="chmod 600"):
        issue(authority)


def test_missing_authority_is_told_with_the_option(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--ca"), open_authority(tmp_path / "none"):
        pass
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"format":2,"issuing":"a","own":[],"others":[]}'])
def test_damaged_authority_is_told(ca: Path, content: bytes) -> None:
    (ca / STATE).write_bytes(content)
    with pytest.raises(UsageError, match="damaged"):
        read_authority(ca)


def test_key_of_another_authority_is_not_used(ca: Path, tmp_path: Path) -> None:
    (key,), (other,) = ca.glob("*.key"), made(tmp_path / "other").glob("*.key")
    key.write_bytes(other.read_bytes())
    with open_authority(ca) as authority, pytest.raises(UsageError, match="another key"):
        issue(authority)


# --- passphrases -----------------------------------------------------------------------------------------


def test_key_with_a_passphrase_needs_it(tmp_path: Path) -> None:
    ca = made(tmp_path / "ca", passphrase=PASSPHRASE)
    (key,) = ca.glob("*.key")
    assert key.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    with open_authority(ca) as authority:
        with pytest.raises(UsageError, match="--passphrase-file") as caught:
            issue(authority, passphrase=lambda: b"wrong and secret")
        assert "secret" not in str(caught.value)
        assert identity_in(issue(authority, passphrase=lambda: PASSPHRASE).certificate).name == "n1"


def test_key_of_the_next_authority_has_the_same_passphrase(tmp_path: Path) -> None:
    ca = made(tmp_path / "ca", passphrase=PASSPHRASE)
    with open_authority(ca) as authority:
        with pytest.raises(UsageError, match="does not open"):
            authority.rotate("trust-both", lambda: b"mistyped", now=NOW)
        for step in STEPS[:2]:
            authority.rotate(step, lambda: PASSPHRASE, now=NOW)
        assert issue(authority, passphrase=lambda: PASSPHRASE)
    keys = [each.read_bytes() for each in ca.glob("*.key")]
    assert [key.startswith(b"-----BEGIN ENCRYPTED") for key in keys] == [True, True]


# --- renewal ---------------------------------------------------------------------------------------------


def test_renewal_keeps_who_it_is_and_makes_a_new_key(ca: Path, tmp_path: Path) -> None:
    with open_authority(ca) as authority:
        holder = authority.issue(
            Identity(CLUSTER, "node", "n1"),
            never,
            now=NOW,
            lifetime=7 * DAY,
            hosts=issuing.parse_hosts("n1.example"),
        )
        path = write_new(tmp_path / "n1", "n1", holder)
        former = find_key(path)
        renewed = renew_holder(authority, path, never, now=NOW + 3 * DAY)
        assert read_certificates(path) == [renewed]
        assert identity_in(renewed) == identity_in(holder.certificate)
        assert issuing.hosts_of(renewed) == issuing.hosts_of(holder.certificate)
        assert renewed.not_valid_after_utc == NOW + 10 * DAY
        assert find_key(path).public != former.public
        assert authority.issued(NOW) == [renewed]
        assert authority.issued(NOW, former=True) == [holder.certificate, renewed]


def test_what_it_has_not_issued_is_not_renewed(ca: Path, tmp_path: Path) -> None:
    """Who can write to a holder's file must not become an operator by the next renewal."""
    forged = write_new(tmp_path / "n1", "n1", hold(make_authority(), "operator", "root"))
    before = forged.read_bytes()
    with open_authority(ca) as authority, pytest.raises(UsageError, match=r"n1\.pem: .* not renewed"):
        renew_holder(authority, forged, never, now=NOW)
    assert forged.read_bytes() == before
    assert not (ca / "issued").exists()


def test_copy_of_a_certificate_is_not_renewed_without_its_key(ca: Path, tmp_path: Path) -> None:
    """A certificate is public: an app that lays a node's into its own directory must get no key of a node."""
    with open_authority(ca) as authority:
        node = write_new(tmp_path / "n1", "n1", issue(authority))
        app = write_new(tmp_path / "web", "web", issue(authority, "client", "web"))
        copied = app.with_name("n1.pem")
        copied.write_bytes(node.read_bytes())
        with pytest.raises(UsageError, match=r"web/n1\.pem: its key"):
            renew_holder(authority, copied, never, now=NOW)
        copied.with_suffix(".key").write_bytes(app.with_suffix(".key").read_bytes())
        with pytest.raises(UsageError, match="key of another holder"):
            renew_holder(authority, copied, never, now=NOW)
        assert copied.read_bytes() == node.read_bytes()
        assert len(authority.issued(NOW)) == 2


def test_certificate_that_was_renewed_is_not_renewed_again(ca: Path, tmp_path: Path) -> None:
    """A key that somebody has seen ends with its certificate, and gives no claim to the next one."""
    with open_authority(ca) as authority:
        path = write_new(tmp_path / "n1", "n1", issue(authority))
        copied = tmp_path / "seen/n1.pem"
        copied.parent.mkdir()
        for file in path.parent.iterdir():
            (copied.parent / file.name).write_bytes(file.read_bytes())
        renew_holder(authority, path, never, now=NOW)
        with pytest.raises(UsageError, match="has been renewed since"):
            renew_holder(authority, copied, never, now=NOW)
        assert renew_holder(authority, path, never, now=NOW)


def test_renewal_that_was_killed_between_its_files_is_mended(ca: Path, tmp_path: Path) -> None:
    with open_authority(ca) as authority:
        path = write_new(tmp_path / "n1", "n1", issue(authority))
        torn = issue(authority)
        path.with_suffix(".key").write_bytes(key_pem(torn.key))
        (shown,) = survey([path], ca, None, now=NOW)
        assert "renew` again" in shown.problems[0]
        renew_holder(authority, path, never, now=NOW)
        assert survey([path], ca, None, now=NOW)[0].problems == ()


def test_what_is_revoked_is_not_renewed(ca: Path, tmp_path: Path) -> None:
    with open_authority(ca) as authority:
        holder = issue(authority)
        path = write_new(tmp_path / "n1", "n1", holder)
        assert deny(authority.deny_list, [serial_text(holder.certificate.serial_number)]) == 1
        with pytest.raises(UsageError, match="revoked"):
            renew_holder(authority, path, never, now=NOW)


def test_renewal_that_reaches_no_holder_is_forgotten(
    ca: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise GreenroomError("no room")

    with open_authority(ca) as authority:
        holder = issue(authority)
        path = write_new(tmp_path / "n1", "n1", holder)
        monkeypatch.setattr("greenroom_cluster.certificates.renewing.replace", fail)
        with pytest.raises(GreenroomError, match="no room"):
            renew_holder(authority, path, never, now=NOW)
        assert authority.issued(NOW) == [holder.certificate]


# --- the deny list ---------------------------------------------------------------------------------------


def test_deny_list_grows_and_keeps_what_others_wrote(tmp_path: Path) -> None:
    path = tmp_path / "denied.txt"
    path.write_text("# ours\n0a:bc   # of a lost laptop")
    path.chmod(0o644)
    assert deny(path, ["0ABC", "0DEF", "0DEF"]) == 1
    assert path.read_text() == "# ours\n0a:bc   # of a lost laptop\n0DEF\n"
    assert read_denied(path) == {"0ABC", "0DEF"}
    assert deny(path, ["0DEF"]) == 0
    assert path.stat().st_mode & 0o777 == 0o644  # whoever could read it can read it


def test_line_that_is_no_serial_number_is_told(tmp_path: Path) -> None:
    path = tmp_path / "denied.txt"
    path.write_text("0ABC\nn1\n")
    with pytest.raises(UsageError, match=r"line 2 of .*denied\.txt"):
        read_denied(path)
    with pytest.raises(UsageError, match="line 2"):
        deny(path, ["0DEF"])
    assert path.read_text() == "0ABC\nn1\n"


# --- rotation --------------------------------------------------------------------------------------------


def test_authority_is_rotated_in_three_steps(ca: Path, tmp_path: Path) -> None:
    with open_authority(ca) as authority:
        path = write_new(tmp_path / "n1", "n1", issue(authority))
        (former,) = authority.own
        authority.rotate("trust-both", never, now=NOW)
        assert read_certificates(ca / TRUSTED) == read_certificates(ca / OWN) == list(authority.own)
        assert is_issued_by(issue(authority, name="n2").certificate, former)
        authority.rotate("issue-from-new", never, now=NOW)
        with pytest.raises(UsageError, match=r"node/n1 .*node/n2") as caught:
            authority.rotate("drop-old", never, now=NOW)
        assert "revoke" in str(caught.value)
        renewed = renew_holder(authority, path, never, now=NOW)
        assert is_issued_by(renewed, authority.own[1])
        assert read_certificates(tmp_path / "n1" / TRUSTED) == list(authority.own)
        lost = authority.issued(NOW)[-1]
        deny(authority.deny_list, [serial_text(lost.serial_number)])
        authority.rotate("drop-old", never, now=NOW)
    assert [each.name for each in ca.glob("*.key")] == [f"ca-{authority.state.issuing}.key"]
    assert former not in read_certificates(ca / TRUSTED)
    with open_authority(ca) as authority:
        assert authority.state.next_step == "trust-both"
        assert is_issued_by(issue(authority).certificate, authority.own[0])


def test_authority_with_certificates_that_have_ended_is_dropped(ca: Path) -> None:
    with open_authority(ca) as authority:
        issue(authority)
        for step in STEPS:
            authority.rotate(step, never, now=NOW + 91 * DAY)
        assert len(authority.own) == 1


@pytest.mark.parametrize("step", STEPS)
def test_step_that_ends_half_way_can_be_taken_again(
    ca: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = STEPS.index(step)  # type: ignore[arg-type]
    with open_authority(ca) as authority:
        for each in STEPS[:before]:
            authority.rotate(each, never, now=NOW)
    stored = (ca / STATE).read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with open_authority(ca) as authority, monkeypatch.context() as patched:
        patched.setattr(AuthorityDirectory, "write", fail)
        with pytest.raises(GreenroomError, match="No space left"):
            authority.rotate(STEPS[before], never, now=NOW)
    assert (ca / STATE).read_bytes() == stored
    with open_authority(ca) as authority:
        for each in STEPS[before:]:
            authority.rotate(each, never, now=NOW)
        assert issue(authority)


def test_files_to_hand_out_are_written_again_if_they_differ(ca: Path) -> None:
    with open_authority(ca) as authority:
        authority.rotate("trust-both", never, now=NOW)
    (ca / TRUSTED).write_bytes(certificates_pem([authority.own[0]]))
    (ca / OWN).unlink()
    with open_authority(ca) as authority:
        assert read_certificates(ca / TRUSTED) == read_certificates(ca / OWN) == list(authority.own)


# --- two authorities -------------------------------------------------------------------------------------


def test_holders_of_two_authorities_trust_both(tmp_path: Path) -> None:
    servers, clients = made(tmp_path / "servers", "servers"), made(tmp_path / "clients", "clients")
    with open_authority(clients) as authority:
        with pytest.raises(UsageError, match="certs trust"):
            issue(authority, "client")
        authority.trust(read_certificates(servers / OWN))
        trusted = set(issue(authority, "client").trusted)
    with open_authority(servers) as authority:
        authority.trust(read_certificates(clients / OWN))
        assert set(issue(authority, "node").trusted) == trusted
        assert set(read_certificates(servers / TRUSTED)) == trusted
        with pytest.raises(UsageError, match="--ca"):
            issue(authority, "client")
        with pytest.raises(UsageError, match="itself"):
            authority.trust(authority.own)
        authority.trust([])
        assert issue(authority, "node").trusted == authority.own


def test_only_authorities_of_this_cluster_are_trusted(ca: Path) -> None:
    with open_authority(ca) as authority:
        with pytest.raises(UsageError, match="is no authority"):
            authority.trust([issue(authority).certificate])
        with pytest.raises(UsageError, match="of cluster 'other'"):
            authority.trust([make_authority(cluster="other").certificate])
        assert authority.others == ()


# --- what is shown ---------------------------------------------------------------------------------------


def test_survey_finds_holders_and_what_was_issued(ca: Path, tmp_path: Path) -> None:
    with open_authority(ca) as authority:
        write_new(tmp_path / "hosts/n1", "n1", issue(authority))
        issue(authority, "client", "shop")
    found = survey([tmp_path], ca, None, now=NOW)
    assert [each.role for each in found] == ["node", "authority for all", "client"]
    assert [each.key for each in found] == ["fits", "", ""]
    assert not any(each.problems for each in found)
    due = survey([tmp_path], ca, None, now=NOW + 61 * DAY)
    assert [each.role for each in due if each.problems] == ["node", "client"]


def test_survey_tells_who_still_has_the_former_authority(ca: Path, tmp_path: Path) -> None:
    with open_authority(ca) as authority:
        path = write_new(tmp_path / "n1", "n1", issue(authority))
        for step in STEPS[:2]:
            authority.rotate(step, never, now=NOW)
    (shown,) = survey([path], ca, None, now=NOW)
    assert "about to be dropped" in shown.problems[0]
    with open_authority(ca) as authority:
        renew_holder(authority, path, never, now=NOW)
    (shown,) = survey([path], ca, None, now=NOW)
    assert shown.problems == ()


def test_survey_asks_nothing_for_a_holder_that_is_revoked_and_gone(ca: Path) -> None:
    with open_authority(ca) as authority:
        gone = issue(authority)
        deny(authority.deny_list, [serial_text(gone.certificate.serial_number)])
    assert [each.role for each in survey([ca], ca, None, now=NOW + 80 * DAY)] == ["authority for all"]


def test_survey_needs_no_key_and_changes_nothing(tmp_path: Path) -> None:
    ca = made(tmp_path / "ca", passphrase=PASSPHRASE)
    for key in ca.glob("*.key"):
        key.unlink()
    before = {each: each.stat().st_mtime_ns for each in ca.iterdir()}
    assert [each.role for each in survey([ca], ca, None, now=NOW)] == ["authority for all"]
    assert {each: each.stat().st_mtime_ns for each in ca.iterdir()} == before


def test_state_of_an_authority_holds_no_key(tmp_path: Path) -> None:
    ca = made(tmp_path / "ca", passphrase=PASSPHRASE)
    state = msgspec.json.decode((ca / STATE).read_bytes())
    assert b"PRIVATE" not in (ca / STATE).read_bytes()
    assert x509.load_pem_x509_certificate(state["own"][0].encode())
