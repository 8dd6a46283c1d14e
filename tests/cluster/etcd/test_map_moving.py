"""A map that is moved from a file to etcd: whatever is lost on the way, one of the two goes on, not both."""

from functools import partial
from pathlib import Path

import msgspec
import pytest

from greenroom.cluster_map import ClusterMap
from greenroom.errors import GreenroomError, UnavailableError, UsageError
from greenroom_cluster.coordination.boot_note import BootNote
from greenroom_cluster.coordination.etcd.client import EtcdClient
from greenroom_cluster.coordination.etcd.layout import map_of, marks_of, values_of
from greenroom_cluster.coordination.genesis import ClusterOptions, first_map
from greenroom_cluster.coordination.storage import MapStorage
from greenroom_cluster.etcd_options import EtcdOptions
from greenroom_cluster.runtime import etcd_reach, map_moving
from greenroom_cluster.runtime.etcd_reach import check_kept, check_reach, forget_cluster
from greenroom_cluster.runtime.map_moving import move_map
from tests.cluster.etcd.fake import Fault, Gateway, Store

pytestmark = pytest.mark.trio

ETCD = EtcdOptions(store="etcd://one:2379")
ROOT = b"/greenroom/shop/"
MARKS = {b"d" * 16: 7}


def decided(version: int = 9, identity: bytes = b"i" * 16) -> ClusterMap:
    """A map in which something was decided."""
    blank = first_map("shop", 4, 2, identity)
    shards = tuple(msgspec.structs.replace(entry, epoch=3) for entry in blank.shards)
    return msgspec.structs.replace(blank, version=version, shards=shards)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    made = Gateway(Store())
    for module in (map_moving, etcd_reach):
        monkeypatch.setattr(module, "EtcdClient", partial(EtcdClient, transport=made))
    return made


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory of a coordinator that was stopped."""
    with MapStorage(tmp_path) as storage:
        assert storage.load() is None
        storage.vouch()
        storage.save(decided())
        storage.save_marks(MARKS)
    return tmp_path


def in_etcd(gateway: Gateway) -> ClusterMap | None:
    maps = ROOT + b"map/"
    keys = {key: held["value"] for key, held in gateway.store.keys.items() if key.startswith(maps)}
    return map_of({key.removeprefix(maps).decode(): value for key, value in keys.items()})


def put(gateway: Gateway, cluster_map: ClusterMap) -> None:
    for key, value in values_of(cluster_map).items():
        gateway.store.keys[ROOT + b"map/" + key.encode()] = {
            "value": value,
            "lease": 0,
            "create_revision": 1,
            "mod_revision": 1,
        }


def starts(directory: Path) -> bool:
    """Whether a coordinator would go on from the file."""
    with MapStorage(directory) as storage:
        if not storage.moved_to:
            return storage.load() is not None
        with pytest.raises(UsageError, match="was moved to etcd://one:2379"):
            storage.load()
        return False


async def test_a_map_is_moved_with_its_marks_and_once(gateway: Gateway, directory: Path) -> None:
    moved = await move_map(directory, ETCD)
    assert moved == ("shop", 1, 9, False)
    assert in_etcd(gateway) == decided()
    assert marks_of(gateway.store.keys[ROOT + b"marks"]["value"]) == MARKS
    assert not starts(directory)
    assert (await move_map(directory, ETCD)).before
    # Coordinators have decided since.
    put(gateway, decided(12))
    assert (await move_map(directory, ETCD)).before
    assert in_etcd(gateway) == decided(12)


@pytest.mark.parametrize("fault", ["applied, no answer", "no answer", "unavailable"])
async def test_an_unknown_outcome_is_known_after_another_move(
    fault: Fault, gateway: Gateway, directory: Path
) -> None:
    gateway.faults.extend(["lessor moved"])
    with pytest.raises(UnavailableError, match="nothing was moved"):
        await move_map(directory, ETCD)
    assert starts(directory)
    # The first request only looks.
    gateway.faults.clear()
    original = gateway.store.txn

    def txn(body: dict[str, object]) -> dict[str, object]:
        gateway.store.txn = original  # type: ignore[method-assign]  # once
        gateway.faults.append(fault)
        return original(body)

    gateway.store.txn = txn  # type: ignore[method-assign]  # a fault for the request after this one
    with pytest.raises(GreenroomError, match="run this again"):
        await move_map(directory, ETCD)
    assert not starts(directory)
    assert (await move_map(directory, ETCD)).before is (fault == "applied, no answer")
    assert in_etcd(gateway) == decided()
    assert not starts(directory)


@pytest.mark.parametrize(
    "there", [decided(identity=b"o" * 16), decided(8), first_map("shop", 4, 2, b"i" * 16)]
)
async def test_what_is_in_etcd_is_not_replaced(there: ClusterMap, gateway: Gateway, directory: Path) -> None:
    put(gateway, there)
    with pytest.raises(UsageError, match=r"etcdctl del --prefix /greenroom/shop/`"):
        await move_map(directory, ETCD)
    assert in_etcd(gateway) == there
    assert starts(directory)


async def test_a_map_that_may_be_old_is_not_moved(gateway: Gateway, directory: Path) -> None:
    """In etcd nobody would ask whether it is the newest."""
    BootNote(directory).void()
    with pytest.raises(UsageError, match="coordinator_proven"):
        await move_map(directory, ETCD)
    assert in_etcd(gateway) is None
    assert starts(directory)


async def test_a_map_is_moved_to_one_etcd_by_a_host_alone(gateway: Gateway, directory: Path) -> None:
    with MapStorage(directory), pytest.raises(UsageError, match="another coordinator is running"):
        await move_map(directory, ETCD)
    await move_map(directory, ETCD)
    with pytest.raises(UsageError, match="was moved to etcd://one:2379"):
        await move_map(directory, EtcdOptions(store="etcd://one:2379/other"))


async def test_there_must_be_a_map(gateway: Gateway, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no map"):
        await move_map(tmp_path, ETCD)
    with MapStorage(tmp_path) as storage:
        storage.vouch()
        storage.save(first_map("shop", 4, 2))
    with pytest.raises(UsageError, match="nothing was ever decided"):
        await move_map(tmp_path, ETCD)


# --- what is asked before a cluster is started -----------------------------------------------------------


async def test_an_etcd_that_is_not_there_is_told_with_the_way_to_start_one(gateway: Gateway) -> None:
    gateway.down.add("one:2379")
    with pytest.raises(UnavailableError) as caught:
        await check_reach(ETCD, "shop")
    assert "apt-get install etcd-server" in str(caught.value)
    assert "etcd --data-dir" in str(caught.value)
    gateway.down.clear()
    await check_reach(ETCD, "shop")


async def test_a_cluster_that_runs_is_not_started_twice(gateway: Gateway, autojump_clock: object) -> None:
    held = {"value": b"10.0.0.1:7300", "lease": 0, "create_revision": 1, "mod_revision": 1}
    gateway.store.keys[ROOT + b"leader"] = held
    with pytest.raises(UsageError, match=r"10\.0\.0\.1:7300 leads cluster 'shop'.*--cluster"):
        await check_reach(ETCD, "shop")
    await check_reach(ETCD, "other")


async def test_options_that_differ_from_the_cluster_are_told_at_the_start(gateway: Gateway) -> None:
    """Before, the coordinator ended whenever it led, and was started again in vain."""
    await check_kept(ETCD, ClusterOptions("shop", 8))
    put(gateway, decided())
    await check_kept(ETCD, ClusterOptions("shop", 4, 2))
    with pytest.raises(UsageError, match=r"--shards.*created with 4"):
        await check_kept(ETCD, ClusterOptions("shop", 8))
    gateway.down.add("one:2379")
    await check_kept(ETCD, ClusterOptions("shop", 8))  # it stands by until etcd answers


async def test_a_cluster_is_forgotten_and_no_other(gateway: Gateway) -> None:
    put(gateway, decided())
    held = {"value": b"", "lease": 0, "create_revision": 1, "mod_revision": 1}
    gateway.store.keys[b"/greenroom/shopping/leader"] = held
    await forget_cluster(ETCD, "shop")
    assert list(gateway.store.keys) == [b"/greenroom/shopping/leader"]
