"""``tunring demo`` and ``tunring echo`` on real interfaces, and without the privilege."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from nobody import BECOME_NOBODY, NOBODY

from running import eventually
from tunring.cli.traffic_kernel import KernelTraffic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netns import Namespace

pytestmark = pytest.mark.root

COMMAND = [sys.executable, "-W", "error", "-m", "tunring"]

#: A process without capabilities. (As another user it might not be allowed to read where Python is.)
UNPRIVILEGED = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
#: /dev/net/tun is not there, for the command alone.
NO_TUN = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$0" "$@"']
#: /dev/net/tun is there for all users, as most systems have it, for the command alone.
TUN_FOR_ALL = [*NO_TUN[:-1], 'mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec "$0" "$@"']

AS_NOBODY = BECOME_NOBODY + "sys.exit(tunring.__main__.main(sys.argv[1:]))"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)


def interfaces() -> str:
    """Return the interfaces of the test's own namespace."""
    return run("ip", "-brief", "link").stdout


def demo(*arguments: str, prefix: list[str] | None = None) -> dict[str, Any]:
    """Run the demo, which must succeed, and return what it found."""
    done = run(*(prefix or []), *COMMAND, "demo", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def check_kernel_figures(result: dict[str, Any]) -> None:
    assert result["ok"] is True
    assert result["library"] == "tun_linux"
    assert result["fallback_reason"] is None
    assert result["lost"] == result["damaged"] == 0
    assert result["received"] == result["sent"] + result["unanswered"]
    for kind in ("ping", "udp", "tcp"):
        assert result[kind]["sent"] == result[kind]["returned"] > 0
    assert result["tcp"]["connections"] >= 2
    assert result["kernel"]["checksum_errors"] == 0
    # Pings and datagrams are a packet each, both ways; TCP has some of its own.
    assert result["sent"] > result["ping"]["sent"] + result["udp"]["sent"]
    assert 0 < result["ping"]["p50_us"] <= result["ping"]["p99_us"]


def test_demo() -> None:
    before = interfaces()
    check_kernel_figures(demo("--seconds", "1"))
    assert interfaces() == before


def test_demo_in_a_user_namespace() -> None:
    command = [*TUN_FOR_ALL, sys.executable, "-W", "error", "-c", AS_NOBODY, "demo", "--json", "--seconds", "0.5"]
    done = run(*command)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    if result["fallback_reason"] is None:
        check_kernel_figures(result)
    else:
        # The system doesn't allow it.
        with pytest.raises(subprocess.CalledProcessError):
            subprocess.check_call(["setpriv", "--reuid", str(NOBODY), "--clear-groups", "unshare", "-Un", "true"])


def test_demo_on_a_terminal() -> None:
    main, terminal = pty.openpty()
    with os.fdopen(main, "rb", buffering=0) as reader:
        with subprocess.Popen([*COMMAND, "demo", "--seconds", "1"], stdout=terminal) as process:
            os.close(terminal)
            shown = b""
            try:
                while piece := reader.read(4096):
                    shown += piece
            except OSError:
                pass  # the terminal's other end is closed
        assert process.returncode == 0
    text = shown.decode()
    assert len(re.findall(r"\r +[\d.]+ s   received +[\d,]+ packets/s", text)) >= 2, "the line isn't updated in place"
    assert "library  tun_linux" in text
    assert text.endswith("everything that was sent came back right\r\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_still_sums_up(number: signal.Signals) -> None:
    with subprocess.Popen([*COMMAND, "demo", "--seconds", "50"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if " s   received" in line:
                break
        process.send_signal(number)
        rest = process.stdout.read()
    assert process.returncode == 0
    assert rest.endswith("everything that was sent came back right\n")


def test_demo_without_privileges() -> None:
    result = demo("--seconds", "0.3", prefix=[*NO_TUN, *UNPRIVILEGED])
    assert result["ok"] is True
    assert result["library"] == "loopback"
    assert "CAP_SYS_ADMIN" in result["fallback_reason"]
    assert result["sent"] == result["received"] > 0
    assert result["lost"] == 0


def test_demo_without_tun() -> None:
    done = run(*NO_TUN, *COMMAND, "demo", "--seconds", "0.3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "no interface: " in done.stdout
    assert "/dev/net/tun" in done.stdout
    assert "a cable in memory" in done.stdout
    refused = run(*NO_TUN, *COMMAND, "demo", "--library", "tun_linux")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "/dev/net/tun" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_doctor_by_privilege() -> None:
    done = run(*COMMAND, "doctor", "--json")
    assert done.returncode == 0
    findings = {finding["topic"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert {finding["level"] for finding in findings.values()} == {"ok"}
    assert "vnet_hdr" in findings["TUN driver"]["text"]
    assert os.uname().release in findings["TUN driver"]["text"]

    done = run(*UNPRIVILEGED, *COMMAND, "doctor", "--json")
    findings = {finding["topic"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["privileges"]["level"] == "warning"
    assert "CAP_NET_ADMIN" in findings["privileges"]["advice"]

    done = run(*NO_TUN, *COMMAND, "doctor")
    assert (done.returncode, done.stderr) == (1, "")
    assert "problem  TUN driver" in done.stdout
    assert "modprobe tun" in done.stdout


# ---- echo


@contextmanager
def echo(namespace: Namespace, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run it, and wait until it serves; with its output until then."""
    with namespace.entered():
        process = subprocess.Popen(
            [*COMMAND, "echo", "tun0", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
        )
    with process:
        try:
            started = process.stderr if "--json" in arguments else process.stdout
            assert started is not None
            said = ""
            while "Ctrl-C ends" not in said:
                line = started.readline()
                assert line, "it ended"
                said += line
            assert eventually(lambda: "LOWER_UP" in namespace.flags("tun0"))
            yield process, said
        finally:
            process.kill()


def end(process: subprocess.Popen[str], number: int = signal.SIGINT) -> tuple[int, str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def exchange(namespace: Namespace, *hosts: str) -> None:
    """Pings, datagrams and TCP are answered."""
    with namespace.entered():
        traffic = KernelTraffic(list(hosts))
        for _ in range(3):
            traffic.round()
        traffic.close()
    assert traffic.tally.complete
    assert traffic.tally.connections == len(hosts)
    assert namespace.damage() == {}


def test_echo(namespace: Namespace) -> None:
    with echo(namespace) as (process, said):
        exchange(namespace, "10.77.0.2", "fd77::2", "10.77.0.99")
        code, out, err = end(process)
    assert (code, err) == (0, "")
    assert "interface tun0 is new\n" in said
    assert "try: ping 10.77.0.2\ntry: ping fd77::2\n" in said
    assert "0 lost; ping 9, udp 576, tcp " in out
    assert namespace.interfaces() == {"lo"}


def test_echo_of_large_pings(namespace: Namespace) -> None:
    with echo(namespace, "--mtu", "1300") as (process, _):
        for host in ("10.77.0.2", "fd77::2"):
            assert " 0% packet loss" in namespace.run("ping", "-c", "3", "-i", "0.01", "-s", "65000", host)
        assert end(process)[0] == 0
    assert namespace.damage() == {}


def test_echo_with_options(namespace: Namespace) -> None:
    with echo(namespace, "--address", "10.5.0.1/30", "--address", "fd05::1", "--mtu", "1300", "--json") as (
        process,
        said,
    ):
        exchange(namespace, "10.5.0.2")
        assert "mtu 1300" in namespace.ip("link show dev tun0")
        code, out, _ = end(process, signal.SIGTERM)
    result = json.loads(out)
    assert (code, result["answers"]["ping"], result["answers"]["udp"]) == (0, 3, 192)
    assert result["received"] == result["sent"] + result["unanswered"]
    assert (result["lost"], result["created"], result["adapter"]) == (0, True, "tun0")
    assert "fd05" not in said, "there is nobody else in a /128"
    assert namespace.interfaces() == {"lo"}


def test_echo_with_ipv6_switched_off(namespace: Namespace) -> None:
    namespace.write_sysctl("net/ipv6/conf/default/disable_ipv6", "1")
    with echo(namespace) as (process, said):
        exchange(namespace, "10.77.0.2")
        code, _, err = end(process)
    assert (code, err) == (0, "")
    assert "10.77.0.2" in said
    assert "fd77" not in said


def test_echo_on_a_persistent_interface(namespace: Namespace) -> None:
    namespace.ip("tuntap add dev tun0 mode tun")
    namespace.set_up("tun0", "10.5.0.1/24")
    with echo(namespace, "--json") as (process, said):
        exchange(namespace, "10.5.0.2")
        # Its configuration is the administrator's.
        assert "10.77" not in namespace.ip("address show dev tun0")
        with namespace.entered():
            second = run(*COMMAND, "echo", "tun0")
        assert (second.returncode, second.stdout) == (1, "")
        assert second.stderr == (
            "tunring: adapter 'tun0' is in use: another program has it; end that one, or choose another name\n"
        )
        code, out, err = end(process)
    assert (code, err) == (0, "")
    assert json.loads(out)["created"] is False
    assert "interface tun0 exists already\n" in said
    assert namespace.interfaces() == {"lo", "tun0"}


def test_echo_ends_with_its_interface(namespace: Namespace) -> None:
    with echo(namespace) as (process, _):
        namespace.ip("link del tun0")
        out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "0 lost" in out
    assert err == "tunring: the interface tun0 was removed\n"


@pytest.mark.parametrize(
    ("name", "reason"), [("lo", "not a TUN interface"), ("a/b", "'/'"), ("sixteen-letters-", "15 bytes")]
)
def test_echo_refuses(namespace: Namespace, name: str, reason: str) -> None:
    with namespace.entered():
        done = run(*COMMAND, "echo", name)
    assert (done.returncode, done.stdout) == (1, "")
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert namespace.interfaces() == {"lo"}


def test_echo_without_the_privilege(namespace: Namespace) -> None:
    with namespace.entered():
        done = run(*UNPRIVILEGED, *COMMAND, "echo", "tun0")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("tunring: can't create adapter 'tun0': access denied")
    assert "CAP_NET_ADMIN" in done.stderr
