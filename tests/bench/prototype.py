"""The reference of P2: LISTEN, SELECT, one AlterInbound, and nothing of what makes it safe."""

import asyncio
from typing import Any

import psycopg

from reconciler.node._pb.handler_pb2 import AlterInboundRequest, AlterInboundResponse
from tests.bench.bare import ALTER, added, connect
from tests.bench.lines import answer

_KEY = "SELECT credential FROM reconciler.keys WHERE id = %s"
_NEW_KEY = "1 k 0:"


class Prototype:
    """Puts every key that rings at no node yet on the one node that it knows."""

    def __init__(self) -> None:
        self._running: list[asyncio.Task[None]] = []

    async def start(self, dsn: str, api: str, tag: str) -> dict[str, Any]:
        """Begin to listen."""
        listening = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        reading = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        await listening.execute("LISTEN reconciler")
        await reading.execute(_KEY, (0,), prepare=True)
        self._running.append(asyncio.create_task(self._listen(listening, reading, api, tag)))
        return {}

    async def _listen(
        self, listening: psycopg.AsyncConnection, reading: psycopg.AsyncConnection, api: str, tag: str
    ) -> None:
        alter = connect(api).unary_unary(
            ALTER, AlterInboundRequest.SerializeToString, AlterInboundResponse.FromString
        )
        async for notice in listening.notifies():
            if not notice.payload.startswith(_NEW_KEY):
                continue
            key_id = int(notice.payload.removeprefix(_NEW_KEY))
            row = await (await reading.execute(_KEY, (key_id,), prepare=True)).fetchone()
            assert row is not None
            await alter(added(tag, f"k{key_id}@test", str(row[0])))


if __name__ == "__main__":
    asyncio.run(answer({"start": Prototype().start}))
