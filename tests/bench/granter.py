"""Grants keys one by one and asks the node until each is there: what P2 is measured with."""

import asyncio
import random
import time
from typing import Any

import grpc
import psycopg

from reconciler.node._pb.handler_pb2 import GetInboundUserRequest, GetInboundUserResponse
from tests.bench.lines import answer

USERS = "/xray.app.proxyman.command.HandlerService/GetInboundUsers"
PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.000_2
"""Between two questions whether the key is there."""

_GRANT = """
WITH person AS (INSERT INTO reconciler.users (name) VALUES ('somebody') RETURNING id),
access AS (INSERT INTO reconciler.subscriptions (user_id, expires_at)
  SELECT id, now() + interval '30 days' FROM person RETURNING id)
INSERT INTO reconciler.keys (subscription_id, credential)
SELECT id, gen_random_uuid() FROM access RETURNING id
"""


class Target:
    """One contender: its database, and its node."""

    def __init__(self, dsn: str, api: str, tag: str) -> None:
        self._rows = psycopg.connect(dsn, autocommit=True)
        channel = grpc.insecure_channel(api, (("grpc.use_local_subchannel_pool", 1),))
        self._ask = channel.unary_unary(
            USERS, GetInboundUserRequest.SerializeToString, GetInboundUserResponse.FromString
        )
        self._tag = tag
        self.from_commit: list[float] = []
        self.from_start: list[float] = []
        self.gaps: list[float] = []

    def grant(self) -> None:
        """Grant one key, and note when it was there; raises TimeoutError when it never comes."""
        began = time.perf_counter()
        row = self._rows.execute(_GRANT, prepare=True).fetchone()
        committed = asked = time.perf_counter()
        assert row is not None
        request = GetInboundUserRequest(tag=self._tag, email=f"k{row[0]}@test")
        while True:
            users = self._ask(request).users
            answered = time.perf_counter()
            self.gaps.append(answered - asked)
            if users and users[0].email:
                break
            if answered - committed > PATIENCE_SECONDS:
                raise TimeoutError("a granted key did not come")
            asked = answered
            time.sleep(PAUSE_SECONDS)
        self.from_commit.append(answered - committed)
        self.from_start.append(answered - began)


async def grants(targets: list[dict[str, str]], number: int, rate: float) -> dict[str, Any]:
    """Grant `number` keys to each target in turn, at no more than `rate` a second to each."""
    chosen = [Target(**target) for target in targets]
    for target in chosen:
        target.grant()  # prepares the statement, opens the channel
        target.from_commit.clear()
        target.from_start.clear()
        target.gaps.clear()
    for _ in range(number):
        for target in random.sample(chosen, len(chosen)):
            began = time.perf_counter()
            target.grant()
            # Not in step with any clock of theirs, and half of the pause for each of two targets.
            pause = random.uniform(1.0, 1.5) / rate / len(chosen)
            await asyncio.sleep(max(0.0, began + pause - time.perf_counter()))
    return {
        "commit": [target.from_commit for target in chosen],
        "start": [target.from_start for target in chosen],
        "gaps": [target.gaps for target in chosen],
    }


if __name__ == "__main__":
    asyncio.run(answer({"grants": grants}))
