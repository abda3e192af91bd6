"""The node as a child process: it leaves nothing behind, and says why when it does not start."""

import asyncio
import os
import sys
from pathlib import Path

import psutil
import pytest

from reconciler.demo.xray import Listener, XrayProcess, free_port
from reconciler.model import Protocol
from tests.builders import account
from tests.parts_xray import OpenDoor, StartXray

PARENT = """
import asyncio, pathlib, sys
from reconciler.demo.xray import XrayProcess

async def main():
    async with XrayProcess(pathlib.Path(sys.argv[1])) as node:
        print(node.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_node_dies_with_a_parent_that_was_killed(tmp_path: Path):
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout
    node = psutil.Process(int(await parent.stdout.readline()))
    assert node.is_running()

    parent.kill()
    await parent.wait()

    await asyncio.to_thread(psutil.wait_procs, [node], timeout=10)
    assert not node.is_running()


async def test_a_node_does_not_hear_the_terminals_interrupt(start_xray: StartXray):
    process = await start_xray()

    assert os.getsid(process.pid) != os.getsid(0)


async def test_a_killed_node_is_not_running_until_started_again(start_xray: StartXray):
    process = await start_xray()
    first = process.pid

    process.kill()
    assert not process.is_running
    assert not psutil.pid_exists(first)

    await process.restart()
    assert process.is_running


async def test_a_node_that_cannot_start_says_why(tmp_path: Path):
    process = XrayProcess(tmp_path, [Listener("in", "nonsense", free_port())])

    with pytest.raises(RuntimeError, match="xray did not start, exit code 23"):
        await process.start()
    assert not process.is_running


async def test_a_start_that_is_cancelled_leaves_nothing_running(tmp_path: Path):
    process = XrayProcess(tmp_path, [Listener("vless-in", Protocol.VLESS, free_port())])
    starting = asyncio.create_task(process.start())
    await asyncio.sleep(0)
    assert process.is_running

    starting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not process.is_running


async def test_a_binary_on_the_path_is_preferred(
    start_xray: StartXray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    binary = tmp_path / "bin" / "xray"
    binary.parent.mkdir()
    run = "import sys, xray; assert sys.argv[1] == 'run'; xray.startFromJSON(open(sys.argv[3]).read())"
    binary.write_text(f'#!/bin/sh\ntouch "$0.was-run"\nexec {sys.executable} -c "{run}" "$@"\n')
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binary.parent}:{os.environ['PATH']}")

    process = await start_xray()

    assert process.is_running
    assert (binary.parent / "xray.was-run").exists()


async def test_a_client_that_is_not_running_is_no_closed_door(start_xray: StartXray, door: OpenDoor):
    process = await start_xray()
    customer = await door(process.port("vless-in"), account(1).credential)
    assert not await customer.opens()

    await customer.__aexit__(None, None, None)

    with pytest.raises(RuntimeError, match="not running"):
        await customer.opens()


def test_the_configuration_and_its_secrets_are_for_the_owner_only(tmp_path: Path):
    process = XrayProcess(tmp_path, [Listener("vless-in", Protocol.VLESS, free_port())])

    async def start_and_kill() -> None:
        async with process:
            pass

    asyncio.run(start_and_kill())
    assert (tmp_path / "xray.json").stat().st_mode & 0o777 == 0o600
