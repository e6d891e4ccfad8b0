"""Kernels whose TUN driver knows less, and systems that don't let it be opened or lack what is usually mounted."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from running import SANITIZED

if TYPE_CHECKING:
    from netns import Namespace

pytestmark = pytest.mark.root

COMMAND = [sys.executable, "-W", "error", "-m", "tunring"]

IFF_TUN, IFF_TAP, IFF_NO_PI, IFF_ONE_QUEUE, IFF_TUN_EXCL = 0x1, 0x2, 0x1000, 0x2000, 0x8000

#: The flags that gVisor's driver knows, and those of a driver that knows even fewer.
GVISOR = IFF_TUN | IFF_TAP | IFF_NO_PI | IFF_ONE_QUEUE | IFF_TUN_EXCL
MIN_FLAGS = IFF_TUN | IFF_NO_PI

#: Five datagrams out of the kernel and five into it, and what came.
EXCHANGE = """
import socket, sys, tunring
from datagrams import udp4
with tunring.Adapter.create("tun0") as adapter:
    adapter.configure(["10.9.0.1/24"])
    with adapter.start_session(tunring.MIN_CAPACITY) as session:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.bind(("10.9.0.1", 4000))
            link.settimeout(10)
            for _ in range(5):
                link.sendto(b"out", ("10.9.0.9", 5))
            out = 0
            while out < 5:
                with session.receive(timeout=10) as batch:
                    assert batch
                    out += sum(packet[0] == 0x45 and packet[9] == 17 for packet in batch)
            session.send([udp4(("10.9.0.9", 5), ("10.9.0.1", 4000), b"in%d" % i) for i in range(5)])
            print(out, [link.recv(100).decode() for _ in range(5)], session.stats().write_errors)
"""
EXCHANGED = "5 ['in0', 'in1', 'in2', 'in3', 'in4'] 0"


@pytest.fixture(scope="module")
def other_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("c") / "other_driver.so"
    compiler = os.environ.get("CC", "cc").split()
    options = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC"]
    source = Path(__file__).with_name("other_driver.c")
    subprocess.run([*compiler, *options, str(source), "-o", str(library), "-ldl"], check=True)
    return library


def run(
    namespace: Namespace, *command: str, mounts: str = "true", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in the namespace, with other mounts and variables."""
    shell = ["unshare", "--mount", "sh", "-c", f'{mounts} && exec env "$@"', "sh"]
    settings = [f"{name}={value}" for name, value in variables.items()]
    with namespace.entered():
        return subprocess.run(
            [*shell, *settings, *command], capture_output=True, text=True, check=False, timeout=60,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        )  # fmt: skip


def preload(library: Path) -> str:
    """A sanitizer has to come first."""
    return " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(library)]))


@pytest.mark.parametrize("known", [GVISOR, GVISOR & ~IFF_TUN_EXCL, MIN_FLAGS], ids=["gVisor", "no TUN_EXCL", "minimum"])
def test_fewer_flags(namespace: Namespace, other_driver: Path, known: int) -> None:
    done = run(
        namespace, sys.executable, "-W", "error", "-c", EXCHANGE,
        LD_PRELOAD=preload(other_driver), OTHER_DRIVER_FLAGS=hex(known),
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, EXCHANGED), done.stderr
    assert namespace.interfaces() == {"lo"}


def test_doctor_says_what_the_driver_lacks(namespace: Namespace, other_driver: Path) -> None:
    done = run(namespace, *COMMAND, "doctor", LD_PRELOAD=preload(other_driver), OTHER_DRIVER_FLAGS=hex(GVISOR))
    [row] = [line for line in done.stdout.splitlines() if "TUN driver" in line]
    assert done.returncode == 0, done.stderr
    assert row.startswith("warning")
    assert row.endswith("features: tun; missing: offloads, switching the link, several queues")
    assert "missing" not in run(namespace, *COMMAND, "doctor").stdout


CREATE = """
import tunring
try:
    tunring.Adapter.create("tun0")
except OSError as error:
    print(type(error).__name__, error.winerror, error)
"""


