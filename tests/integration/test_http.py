"""The HTTP port, over real sockets: who may ask what, and who is cut."""

import asyncio
import json
import logging
import socket
import stat

import aiohttp
import pytest
from aiohttp import web

from reconciler.errors import ConfigError
from reconciler.status.http import MOST_CONNECTIONS
from tests.parts_http import HttpPort, rest


async def test_metrics_are_what_prometheus_reads(page):
    page.metrics.add_node("fra-1")

    status, headers, text = await page.ask("/metrics")

    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'reconciler_node_up{node="fra-1"} 0' in text.splitlines()
    assert "reconciler_cycle_seconds_count 0.0" in text.splitlines()


async def test_a_socket_file_serves_every_account_of_the_host_again_and_again(start, tmp_path):
    path = tmp_path / "http.sock"
    for _ in range(2):  # a daemon that was killed leaves its file behind
        page = await start(f"unix:{path}")
        assert page.server.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client,
            client.get("http://localhost/livez") as answer,
        ):
            assert await answer.text() == "ok\n"
    with pytest.raises(ConfigError, match=r"unix:/nowhere/x\.sock: cannot be listened on: No such"):
        await start("unix:/nowhere/x.sock")


async def test_alive_follows_the_loops(page):
    page.health.expect("fra-1", 10, 0.0)

    for path in ("/livez", "/healthz"):
        assert (await page.ask(path))[::2] == (200, "ok\n")

    page.now = 11.0

    for path in ("/livez", "/healthz"):
        assert (await page.ask(path))[::2] == (503, "[-] fra-1: turned 11.0 s ago, limit 10 s\nnot ok\n")


async def test_ready_follows_the_work(page):
    assert (await page.ask("/readyz"))[0] == 503

    page.health.database_read(0.0)
    page.health.note("removals", "frozen: the clock jumped")

    assert (await page.ask("/readyz"))[::2] == (200, "[!] removals: frozen: the clock jumped\nok\n")


async def test_verbose_lists_every_check(page):
    page.health.database_read(0.0)

    assert (await page.ask("/readyz?verbose"))[2] == (
        "[+] running: yes\n"
        "[+] database: read 0.0 s ago, limit 30 s\n"
        "[+] first cycles: 0 of 0 nodes tried\n"
        "ok\n"
    )


async def test_json_is_given_to_whoever_accepts_it(page):
    status, headers, text = await page.ask("/readyz", headers={"Accept": "application/json"})

    found = json.loads(text)
    assert status == 503
    assert headers["Content-Type"].startswith("application/json")
    assert found["ok"] is False
    assert {"name": "running", "ok": True, "detail": "yes", "required": True} in found["checks"]


async def test_only_reading_is_allowed(page):
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert (await page.ask("/metrics", method))[0] == 405
    assert (await page.ask("/livez", "HEAD"))[::2] == (200, "")
    assert (await page.ask("/no-such-page"))[0] == 404
    assert (await page.ask("/metrics/../etc/passwd"))[0] == 404


@pytest.mark.parametrize(
    "said", [b"GET /livez", b"GET /", b"GET /metrics", b"GET /nowhere", b"DELETE /livez"]
)
async def test_an_answer_ends_its_connection(start, said):
    page = await start(deadline_seconds=600)
    assert (await page.say(said + b" HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 ")


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nxyz",
        b"G\x00T /livez HTTP/1.1\r\n\r\n",
        b"\r\n\r\n\r\n" + b"x" * 1000 + b"\r\n",
    ],
    ids=["tls", "version", "long path", "long header", "length", "smuggling", "zero", "noise"],
)
async def test_what_is_no_http_gets_a_4xx_and_no_log_line(page, raw, caplog):
    with caplog.at_level(logging.WARNING):
        answer = await page.say(raw)

    assert answer.startswith((b"HTTP/1.0 4", b"HTTP/1.1 4"))
    assert caplog.records == []
    assert (await page.ask("/livez"))[0] == 200


async def test_an_error_of_ours_is_told(page, caplog):
    page.metrics.slices = None

    assert (await page.ask("/metrics"))[0] == 500
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_clients_that_say_nothing_shut_nobody_out(start):
    page = await start(deadline_seconds=600)
    silent = [await asyncio.open_connection(*page.place) for _ in range(MOST_CONNECTIONS * 2)]

    assert (await page.ask("/livez"))[0] == 200

    async with asyncio.timeout(10):
        for reader, _ in silent[:MOST_CONNECTIONS]:
            assert await rest(reader) == b""
    for _, writer in silent:
        writer.close()


async def test_who_waits_for_an_answer_is_not_cut_for_those_who_say_nothing(start):
    page = await start(deadline_seconds=600)
    for number in range(5000):
        page.metrics.add_node(f"n-{number}")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(slow, page.place)
        slow.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        reader, writer = await asyncio.open_connection(sock=slow)
        head = await reader.readuntil(b"\r\n\r\n")
        silent = [await asyncio.open_connection(*page.place) for _ in range(MOST_CONNECTIONS * 2)]
        assert (await page.ask("/livez"))[0] == 200

        async with asyncio.timeout(30):
            body = await reader.read()
        writer.close()
    for _, each in silent:
        each.close()

    assert f"Content-Length: {len(body)}\r\n".encode() in head
    assert b"reconciler_lease_changes_total" in body


@pytest.mark.parametrize(
    "said", [b"", b"GET /metrics HT", b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"]
)
async def test_a_client_that_does_not_finish_is_cut_at_the_deadline(start, said):
    page = await start(deadline_seconds=0.2)
    reader, writer = await asyncio.open_connection(*page.place)
    writer.write(said)

    async with asyncio.timeout(10):
        answer = await rest(reader)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 405")
    writer.close()


async def test_a_client_that_does_not_read_is_cut_at_the_deadline(start, monkeypatch):
    ended = asyncio.Event()
    lost = web.RequestHandler.connection_lost

    def watched(connection, error):
        lost(connection, error)
        ended.set()

    monkeypatch.setattr(web.RequestHandler, "connection_lost", watched)
    page = await start(deadline_seconds=0.2)
    for number in range(5000):
        page.metrics.add_node(f"n-{number}")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, page.place)
        client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")

        async with asyncio.timeout(10):
            await ended.wait()

    assert (await page.ask("/livez"))[0] == 200


async def test_closing_does_not_wait_for_slow_clients(start):
    page = await start()
    place = page.place
    _, writer = await asyncio.open_connection(*place)
    writer.write(b"GET /livez HT")

    async with asyncio.timeout(5):
        await page.server.close()

    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*place)
    writer.close()


async def test_an_address_that_is_taken_is_a_fault_of_the_configuration(page):
    with pytest.raises(ConfigError) as caught:
        await HttpPort().serve(page.server.address)

    (fault,) = caught.value.faults
    assert (fault.key, fault.value) == ("http.listen", page.server.address)
    assert "in use" in fault.bound
    assert str(caught.value).count(page.server.address) == 1
    assert str(page.place[1]) not in fault.bound


@pytest.mark.parametrize("listen", ["192.0.2.1:9108", "no-such-host.invalid:1", "a" * 70 + ".example:1"])
async def test_an_address_that_is_not_ours_is_a_fault_of_the_configuration(listen):
    with pytest.raises(ConfigError, match="cannot be listened on"):
        await HttpPort().serve(listen)


async def test_ipv6_is_served(start):
    page = await start("[::1]:0")

    assert page.server.address.startswith("[::1]:")
    assert (await page.ask("/livez"))[0] == 200
