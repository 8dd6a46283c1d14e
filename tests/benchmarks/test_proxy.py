"""Which links of the proxy are cut."""

import asyncio

from benchmarks.servers.proxy import Cuts


def test_labels_are_cut_by_their_beginning() -> None:
    async def main() -> None:
        cuts = Cuts()
        assert not cuts.covers("7001/peer:ab")
        await cuts.cut(["7001/peer:", "7002/127.0.0.11"])
        assert cuts.covers("7001/peer:ab")
        assert not cuts.covers("7001/client:ab")
        assert cuts.covers("7002/127.0.0.11")

    asyncio.run(main())


def test_a_link_passes_again_once_healed() -> None:
    async def main() -> None:
        cuts = Cuts()
        await cuts.cut(["7001/"])
        waiting = asyncio.ensure_future(cuts.passable("7001/peer:ab"))
        await cuts.cut(["7002/"])
        await asyncio.wait_for(waiting, 5)

    asyncio.run(main())
