"""The reference of P1 and P4: a client of grpc.aio that does nothing but call."""

import asyncio
import os
import time
from typing import Any
from uuid import uuid4

import grpc
import psutil

from reconciler.node._pb.handler_pb2 import (
    AddUserOperation,
    AlterInboundRequest,
    AlterInboundResponse,
    RemoveUserOperation,
)
from reconciler.node._pb.stats_pb2 import SysStatsRequest, SysStatsResponse
from reconciler.node._pb.typed_message_pb2 import TypedMessage
from reconciler.node._pb.user_pb2 import User
from reconciler.node._pb.vless_pb2 import Account
from tests.bench.lines import answer

IN_FLIGHT = 128
ALTER = "/xray.app.proxyman.command.HandlerService/AlterInbound"
SYSTEM = "/xray.app.stats.command.StatsService/GetSysStats"
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))


def connect(api: str) -> grpc.aio.Channel:
    """Return a channel of its own to a node."""
    return grpc.aio.insecure_channel(api, _OPTIONS)


def added(tag: str, name: str, credential: str) -> AlterInboundRequest:
    """Return the request that puts a VLESS user on an inbound."""
    account = TypedMessage(type="xray.proxy.vless.Account", value=Account(id=credential).SerializeToString())
    operation = AddUserOperation(user=User(email=name, account=account))
    return AlterInboundRequest(
        tag=tag,
        operation=TypedMessage(
            type="xray.app.proxyman.command.AddUserOperation", value=operation.SerializeToString()
        ),
    )


def removed(tag: str, name: str) -> AlterInboundRequest:
    """Return the request that takes a user off an inbound."""
    operation = RemoveUserOperation(email=name)
    return AlterInboundRequest(
        tag=tag,
        operation=TypedMessage(
            type="xray.app.proxyman.command.RemoveUserOperation", value=operation.SerializeToString()
        ),
    )


class Bare:
    """Adds and removes users of its own, and holds channels open."""

    def __init__(self) -> None:
        self._channels: list[grpc.aio.Channel] = []

    async def steps(self, api: str, tag: str, number: int) -> dict[str, Any]:
        """Add and remove so many users; return seconds and CPU seconds of both."""
        channel = connect(api)
        method = channel.unary_unary(
            ALTER, AlterInboundRequest.SerializeToString, AlterInboundResponse.FromString
        )
        await channel.channel_ready()
        users = [(f"bare-{index}@elsewhere", str(uuid4())) for index in range(number)]
        adding = await self._all(method, (added(tag, *user) for user in users))
        removing = await self._all(method, (removed(tag, name) for name, _ in users))
        await channel.close(None)
        return {"add": adding, "remove": removing}

    async def _all(self, method: Any, requests: Any) -> dict[str, float]:
        async def work() -> None:
            for request in requests:
                await method(request)

        began, spent = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(work())
        return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - spent}

    async def channels(self, apis: list[str]) -> dict[str, Any]:
        """Hold a channel to each, on which one call was made; return the resident bytes."""
        for api in apis:
            channel = connect(api)
            ask = channel.unary_unary(SYSTEM, SysStatsRequest.SerializeToString, SysStatsResponse.FromString)
            await ask(SysStatsRequest())
            self._channels.append(channel)
        return {"resident": psutil.Process(os.getpid()).memory_info().rss}


async def main() -> None:
    """Answer until the input ends."""
    bare = Bare()
    await answer({"steps": bare.steps, "channels": bare.channels})


if __name__ == "__main__":
    asyncio.run(main())