@pytest.mark.parametrize(
    ("failure", "name", "words", "others"),
    [
        (errno.EPERM, "AccessDenied 5 ", "device rules", "chmod"),
        (errno.EACCES, "AccessDenied 5 ", "chmod 0666", "device rules"),
        (errno.ENODEV, "NotFound 2 ", "modprobe tun", "device rules"),
    ],
    ids=["device rules", "mode", "no driver"],
)
def test_tun_may_not_be_opened(
    namespace: Namespace, other_driver: Path, failure: int, name: str, words: str, others: str
) -> None:
    """The exception, the doctor and the demo say the same."""
    variables = {"LD_PRELOAD": preload(other_driver), "OTHER_DRIVER_OPEN": str(failure)}
    done = run(namespace, sys.executable, "-W", "error", "-c", CREATE, **variables)
    assert done.stdout.startswith(name), done.stderr
    doctor = run(namespace, *COMMAND, "doctor", **variables)
    assert doctor.returncode == 1
    demo = run(namespace, *COMMAND, "demo", "--seconds", "0.1", **variables)
    assert demo.returncode == 0, demo.stderr
    for said in (done.stdout, doctor.stdout, demo.stdout):
        assert words in said
        assert others not in said
        assert os.strerror(failure) in said
        if failure == errno.EPERM:
            assert "--device /dev/net/tun" in said
            assert "devices.allow" in said


#: The address sanitizer itself reads /proc, and ends the program where there is none.
without_proc = pytest.mark.skipif(SANITIZED, reason="the address sanitizer needs /proc")

#: Neither /proc nor /sys, as in a chroot of a program's own.
BARE = "mount -t tmpfs none /sys && mount -t tmpfs none /proc"

KEEP_NET_ADMIN = """
import ctypes, struct
data = struct.pack("=6I", 1 << 12, 1 << 12, 0, 0, 0, 0)
assert ctypes.CDLL(None).capset(struct.pack("=Ii", 0x20080522, 0), data) == 0
"""


@without_proc
@pytest.mark.parametrize("privilege", ["", KEEP_NET_ADMIN], ids=["root", "CAP_NET_ADMIN"])
def test_without_proc_and_sys(namespace: Namespace, privilege: str) -> None:
    script = "import tunring\nassert tunring.is_elevated()\n" + EXCHANGE
    done = run(namespace, sys.executable, "-W", "error", "-c", privilege + script, mounts=BARE)
    assert (done.returncode, done.stdout.strip()) == (0, EXCHANGED), done.stderr


@without_proc
def test_not_elevated_without_proc(namespace: Namespace) -> None:
    script = """
    import os, tunring
    tunring.is_elevated()
    os.setresuid(65534, 65534, 65534)
    print(tunring.is_elevated())
    """
    done = run(namespace, sys.executable, "-W", "error", "-c", textwrap.dedent(script), mounts=BARE)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


@without_proc
def test_commands_without_proc_and_sys(namespace: Namespace) -> None:
    for command in (["doctor"], ["demo", "--seconds", "0.3"]):
        done = run(namespace, *COMMAND, *command, mounts=BARE)
        assert (done.returncode, done.stderr) == (0, "")
    assert "everything that was sent came back right" in done.stdout
    assert "tun_linux" in done.stdout


@without_proc
def test_elsewhere_without_proc(namespaces: tuple[Namespace, Namespace]) -> None:
    """An adapter is still configured in its own namespace when the caller has moved to another."""
    here, there = namespaces
    script = """
    import os, sys, tunring
    from tunring._system.namespace_linux import enter_network
    with tunring.Adapter.create("tun0") as adapter:
        enter_network(int(sys.argv[1]))
        print(*adapter.configure(["10.9.0.1/24"]).addresses)
    """
    with here.entered():
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", f'{BARE} && exec "$@"', "sh",
             sys.executable, "-W", "error", "-c", textwrap.dedent(script), str(there.fileno())],
            capture_output=True, text=True, check=False, timeout=60, pass_fds=[there.fileno()],
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "10.9.0.1/24\n"), done.stderr
