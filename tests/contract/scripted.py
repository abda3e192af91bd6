"""A node that answers as it is told to: as old versions, proxies in front and impostors do."""

from typing import Any, NoReturn, TypeAlias
from typing import Protocol as Interface

import grpc

from reconciler.demo.xray import HOST, free_port
from reconciler.node._pb.handler_pb2 import AlterInboundRequest, AlterInboundResponse, GetInboundUserRequest
from reconciler.node._pb.stats_pb2 import (
    QueryStatsRequest,
    QueryStatsResponse,
    Stat,
    SysStatsRequest,
    SysStatsResponse,
)
from tests.builders import account

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
REQUESTS: dict[str, Any] = {
    "AlterInbound": AlterInboundRequest,
    "GetInboundUsers": GetInboundUserRequest,
    "GetInboundUsersCount": GetInboundUserRequest,
    "GetSysStats": SysStatsRequest,
    "QueryStats": QueryStatsRequest,
}


class Serve(Interface):
    """What the fixture `serve` gives: `old` nodes cannot list; `tls` is the server's side of TLS."""

    async def __call__(self, *, old: bool = False, tls: grpc.ServerCredentials | None = None) -> int: ...


class Script:
    """What the scripted node says: `refusal` to every call of the HandlerService, and what it then got."""

    def __init__(self) -> None:
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.uptime_seconds = 7
        self.spoken = "vless"
        self.added = 0
        self.counters: dict[str, int] = {}
        self.queries: list[tuple[str, bool]] = []

    async def uptime(self, _request: SysStatsRequest, _context: Context) -> SysStatsResponse:
        return SysStatsResponse(Uptime=self.uptime_seconds)

    async def query(self, request: QueryStatsRequest, _context: Context) -> QueryStatsResponse:
        self.queries.append((request.pattern, request.reset))
        return QueryStatsResponse(
            stat=[Stat(name=name, value=count) for name, count in self.counters.items()]
        )

    async def refuse(self, _request: GetInboundUserRequest, context: Context) -> NoReturn:
        assert self.refusal is not None
        await context.abort(*self.refusal)

    async def alter(self, request: AlterInboundRequest, context: Context) -> AlterInboundResponse:
        if request.operation.type.endswith(".RemoveUserOperation"):
            await context.abort(grpc.StatusCode.UNKNOWN, f"proxy/{self.spoken}: Email must not be empty.")
        self.added += 1
        secret = account(1).credential
        await context.abort(
            grpc.StatusCode.UNKNOWN, f"cannot take {request}, {secret.text()}, {secret.hex()}"
        )


async def serve_script(
    script: Script, *, old: bool, tls: grpc.ServerCredentials | None
) -> tuple[grpc.aio.Server, int]:
    """Start a scripted node; return it and its port."""
    server = grpc.aio.server()
    answers: dict[str, Any] = {"AlterInbound": script.alter}
    if not old:
        answers |= {"GetInboundUsers": script.refuse, "GetInboundUsersCount": script.refuse}
    server.add_generic_rpc_handlers(
        [
            _offer("xray.app.proxyman.command.HandlerService", answers),
            _offer(
                "xray.app.stats.command.StatsService",
                {"GetSysStats": script.uptime, "QueryStats": script.query},
            ),
        ]
    )
    address = f"{HOST}:{free_port()}"
    port = server.add_secure_port(address, tls) if tls else server.add_insecure_port(address)
    await server.start()
    return server, port


def _offer(name: str, answers: dict[str, Any]) -> "grpc.GenericRpcHandler[Any, Any]":
    calls = {
        call: grpc.unary_unary_rpc_method_handler(
            answer, REQUESTS[call].FromString, lambda message: message.SerializeToString()
        )
        for call, answer in answers.items()
    }
    return grpc.method_handlers_generic_handler(name, calls)
