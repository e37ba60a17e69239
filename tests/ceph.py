"""Ceph of the system's packages, run for a while on loopback: a real S3 server, whose objects lie in memory."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.s3 import SETTINGS

_PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
_LIMIT_S = 60

# One of each, one copy of everything, and nobody is asked who he is. By default a monitor gathers what it decides for a
# second, which every new pool would wait for, and small answers of the gateway wait 40 ms for an acknowledgement.
SETTINGS_FILE = """\
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{port}
public addr = 127.0.0.1
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
ms bind msgr1 = false
ms mon client mode = crc
auth cluster required = none
auth service required = none
auth client required = none
keyring = {folder}/keyring
run dir = {folder}
crash dir = {folder}
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
admin socket =
pid file =
log file =
log to stderr = true
err to stderr = true
debug rocksdb = 0
mon cluster log to file = false
mon data avail crit = 1
mon allow pool size one = true
paxos propose interval = 0.05
paxos min wait = 0.01
osd objectstore = memstore
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
rgw rados pool pg num min = 1
rgw frontends = beast endpoint=127.0.0.1:{gateway} tcp_nodelay=1
"""


def programs() -> bool:
    """Tell whether all that it takes is installed."""
    return all(map(shutil.which, _PROGRAMS))


@dataclass
class Ceph:
    endpoint: str
    folder: Path
    running: dict[str, subprocess.Popen[bytes]]

    @property
    def settings(self) -> dict[str, str]:
        """What the environment of a client has to hold."""
        return {**SETTINGS, "AWS_ENDPOINT_URL": self.endpoint}

    def log(self, name: str) -> str:
        """Return what a program said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def call(self, program: str, *arguments: object, log: str) -> str:
        """Run a program to its end, and return what it wrote."""
        with (self.folder / f"{log}.log").open("wb") as told:
            done = subprocess.run(
                [program, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=told,
                cwd=self.folder,
                timeout=_LIMIT_S,
                check=False,
            )
        assert done.returncode == 0, f"{program}: {done.stdout.decode()}\n{self.log(log)}"
        return done.stdout.decode().strip()

    def start(self, name: str, *command: object) -> None:
        """Start a server."""
        with (self.folder / f"{name}.log").open("wb") as told:
            self.running[name] = subprocess.Popen(
                [*map(str, command), "--foreground"],
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
                cwd=self.folder,
            )

    def wait(self, name: str) -> None:
        """Wait until a server that was started takes connections at the endpoint."""
        address = self.endpoint.rpartition("/")[2].split(":")
        until = time.monotonic() + _LIMIT_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection((address[0], int(address[1])), 1):
                return
            assert self.running[name].poll() is None, f"{name} ended: {self.log(name)}"
            assert time.monotonic() < until, f"{name} does not answer: {self.log(name)}"
            time.sleep(0.05)

    def stop(self) -> None:
        """End what was started. Nothing of it is worth an orderly end."""
        for process in reversed(self.running.values()):
            process.kill()
        for process in self.running.values():
            process.wait(_LIMIT_S)


@contextmanager
def ceph() -> Iterator[Ceph]:
    """Start a monitor, a store of objects and the gateway that speaks S3, with one user."""
    with ExitStack() as undone:
        folder = Path(tempfile.mkdtemp(prefix="nightisp-ceph-"))
        undone.callback(shutil.rmtree, folder)
        port, gateway = _free_ports()
        fsid, disk, settings = uuid.uuid4(), uuid.uuid4(), folder / "ceph.conf"
        settings.write_text(SETTINGS_FILE.format(fsid=fsid, folder=folder, port=port, gateway=gateway))
        for name in ("mon", "osd", "rgw"):
            (folder / name).mkdir()
        server = Ceph(f"http://127.0.0.1:{gateway}", folder, {})
        undone.callback(server.stop)

        told, where = ("--conf", settings), folder / "monmap"
        server.call("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{port}]", where, log="map")
        monitor = ("ceph-mon", *told, "--id", "a")
        server.call(*monitor, "--mkfs", "--monmap", where, "--keyring", "/dev/null", log="mon-made")
        server.start("mon", *monitor)
        number = server.call("ceph", *told, "osd", "new", disk, log="osd-new")
        store = ("ceph-osd", *told, "--id", number)
        server.call(*store, "--mkfs", "--osd-uuid", disk, log="osd-made")
        server.start("osd", *store)
        secrets = ("--access-key", SETTINGS["AWS_ACCESS_KEY_ID"], "--secret-key", SETTINGS["AWS_SECRET_ACCESS_KEY"])
        user = ("user", "create", "--uid", "night", "--display-name", "night")
        server.call("radosgw-admin", *told, *user, *secrets, log="user")
        server.start("radosgw", "radosgw", *told, "--name", "client.rgw")
        server.wait("radosgw")
        yield server


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for taken in (one, other):
            taken.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
