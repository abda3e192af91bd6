"""What old versions, proxies in front and impostors answer, and what becomes of it."""

import traceback

import grpc
import pytest

from reconciler.demo.xray import HOST
from reconciler.errors import NodeError, NodeRejected, NodeTooOld, NodeUnreachable
from reconciler.model import Inbound, Protocol
from reconciler.node.port import list_users
from tests.builders import account
from tests.contract.conftest import Connect
from tests.contract.scripted import Script, Serve

VLESS = Inbound("vless-in", Protocol.VLESS)
SECONDS = 5


async def test_a_node_that_cannot_list_is_too_old_and_the_version_is_named(serve: Serve, connect: Connect):
    node = connect(f"{HOST}:{await serve(old=True)}")

    with pytest.raises(NodeTooOld, match=r"no GetInboundUsers: v24\.11\.5 or newer"):
        await list_users(node, VLESS, SECONDS)
    with pytest.raises(NodeTooOld, match=r"no GetInboundUsersCount: v24\.11\.5 or newer"):
        await node.probe([VLESS], SECONDS)
    assert (await node.probe([], SECONDS)).uptime_seconds == 7


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, NodeUnreachable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, NodeUnreachable),
        (grpc.StatusCode.CANCELLED, NodeUnreachable),
        (grpc.StatusCode.UNAUTHENTICATED, NodeRejected),
        (grpc.StatusCode.PERMISSION_DENIED, NodeRejected),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, NodeRejected),
        (grpc.StatusCode.INTERNAL, NodeRejected),
        (grpc.StatusCode.UNKNOWN, NodeRejected),
    ],
    ids=lambda value: value.name if isinstance(value, grpc.StatusCode) else "",
)
async def test_every_other_refusal_is_either_no_answer_or_a_no(
    serve: Serve, script: Script, connect: Connect, code: grpc.StatusCode, kind: type[NodeError]
):
    script.refusal = (code, "says the scripted node")

    with pytest.raises(NodeError) as caught:
        await list_users(connect(f"{HOST}:{await serve()}"), VLESS, SECONDS)

    assert type(caught.value) is kind
    if kind is NodeUnreachable:
        assert str(caught.value) == "fra-1: does not answer: says the scripted node"
    else:
        said = f"fra-1: says the scripted node (GetInboundUsers: {code.name})"
        assert str(caught.value).startswith(said)


async def test_a_proxy_that_knows_no_such_path_does_not_make_the_node_too_old(
    serve: Serve, script: Script, connect: Connect
):
    script.refusal = (grpc.StatusCode.UNIMPLEMENTED, "Received http2 header with status: 404")

    with pytest.raises(NodeRejected, match="status: 404") as caught:
        await list_users(connect(f"{HOST}:{await serve()}"), VLESS, SECONDS)

    assert type(caught.value) is NodeRejected


async def test_a_credential_that_the_peer_echoes_is_shown_nowhere(
    serve: Serve, script: Script, connect: Connect
):
    node = connect(f"{HOST}:{await serve()}")

    with pytest.raises(NodeRejected, match="cannot take") as caught:
        await node.add(VLESS, "k1@owner", account(1), SECONDS)

    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.detail)
    assert script.added == 1
    assert account(1).credential.text() not in shown
    assert account(1).credential.hex() not in shown


async def test_a_fallen_uptime_behind_a_proxy_makes_the_adapter_ask_for_the_protocol_again(
    serve: Serve, script: Script, connect: Connect
):
    node = connect(f"{HOST}:{await serve()}")
    await node.probe([], SECONDS)
    with pytest.raises(NodeRejected, match="cannot take"):
        await node.add(VLESS, "k1@owner", account(1), SECONDS)

    script.uptime_seconds, script.spoken = 1, "trojan"
    await node.probe([], SECONDS)

    with pytest.raises(NodeRejected, match="speaks trojan, not vless"):
        await node.add(VLESS, "k1@owner", account(1), SECONDS)
    assert script.added == 1
