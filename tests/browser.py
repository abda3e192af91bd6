"""Chromium without a window, driven through its debugging port: what a person would see of a page."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.daemons import until
from tests.programs import program


class Browser:
    """One window; `complaints` is what the browser itself had to say, refused scripts and styles included."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._session: str | None = None
        self._number = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []
        self.asked_for: list[str] = []

    async def begin(self) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Log", "Runtime", "Network"):
            await self.call(f"{domain}.enable")

    async def call(self, method: str, **params: Any) -> Any:
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        message = {"id": self._number, "method": method, "params": params}
        await self._socket.send_json(message | ({"sessionId": self._session} if self._session else {}))
        return await asyncio.wait_for(answer, 60)

    async def listen(self) -> None:
        async for raw in self._socket:
            message = json.loads(raw.data)
            if "id" in message:
                answer = self._answers.pop(message["id"])
                if "error" in message:
                    answer.set_exception(AssertionError(message["error"]))
                else:
                    answer.set_result(message["result"])
            else:
                self._hear(message["method"], message["params"])

    def _hear(self, event: str, params: Any) -> None:
        if event == "Page.loadEventFired":
            self._loaded.set()
        elif event == "Network.requestWillBeSent":
            self.asked_for.append(params["request"]["url"])
        elif event == "Log.entryAdded":
            self.complaints.append(params["entry"]["text"])
        elif event in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Page.javascriptDialogOpening"):
            self.complaints.append(json.dumps(params))

    async def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a page in a window, or on a phone, of this size."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), 60)

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; the page itself may run no script, its debugger may."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def picture(self, path: Path) -> None:
        shot = await self.call("Page.captureScreenshot")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))


@asynccontextmanager
async def browsing(directory: Path) -> AsyncIterator[Browser]:
    chromium = program("chromium", "chromium", "chromium-browser", "google-chrome")
    profile = directory / "profile"
    options = (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-extensions", "--disable-background-networking", "--remote-debugging-port=0",
        f"--user-data-dir={profile}", "about:blank",
    )  # fmt: skip
    with (directory / "chromium.log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(chromium, *options, stdout=log, stderr=log)
    try:
        place = profile / "DevToolsActivePort"

        async def listens() -> list[str]:
            lines = place.read_text().splitlines() if place.exists() else []
            return lines if len(lines) > 1 else []

        port, path = await until(listens, "Chromium listens")
        url = f"ws://127.0.0.1:{port}{path}"
        async with aiohttp.ClientSession() as client, client.ws_connect(url, max_msg_size=0) as socket:
            browser = Browser(socket)
            listening = asyncio.create_task(browser.listen())
            await browser.begin()
            yield browser
            listening.cancel()
    finally:
        child.kill()
        await child.wait()
