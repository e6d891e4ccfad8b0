"""``tunring bridge`` between two hosts, its captures as tshark reads them, and how it and the other commands end."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from readers import LIBRARIES, tcpdump
from tshark import fields, in_order_of_time, tshark

from pcapng_reader import read
from running import NEVER, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netns import Namespace

pytestmark = pytest.mark.root

COMMAND = [sys.executable, "-W", "error", "-m", "tunring"]

#: The same without the extra "cli".
WITHOUT_RICH = [
    *(sys.executable, "-W", "error", "-c"),
    "import sys; sys.modules['rich'] = None; from tunring.__main__ import main; sys.exit(main())",
]

Pair = tuple["Namespace", "Namespace"]


def set_up_sides(process: subprocess.Popen[Any], namespaces: Pair) -> str:
    """Moves tunB and gives both sides addresses, once the bridge is there. Returns what it printed until then."""
    near, far = namespaces
    said = ""
    assert process.stderr
    while "Ctrl-C ends" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line if isinstance(line, str) else line.decode()
    near.ip(f"link set tunB netns /proc/{os.getpid()}/fd/{far.fileno()}")
    for number, (name, namespace) in enumerate(zip(("tunA", "tunB"), namespaces, strict=True), 1):
        namespace.ip(f"link set {name} txqueuelen 10000")
        namespace.set_up(name, f"10.9.0.{number}/24", f"fd09::{number}/64")
    return said


class Bridge:
    """A bridge between tunA, in the first namespace, and tunB, which is moved to the second."""

    def __init__(self, namespaces: Pair, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        near, _ = namespaces
        self._near = near
        with near.entered():
            self.process = subprocess.Popen(
                [*prefix, *COMMAND, "bridge", "tunA", "tunB", "--json", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        self.said = set_up_sides(self.process, namespaces)

    def end(self, number: int = signal.SIGINT) -> tuple[int, dict[str, Any], str]:
        """Its exit code, its figures, and its last output."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, dict[str, Any], str]:
        out, err = self.process.communicate(timeout=NEVER)
        return self.process.returncode, json.loads(out), err


@contextmanager
def bridge(namespaces: Pair, *arguments: str, prefix: tuple[str, ...] = ()) -> Iterator[Bridge]:
    made = Bridge(namespaces, *arguments, prefix=prefix)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


def run(namespace: Namespace, *arguments: str, command: list[str] = COMMAND) -> subprocess.CompletedProcess[str]:
    with namespace.entered():
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)


def ping(namespace: Namespace, host: str, count: int = 20) -> None:
    assert " 0% packet loss" in namespace.run("ping", "-q", "-c", str(count), "-i", "0.01", host)


# ---- Forwarding


def test_bridge(namespaces: Pair, tmp_path: Path) -> None:
    near, far = namespaces
    path = tmp_path / "bridge.pcapng"
    with bridge(namespaces, "-w", str(path), "--mtu", "1400") as running:
        ping(near, "10.9.0.2")
        ping(far, "fd09::1")
        with far.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
            server.bind(("10.9.0.2", 0))
            server.listen()
            with near.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.connect(server.getsockname())
                peer, _ = server.accept()
                with peer:
                    sender = threading.Thread(target=client.sendall, args=(bytes(1_000_000),))
                    sender.start()
                    received = 0
                    while received < 1_000_000:
                        received += len(peer.recv(1 << 16))
                    sender.join()
        code, result, err = running.end()
    assert (code, err) == (0, "")
    assert near.damage() == far.damage() == {}
    assert near.interfaces() == far.interfaces() == {"lo"}
    left, right = result["adapters"]
    assert (left["name"], right["name"], left["created"], right["created"]) == ("tunA", "tunB", True, True)
    assert (left["sent"], right["sent"]) == (right["received"], left["received"])
    assert result["ok"] is True
    assert result["ended_by"] == "interrupt"
    assert result["packets"] == left["received"] + right["received"] == result["capture"]["packets"]
    assert result["bytes"] == left["received_bytes"] + right["received_bytes"]
    assert (result["capture"]["dropped"], result["capture"]["error"]) == (0, None)
    got = fields(path, "frame.interface_name", "frame.packet_flags_direction", "frame.len")
    assert len(got) == result["packets"]
    directions = [int(direction, 16) for _, direction, _ in got]
    assert (directions.count(1), directions.count(2)) == (left["received"], right["received"])
    assert {name for name, _, _ in got} == {"tunA"}
    assert sum(int(length) for _, _, length in got) == result["bytes"]
    assert len(tshark(path, "-Y", "icmp.type == 8")) == len(tshark(path, "-Y", "icmp.type == 0")) == 20
    assert len(tshark(path, "-Y", "icmpv6.type == 128")) == len(tshark(path, "-Y", "icmpv6.type == 129")) == 20
    assert tshark(in_order_of_time(path), "-Y", "_ws.malformed || tcp.analysis.ack_lost_segment") == []
    assert [interface.options[3] for interface in read(path).interfaces] == [b"bridge to tunB, MTU 1400"]
    # Other programs read it, too: whole packets, in the same order.
    written = read(path).data
    assert len(tcpdump(path)) == len(written) == result["packets"]
    for by_library in LIBRARIES:
        assert by_library(path.read_bytes()) == written, by_library


