"""A headless Chromium, driven by its DevTools protocol over a pipe: JSON messages that end with a zero byte, on its
descriptors 3 (in) and 4 (out). The protocol: https://chromedevtools.github.io/devtools-protocol/

Run as a program: the browser's path and version, or status 1 where none starts."""
import base64
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time

NAMES = ("chromium-headless-shell", "chromium")  # Debian's packages; the first one is smaller and starts sooner
FLAGS = ("--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
         "--no-first-run", "--disable-background-networking", "--disable-component-update")


def find():
    """The program, or None; setup.sh unpacks it into build/sysroot where there is no root."""
    folder = str(pathlib.Path(__file__).resolve().parent.parent / "build/sysroot/usr/lib/chromium")
    return next(filter(None, [shutil.which(name) or shutil.which(name, path=folder) for name in NAMES]), None)


def above_ten(descriptor):
    """The same file at a descriptor that is in nobody's way."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return copy


class Page:
    """One tab of a browser of its own; as a context manager it ends the browser."""

    def __init__(self, program, timeout=60):
        self.timeout, self.last, self.buffer, self.events = timeout, 0, b"", []
        self.profile = tempfile.TemporaryDirectory(prefix="browser-")
        (from_us, self.to), (self.back, to_us) = map(above_ten, os.pipe()), map(above_ten, os.pipe())
        move = f'exec "$@" 3<&{from_us} 4>&{to_us} {from_us}<&- {to_us}>&-'  # in bash
        self.process = subprocess.Popen(["bash", "-c", move, "browser", program, *FLAGS, f"--user-data-dir={self.profile.name}"],
                                        pass_fds=(from_us, to_us), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(from_us)
        os.close(to_us)
        self.session = None
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        os.close(self.to)  # the browser ends with its pipe
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.back)
        self.profile.cleanup()

    def receive(self, until):
        while b"\0" not in self.buffer:
            if not select.select([self.back], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError(f"the browser has not answered within {self.timeout} s")
            read = os.read(self.back, 1 << 16)
            if not read:
                raise EOFError(f"the browser has ended, status {self.process.wait(self.timeout)}")
            self.buffer += read
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method, **parameters):
        """The result; events that arrive before it are kept in `events`."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters, **({"sessionId": self.session} if self.session else {})}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + self.timeout
        while True:
            answer = self.receive(until)
            if answer.get("id") == self.last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, event):
        until = time.monotonic() + self.timeout
        while not any(e["method"] == event for e in self.events):
            self.events.append(self.receive(until))

    def open(self, url, width, height=900):
        """Loads a page in a window of so many CSS pixels; forgets what was before."""
        self.resize(width, height)
        self.events = []
        self.call("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")

    def resize(self, width, height=900):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def colours(self, scheme):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def requests(self):
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]

    def complaints(self):
        """Messages of the console and exceptions, but for mere information"""
        found = [e["params"]["exceptionDetails"]["text"] for e in self.events if e["method"] == "Runtime.exceptionThrown"]
        found += [f"{e['params']['entry']['level']}: {e['params']['entry']['text']}" for e in self.events
                  if e["method"] == "Log.entryAdded" and e["params"]["entry"]["level"] in ("warning", "error")]
        return found + [f"{e['params']['type']}: {e['params']['args']}" for e in self.events
                        if e["method"] == "Runtime.consoleAPICalled" and e["params"]["type"] in ("warning", "error", "assert")]

    def screenshot(self):
        """PNG of the whole page"""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"])

    def pdf(self):
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])


if __name__ == "__main__":
    found = find()
    print(found, flush=True)
    sys.exit(0 if found and subprocess.run([found, "--version"], stderr=subprocess.DEVNULL, timeout=60, check=False).returncode == 0 else 1)
