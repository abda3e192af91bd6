"""Contenders in processes of their own, which take and give one JSON document per line."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from reconciler.demo.tied import tied

ROOT = Path(__file__).parents[2]
_LINE_BYTES = 256 * 1024 * 1024

Command = Callable[..., Awaitable[dict[str, Any]]]


class Child:
    """A contender in a process of its own, which ends with us. Secrets reach it by its input only."""

    def __init__(self, command: Sequence[str], directory: Path = ROOT) -> None:
        self._command = tied(command)
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._process is not None, "not started"
        return self._process.pid

    async def ask(self, **request: Any) -> dict[str, Any]:
        """Ask, and return its answer; raises RuntimeError when it has ended instead."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._command[-1]} ended with exit code {await self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=self._directory,
            limit=_LINE_BYTES,
            start_new_session=True,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


def contender(module: str) -> Child:
    """Return the contender that is a module of this folder."""
    return Child([sys.executable, "-m", f"tests.bench.{module}"])


async def answer(commands: Mapping[str, Command]) -> None:
    """Be such a process: answer each line by the command that its `do` names, until the input ends."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        reply = await commands[request.pop("do")](**request)
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