def stream(namespaces: Pair) -> int:
    """Let iperf3 send datagrams for three seconds; how many, all of which came."""
    near, far = namespaces
    iperf3 = shutil.which("iperf3")
    assert iperf3, "iperf3 is not installed"
    with far.entered():
        server = subprocess.Popen([iperf3, "-s", "-1", "--forceflush"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        while "listening" not in server.stdout.readline():
            assert server.poll() is None
        arguments = ["-u", "-b", "150M", "-l", "1400", "-t", "3", "-w", "200K", "-J"]
        said = json.loads(near.run(iperf3, "-c", "10.9.0.2", *arguments))
        server.communicate(timeout=NEVER)
    finally:
        server.kill()
        server.communicate()
    return int(said["end"]["sum"]["packets"])


def dropped(namespace: Namespace, name: str) -> int:
    """Return the number of packets that the interface has lost, both ways."""
    with namespace.entered():
        said = json.loads(subprocess.check_output(["env", "-u", "LD_PRELOAD", "ip", "-j", "-s", "link", "show", name]))
    both = (said[0]["stats64"][way] for way in ("rx", "tx"))
    return sum(way["dropped"] + way["errors"] + way.get("over_errors", 0) for way in both)


def test_a_capture_keeps_up(namespaces: Pair, tmp_path: Path) -> None:
    """A capture drops nothing at a rate at which nothing is dropped without one, and has every packet."""
    near, far = namespaces
    path = tmp_path / "stream.pcapng"
    for arguments in ((), ("-w", str(path))):
        with bridge(namespaces, *arguments) as running:
            sent = stream(namespaces)
            assert (dropped(near, "tunA"), dropped(far, "tunB")) == (0, 0), arguments
            code, result, err = running.end()
        assert (code, err, result["lost"]) == (0, "", 0)
        # Besides the datagrams, the two ends of iperf3 talk by TCP.
        assert result["packets"] > sent > 20_000
    assert result["capture"] == {"file": str(path), "packets": result["packets"], "dropped": 0, "error": None}
    assert len(tshark(path)) == result["packets"]
    # A datagram of four bytes opens the stream, and one answers it.
    assert len(tshark(path, "-Y", "udp && frame.len == 1428")) == sent


def test_a_capture_to_a_pipe(namespaces: Pair, tmp_path: Path) -> None:
    near, _ = namespaces
    path = tmp_path / "piped.pcapng"
    with near.entered(), path.open("wb") as file:
        process = subprocess.Popen(
            f"{' '.join(map(repr, COMMAND))} bridge tunA tunB -w - --duration 1 | cat",
            shell=True,
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
        )
    _, err = process.communicate(timeout=NEVER)
    assert process.returncode == 0
    found = re.search(r"captured ([\d,]+) packets, 0 dropped", err)
    assert found, err
    assert len(tshark(path)) == int(found[1].replace(",", ""))


def test_tcpdump_reads_along(namespaces: Pair) -> None:
    """The packets of both sides, as they come."""
    near, _ = namespaces
    reader = ["env", "-u", "LD_PRELOAD", "tcpdump", "-Z", "root", "-n", "-l", "-r", "-", "icmp"]
    with near.entered():
        bridging = subprocess.Popen(
            [*COMMAND, "bridge", "tunA", "tunB", "-w", "-", "--display", "none"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        reading = subprocess.Popen(
            reader, stdin=bridging.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    try:
        set_up_sides(bridging, namespaces)
        ping(near, "10.9.0.2")
        assert reading.stdout
        lines = [reading.stdout.readline() for _ in range(40)]
        bridging.send_signal(signal.SIGINT)
        _, err = reading.communicate(timeout=NEVER)
    finally:
        for process in (bridging, reading):
            process.kill()
            process.communicate()
    assert (bridging.returncode, reading.returncode) == (0, 0), err
    assert sum("10.9.0.1 > 10.9.0.2: ICMP echo request" in line for line in lines) == 20
    assert sum("10.9.0.2 > 10.9.0.1: ICMP echo reply" in line for line in lines) == 20


def test_its_own_ends(namespaces: Pair, tmp_path: Path) -> None:
    near, _ = namespaces
    with bridge(namespaces, "--count", "30") as running:
        ping(near, "10.9.0.2", 10)
        with near.entered():
            pinging = subprocess.Popen(["ping", "-q", "-i", "0.01", "10.9.0.2"], stdout=subprocess.DEVNULL)
        code, result, err = running.wait()
        pinging.kill()
        pinging.wait()
    assert (code, err, result["ended_by"]) == (0, "", "count")
    assert 30 <= result["packets"] < 60
    done = run(near, "bridge", "tunA", "tunB", "--duration", "0.5")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ended by duration" in done.stdout
    assert near.interfaces() == {"lo"}


def test_persistent_interfaces(namespace: Namespace) -> None:
    for name in ("tunA", "tunB"):
        namespace.ip(f"tuntap add dev {name} mode tun")
    done = run(namespace, "bridge", "tunA", "tunB", "--duration", "0.3", "--json")
    assert done.returncode == 0
    assert "tunA (existing) and tunB (existing)" in done.stderr
    assert [side["created"] for side in json.loads(done.stdout)["adapters"]] == [False, False]
    assert namespace.interfaces() == {"lo", "tunA", "tunB"}


# ---- Bad days


@pytest.mark.parametrize("name", ["tunA", "tunB"])
def test_an_interface_of_another_program(namespaces: Pair, name: str, tmp_path: Path) -> None:
    near, far = namespaces
    path = tmp_path / "busy.pcapng"
    with bridge(namespaces):
        where = near if name == "tunA" else far
        before = where.interfaces()
        done = run(where, "bridge", *(("tunC", name) if name == "tunA" else (name, "tunC")), "-w", str(path), "--json")
        message = f"adapter '{name}' is in use: another program has it; end that one, or choose another name"
        assert (done.returncode, done.stderr) == (1, f"tunring: {message}\n")
        assert json.loads(done.stdout) == {"ok": False, "error": message}
        assert where.interfaces() == before
        assert not path.exists()


def test_a_file_that_is_there(namespace: Namespace, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_bytes(b"precious")
    done = run(namespace, "bridge", "tunA", "tunB", "-w", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"tunring: {path}: exists already; --overwrite replaces it\n"
    assert path.read_bytes() == b"precious"
    assert namespace.interfaces() == {"lo"}
    done = run(namespace, "bridge", "tunA", "tunB", "-w", str(path), "--overwrite", "--duration", "0.1")
    assert done.returncode == 0
    read(path)


def test_a_full_disk(namespaces: Pair, tmp_path: Path) -> None:
    """The capture ends with its last whole packet, the bridge goes on, and the exit code reports the failure."""
    near, _ = namespaces
    path = tmp_path / "full.pcapng"
    with bridge(namespaces, "-w", str(path), prefix=("prlimit", "--fsize=5000")) as running:
        ping(near, "10.9.0.2", 50)
        assert running.process.stderr
        reason = os.strerror(errno.EFBIG)
        assert running.process.stderr.readline() == f"tunring: the capture is over: {path}: {reason}\n"
        ping(near, "10.9.0.2", 10)
        code, result, err = running.end()
    assert (code, err) == (1, "")
    assert result["ok"] is False
    assert result["lost"] == 0
    capture = result["capture"]
    assert reason in capture["error"]
    assert capture["packets"] + capture["dropped"] == result["packets"] >= 120
    assert len(read(path).packets) == capture["packets"] == len(tshark(path)) > 10


@pytest.mark.parametrize("name", ["tunA", "tunB"])
def test_an_interface_is_removed(namespaces: Pair, tmp_path: Path, name: str) -> None:
    near, far = namespaces
    path = tmp_path / "gone.pcapng"
    with bridge(namespaces, "-w", str(path)) as running:
        ping(near, "10.9.0.2", 5)
        (near if name == "tunA" else far).ip(f"link del {name}")
        code, result, err = running.wait()
    assert (code, result["ok"]) == (1, False)
    assert err == f"tunring: ended by removal of the interface {name}\n"
    assert near.interfaces() == far.interfaces() == {"lo"}
    assert len(tshark(path)) == result["capture"]["packets"] >= 10


def test_without_the_privilege(namespace: Namespace) -> None:
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *COMMAND]
    done = run(namespace, "bridge", "tunA", "tunB", "--json", command=command)
    assert done.returncode == 3
    assert "CAP_NET_ADMIN" in json.loads(done.stdout)["error"]


# ---- Ctrl-C


@pytest.mark.parametrize(
    ("number", "arguments", "sign", "code"),
    [
        (signal.SIGINT, ["bridge", "tunA", "tunB"], "Ctrl-C ends", 0),
        (signal.SIGTERM, ["bridge", "tunA", "tunB"], "Ctrl-C ends", 0),
        (signal.SIGINT, ["echo", "tunA"], "Ctrl-C ends", 0),
        (signal.SIGTERM, ["echo", "tunA"], "Ctrl-C ends", 0),
        (signal.SIGINT, ["demo", "--seconds", "60"], " s   received", 0),
        (signal.SIGTERM, ["demo", "--seconds", "60"], " s   received", 0),
        (signal.SIGINT, ["bench", "--seconds", "4"], "os.read", 130),
        (signal.SIGTERM, ["bench", "--seconds", "4"], "os.read", 143),
    ],
)
def test_interrupted_commands_leave_nothing(
    namespace: Namespace, number: signal.Signals, arguments: list[str], sign: str, code: int
) -> None:
    with namespace.entered():
        process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert any(sign in line for line in process.stdout), "it has ended"
        process.send_signal(number)
        _, err = process.communicate(timeout=NEVER)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == code
    assert err == ("tunring: interrupted\n" if code == 130 else "")
    assert namespace.interfaces() == {"lo"}


@pytest.mark.parametrize("after", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
def test_interrupted_while_it_begins(namespace: Namespace, tmp_path: Path, after: float) -> None:
    """Whenever Ctrl-C comes, no interface is left."""
    with namespace.entered():
        process = subprocess.Popen(
            [*COMMAND, "bridge", "tunA", "tunB", "-w", str(tmp_path / "file")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        threading.Event().wait(after)
        process.send_signal(signal.SIGINT)
        process.wait(NEVER)
    finally:
        process.kill()
        process.wait()
    assert eventually(lambda: namespace.interfaces() == {"lo"})


# ---- The display


def on_a_terminal(namespace: Namespace, command: list[str], *arguments: str) -> str:
    """Return the display on a terminal of 200 columns while pings pass."""
    main, terminal = pty.openpty()
    environment = os.environ | {"COLUMNS": "200", "TERM": "xterm"}
    with namespace.entered():
        process = subprocess.Popen(
            [*command, "bridge", "tunA", "tunB", "--duration", "1.5", *arguments],
            stdout=terminal,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
    os.close(terminal)
    shown = b""
    with os.fdopen(main, "rb", buffering=0) as reader:
        try:
            while piece := reader.read(4096):
                shown += piece
        except OSError as error:
            assert error.errno == errno.EIO  # the terminal's other end is closed
    _, err = process.communicate(timeout=NEVER)
    assert (process.returncode, err) == (0, "")
    return shown.decode()


def test_by_rich(namespace: Namespace) -> None:
    for arguments in ((), ("--display", "rich")):
        text = on_a_terminal(namespace, COMMAND, *arguments)
        assert "tunA > tunB" in text
        assert "━" in text, "no bars"
        assert text.count("packets/s") > 2, "it isn't live"
        assert "%" in text


def test_without_rich(namespace: Namespace) -> None:
    text = on_a_terminal(namespace, WITHOUT_RICH)
    assert re.search(r"\r +[\d.]+ s  \[#+ *\] +\d+%   tunA > tunB +[\d,]+ packets/s", text)
    assert text.count("\r   ") > 2, "it isn't live"
    assert "━" not in text
    done = run(namespace, "bridge", "tunA", "tunB", "--display", "rich", command=WITHOUT_RICH)
    assert done.returncode == 1
    assert done.stderr == "tunring: the live display needs rich: pip install rich\n"
    assert namespace.interfaces() == {"lo"}


def test_no_display(namespace: Namespace) -> None:
    text = on_a_terminal(namespace, COMMAND, "--display", "none")
    assert text.count("packets/s") == 1, "more than the summary"
    assert len(text.splitlines()) == 5
