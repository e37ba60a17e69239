"""A headless Chromium, driven over a pipe by its DevTools protocol: nothing to install but the browser itself."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from select import select
from types import TracebackType
from typing import Any, Self

NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome", "google-chrome-stable")
_PATIENCE_S = 60.0
_KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35, "Tab": 9}

_ON_3_AND_4 = """
import os, sys
from fcntl import F_DUPFD, fcntl
for at, copy in zip((3, 4), [fcntl(int(number), F_DUPFD, 10) for number in sys.argv[1:3]]):
    os.dup2(copy, at)
os.execvp(sys.argv[3], sys.argv[3:])
"""
# Where Chromium speaks the protocol; put in place by a program of its own, since threads forbid to do it after a fork.


def find() -> str | None:
    """Return a browser that is installed: NIGHTISP_BROWSER, or Chromium by one of its names; None if there is none."""
    return os.environ.get("NIGHTISP_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of a browser that is started for it; what it complains of or asks the network for is written down."""

    def __init__(self, program: str, profile: Path) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        to_it, self._out = os.pipe()
        self._in, from_it = os.pipe()
        self._number, self._events, self._rest, self._session = 0, list[dict[str, Any]](), b"", ""
        command = [
            *(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *("--disable-background-networking", "--hide-scrollbars=false", "--force-color-profile=srgb"),
            *("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
        ]
        through = [sys.executable, "-S", "-c", _ON_3_AND_4, str(to_it), str(from_it)]
        self._process = subprocess.Popen([*through, *command], pass_fds=(to_it, from_it), stderr=subprocess.DEVNULL)
        os.close(to_it)
        os.close(from_it)
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def _attach(self) -> None:
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Have the browser leave."""
        os.close(self._out)  # a browser whose pipe closes leaves
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)

    def __call__(self, method: str, **arguments: Any) -> Any:
        """Send a command, and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda received: received.get("id") == self._number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def open(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a page from disk, in a window of this size."""
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        gone = self("Page.navigate", url=page.absolute().as_uri())
        assert "errorText" not in gone, gone["errorText"]
        self._until(lambda received: received.get("method") == "Page.loadEventFired")
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def resize(self, width: int, height: int) -> None:
        """Make the window another size."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def run(self, script: str) -> Any:
        """Return what an expression of JavaScript is worth in the page."""
        done = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def press(self, key: str, times: int = 1) -> None:
        """Press a key."""
        for _ in range(times):
            for kind in ("rawKeyDown", "keyUp"):
                self("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=_KEYS[key])

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag with the left button, from one place of the window to another."""
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write a screenshot as PNG: of the window, or of the whole page."""
        shot = self("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(shot))

    def _until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + _PATIENCE_S
        while True:
            while self._events:  # what came along with an answer may be waited for next
                if wanted(received := self._events.pop(0)):
                    return received
            if not select([self._in], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError(f"the browser did not answer within {_PATIENCE_S:.0f} s")
            self._events += self._received()

    def _received(self) -> list[dict[str, Any]]:
        part = os.read(self._in, 1 << 20)
        assert part, "the browser has left"
        *whole, self._rest = (self._rest + part).split(b"\0")
        messages: list[dict[str, Any]] = [json.loads(text) for text in whole]
        for message in messages:
            self._note(message.get("method", ""), message.get("params", {}))
        return messages

    def _note(self, method: str, about: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(about["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(about["args"]))
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.complaints.append(about["entry"]["text"])
