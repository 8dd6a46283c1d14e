"""The client of etcd's gateway: what it asks, whom it believes, and what it says when etcd is away."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trio

from greenroom.errors import UsageError
from greenroom_cluster.coordination.etcd.client import EtcdClient
from greenroom_cluster.coordination.etcd.gateway import (
    OPERATIONS_MAX,
    Compare,
    Delete,
    EtcdAwayError,
    EtcdRefusedError,
    LeaseOverError,
    Put,
    Range,
    Watched,
    end_of,
)
from greenroom_cluster.coordination.etcd.members import PATIENCE_SECONDS
from greenroom_cluster.coordination.etcd.settings import EtcdSettings, etcd_settings
from greenroom_cluster.etcd_options import EtcdOptions
from tests.cluster.etcd.fake import Fault, Gateway, Store

ONE, TWO = "one:2379", "two:2379"
LEADER = b"/greenroom/leader"


def client(gateway: Gateway, user: str = "", password: str = "") -> EtcdClient:
    urls = (f"http://{ONE}", f"http://{TWO}")
    settings = EtcdSettings(urls=urls, user=user)
    return EtcdClient(settings, password=lambda: password, transport=gateway)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway(Store())


@pytest.mark.trio
async def test_a_transaction_holds_its_compares(gateway: Gateway) -> None:
    async with client(gateway) as etcd:
        lease = await etcd.grant(1)
        assert (lease.ttl_seconds, lease.id > 0) == (2, True), "what etcd gave, not what was asked for"
        never = [Compare(LEADER, "CREATE", 0)]
        first = await etcd.transact(never, [Put(LEADER, b"c1", lease.id)])
        again = await etcd.transact(never, [Put(LEADER, b"c2")], [Range(LEADER)])
        assert (first.succeeded, again.succeeded) == (True, False)
        (held,) = again.responses[0].response_range.kvs
        assert (held.value, held.lease, held.create_revision) == (b"c1", lease.id, first.header.revision)


@pytest.mark.trio
async def test_a_range_reads_all_keys_with_a_prefix(gateway: Gateway) -> None:
    async with client(gateway) as etcd:
        await etcd.transact([], [Put(b"a/1", b"x"), Put(b"a/2", b""), Put(b"b", b"z")])
        found = await etcd.range(Range(b"a/", end_of(b"a/")))
        assert [(each.key, each.value) for each in found.kvs] == [(b"a/1", b"x"), (b"a/2", b"")]
        await etcd.transact([], [Delete(b"a/", end_of(b"a/"))])
        assert (await etcd.range(Range(b"a/", end_of(b"a/")))).kvs == ()


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"a/", b"a0"), (b"a\xff", b"b"), (b"\xff\xff", b"\0"), (b"", b"\0")]
)
def test_the_end_of_a_prefix(prefix: bytes, end: bytes) -> None:
    assert end_of(prefix) == end


@pytest.mark.trio
async def test_a_lease_that_is_over_has_no_time_left() -> None:
    now = 0.0
    gateway = Gateway(Store(lambda: now))
    async with client(gateway) as etcd:
        lease = await etcd.grant(3)
        await etcd.transact([], [Put(LEADER, b"c1", lease.id)])
        now = 2.0
        assert (await etcd.keep_alive(lease.id)).ttl_seconds == 3
        now = 5.0
        assert (await etcd.keep_alive(lease.id)).ttl_seconds == 0
        assert (await etcd.range(Range(LEADER))).kvs == ()
        await etcd.revoke(lease.id)  # is fine
        with pytest.raises(LeaseOverError):
            await etcd.transact([], [Put(LEADER, b"c1", lease.id)])


@pytest.mark.parametrize("fault", ["no answer", "unavailable", "lessor moved", "empty reply", "cut off"])
@pytest.mark.trio
async def test_whoever_fails_is_away_and_the_next_is_asked(gateway: Gateway, fault: Fault) -> None:
    async with client(gateway) as etcd:
        await etcd.range(Range(b"a"))
        gateway.faults.append(fault)
        with pytest.raises(EtcdAwayError):
            await etcd.transact([], [Put(b"a", b"x")])
        await etcd.range(Range(b"a"))
        assert [member for member, _ in gateway.asked] == [ONE, ONE, TWO]


@pytest.mark.trio
async def test_a_transaction_without_an_answer_may_have_been_done(gateway: Gateway) -> None:
    gateway.faults.append("applied, no answer")
    async with client(gateway) as etcd:
        with pytest.raises(EtcdAwayError):
            await etcd.transact([], [Put(b"a", b"x")])
        assert (await etcd.range(Range(b"a"))).kvs[0].value == b"x"


@pytest.mark.trio
async def test_a_member_that_cannot_be_reached_costs_nothing(gateway: Gateway) -> None:
    async with client(gateway) as etcd:
        await etcd.range(Range(b"a"))
        gateway.down.add(ONE)
        await etcd.transact([], [Put(b"a", b"x")])
        gateway.down.add(TWO)
        with pytest.raises(EtcdAwayError, match=r":2379 does not answer: ConnectError"):
            await etcd.transact([], [Put(b"a", b"x")])
        gateway.down.clear()
        await etcd.transact([], [Put(b"a", b"x")])


async def warmed_up(etcd: EtcdClient) -> None:
    """Ask until it is known that answers come soon."""
    for _ in range(10):
        await etcd.range(Range(b"a"))


@pytest.mark.trio
async def test_a_silent_member_is_soon_left(gateway: Gateway, autojump_clock: object) -> None:
    async with client(gateway) as etcd:
        await warmed_up(etcd)
        gateway.slow[ONE] = 60.0
        began = trio.current_time()
        with pytest.raises(EtcdAwayError, match=f"{ONE} does not answer"):
            await etcd.transact([], [Put(b"a", b"x")])
        assert (await etcd.range(Range(b"a"))).kvs[0].value == b"x", "it may have been done"
        assert trio.current_time() - began == pytest.approx(PATIENCE_SECONDS)
        assert [path for _, path in gateway.asked].count("/v3/kv/txn") == 1, "it is not repeated here"
        await etcd.range(Range(b"a"))
        assert gateway.asked[-1][0] == TWO, "who has answered is asked again"


@pytest.mark.trio
async def test_whoever_has_never_answered_is_waited_for(gateway: Gateway, autojump_clock: object) -> None:
    """A first answer may take its time, as with the handshakes of TLS."""
    gateway.slow = {ONE: 0.9, TWO: 0.9}
    async with client(gateway) as etcd:
        await etcd.range(Range(b"a"))


@pytest.mark.trio
async def test_members_that_are_always_slow_are_of_use(gateway: Gateway, autojump_clock: object) -> None:
    async with client(gateway) as etcd:
        await warmed_up(etcd)
        gateway.slow = {ONE: 0.4, TWO: 0.4}
        failures = 0
        for _ in range(30):
            try:
                await etcd.transact([], [Put(b"a", b"x")])
            except EtcdAwayError:
                failures += 1
        assert failures == 1, "after that it is known what they take"


@pytest.mark.trio
async def test_a_member_of_another_cluster_is_not_believed(gateway: Gateway) -> None:
    async with client(gateway) as etcd:
        await etcd.range(Range(b"a"))
        gateway.store.header = lambda: {"cluster_id": "8", "revision": "9"}  # type: ignore[method-assign]
        with pytest.raises(EtcdAwayError, match="another cluster of etcd"):
            await etcd.range(Range(b"a"))


@pytest.mark.parametrize(("version", "works"), [("3.3.27", False), ("3.4.0", True), ("3.6.5", True)])
@pytest.mark.trio
async def test_only_releases_with_this_api_are_asked(version: str, works: bool) -> None:
    async with client(Gateway(Store(), version)) as etcd:
        if works:
            await etcd.range(Range(b"a"))
        else:
            with pytest.raises(EtcdRefusedError, match=r"is etcd 3.3.27: 3.4 or later"):
                await etcd.range(Range(b"a"))


# --- who signs in -----------------------------------------------------------------------------------------


def _forget(gateway: Gateway) -> None:
    gateway.store.tokens.clear()


def _end_without_a_word(gateway: Gateway) -> None:
    gateway.store.tokens.clear()
    gateway.faults.append("empty reply")


@pytest.mark.parametrize("lose", [_forget, _end_without_a_word])
@pytest.mark.trio
async def test_a_token_that_is_lost_is_renewed(gateway: Gateway, lose: Callable[[Gateway], None]) -> None:
    gateway.store.user = ("room", "green")
    async with client(gateway, "room", "green") as etcd:
        await etcd.transact([], [Put(b"a", b"x")])
        lose(gateway)
        assert (await etcd.range(Range(b"a"))).kvs[0].value == b"x"


@pytest.mark.trio
async def test_a_watch_whose_token_is_lost_is_begun_again_later(gateway: Gateway) -> None:
    """Whoever watches asks other things too, by which it signs in anew."""
    gateway.store.user = ("room", "green")
    async with client(gateway, "room", "green") as etcd:
        await etcd.range(Range(b"a"))
        _forget(gateway)
        with pytest.raises(EtcdAwayError, match="watch"):
            async with etcd.watch(Range(b"a"), 0):
                pass
        await etcd.range(Range(b"a"))
        async with etcd.watch(Range(b"a"), 0) as parts:
            assert (await anext(parts)).created


@pytest.mark.trio
async def test_a_wrong_password_is_refused_at_once(gateway: Gateway) -> None:
    gateway.store.user = ("room", "green")
    async with client(gateway, "room", "red") as etcd:
        with pytest.raises(EtcdRefusedError, match=r"'room' in .*password\): .*--etcd-password-file"):
            await etcd.range(Range(b"a"))


@pytest.mark.trio
async def test_a_password_that_was_changed_is_read_anew(gateway: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("green\n")
    file.chmod(0o600)
    options = EtcdOptions(store=f"etcd://{ONE}", etcd_user="room", etcd_password_file=file)
    gateway.store.user = ("room", "green")
    async with EtcdClient(options.settings("shop"), password=options.password, transport=gateway) as etcd:
        await etcd.range(Range(b"a"))
        gateway.store.user = ("room", "blue")
        _forget(gateway)
        with pytest.raises(EtcdRefusedError, match="--etcd-password-file"):
            await etcd.range(Range(b"a"))
        file.write_text("blue\n")
        await etcd.range(Range(b"a"))
        _forget(gateway)
        file.unlink()
        with pytest.raises(EtcdRefusedError, match="--etcd-password-file"):
            await etcd.range(Range(b"a"))


@pytest.mark.trio
async def test_a_user_without_a_role_for_the_keys_is_told_which_and_where(gateway: Gateway) -> None:
    gateway.store.user, gateway.store.is_forbidden = ("room", "green"), True
    async with client(gateway, "room", "green") as etcd:
        with pytest.raises(EtcdRefusedError, match=r"'room' .*'/greenroom' .*--etcd-user.*--store"):
            await etcd.range(Range(b"a"))


@pytest.mark.trio
async def test_etcd_that_demands_a_user_says_which_option(gateway: Gateway) -> None:
    gateway.store.user = ("room", "green")
    async with client(gateway) as etcd:
        with pytest.raises(EtcdRefusedError, match="--etcd-user and --etcd-password-file"):
            await etcd.range(Range(b"a"))


# --- watches ----------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_a_watch_tells_every_change_from_a_revision_on(gateway: Gateway) -> None:
    async with client(gateway) as etcd:
        done = await etcd.transact([], [Put(b"a/1", b"x")])
        async with etcd.watch(Range(b"a/", end_of(b"a/")), done.header.revision) as parts:
            await etcd.transact([], [Put(b"b", b"no"), Delete(b"a/1")])
            seen: list[Watched] = []
            async for part in parts:
                seen.append(part)
                if sum(len(each.events) for each in seen) == 2:
                    break
            events = [event for part in seen for event in part.events]
            assert [(each.type, each.kv.key) for each in events] == [("PUT", b"a/1"), ("DELETE", b"a/1")]


@pytest.mark.trio
async def test_a_canceled_watch_ends_though_its_connection_does_not(gateway: Gateway) -> None:
    gateway.store.compacted = 5
    async with client(gateway) as etcd:
        with trio.fail_after(5):
            async with etcd.watch(Range(b"a"), 3) as parts:
                seen = [part async for part in parts]
        assert (seen[-1].canceled, seen[-1].compact_revision) == (True, 5)


@pytest.mark.trio
async def test_a_watch_that_a_member_ends_is_no_end_of_changes(gateway: Gateway) -> None:
    async with client(gateway) as etcd, etcd.watch(Range(b"a"), 2) as parts:
        assert (await anext(parts)).created
        for _, _, channel in gateway.store.watching:
            channel.close()
        with pytest.raises(EtcdAwayError):
            await anext(parts)


@pytest.mark.trio
async def test_a_watch_can_be_left_at_any_time(gateway: Gateway) -> None:
    async with client(gateway) as etcd:
        with trio.move_on_after(0.01) as scope:
            async with etcd.watch(Range(b"a"), 0) as parts:
                async for _ in parts:
                    pass
        assert scope.cancelled_caught
        await etcd.range(Range(b"a"))


@pytest.mark.trio
async def test_too_much_for_one_transaction_is_said_before_it_is_sent(gateway: Gateway) -> None:
    async with client(gateway) as etcd:
        with pytest.raises(ValueError, match="128"):
            await etcd.transact([], [Put(b"a", b"")] * (OPERATIONS_MAX + 1))
        with pytest.raises(ValueError, match="more than etcd takes"):
            await etcd.transact([], [Put(b"a", bytes(1_600_000))])
        assert gateway.asked == []


@pytest.mark.parametrize(
    ("url", "urls", "prefix"),
    [
        ("etcd://one:2379,two:2380", ("http://one:2379", "http://two:2380"), "/greenroom"),
        ("etcds://one/team/shop/", ("https://one:2379",), "/team/shop"),
        ("etcd://[::1]:2379", ("http://[::1]:2379",), "/greenroom"),
        ("etcd://[::1]", ("http://[::1]:2379",), "/greenroom"),
    ],
)
def test_members_are_named_by_a_url(url: str, urls: tuple[str, ...], prefix: str) -> None:
    settings = etcd_settings(url, "--store")
    assert (settings.urls, settings.prefix, settings.secure) == (urls, prefix, url.startswith("etcds"))


@pytest.mark.parametrize(
    "url", ["one:2379", "http://one", "etcd://", "etcd://room:green@one", "etcd://one?a=b", "etcd://one:x"]
)
def test_a_url_that_names_no_members_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        etcd_settings(url, "--store")


@pytest.mark.trio
async def test_port_for_peers_is_told_from_that_for_clients() -> None:
    """It tells its version as the other does, and knows no gateway."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/version":
            return httpx.Response(200, json={"etcdserver": "3.5.16", "etcdcluster": "3.5.0"})
        return httpx.Response(404, text="404 page not found\n")

    settings = etcd_settings("etcd://127.0.0.1:2380", "--store")
    async with EtcdClient(settings, transport=httpx.MockTransport(answer)) as etcd:
        with pytest.raises(
            EtcdAwayError, match=r"http://127\.0\.0\.1:2380 answers: .*port for clients.*2379"
        ):
            await etcd.range(Range(b"a"))


@pytest.mark.trio
async def test_plain_member_asked_by_tls_is_told_as_one() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("wrong version number")

    settings = etcd_settings("etcds://127.0.0.1:2379", "--store")
    async with EtcdClient(settings, transport=httpx.MockTransport(refuse)) as etcd:
        with pytest.raises(EtcdAwayError, match=r"speak TLS\? If not, name it by etcd:// in --store"):
            await etcd.range(Range(b"a"))
