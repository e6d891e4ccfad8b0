"""``python -m tunring``: its output, where that goes, and its exit codes."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from typing import Any

import pytest

import tunring
from running import check_script
from tunring.__main__ import main
from tunring.cli import demo, doctor
from tunring.cli.display import CountedFlow, Limit, PlainDisplay, Rates
from tunring.cli.report import exit_code_of
from tunring.cli.traffic import Count, Tally
from tunring.cli.traffic_cable import CableTraffic
from tunring.configuration._checks import check_mtu
from tunring.configuration._request import check_addresses
from tunring.testing.responder import Responder


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "tunring", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"tunring {tunring.__version__}\n", "")


def test_without_a_command_it_shows_its_help() -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run("--help").stdout
    assert done.stdout.startswith("usage: tunring")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["demo", "--seconds", "0"],
        ["demo", "--seconds", "nan"],
        ["demo", "--seconds", "soon"],
        ["demo", "--library", "nonsense"],
        ["echo"],
        ["echo", "tun0", "--address", "10.0.0.1/33"],
        ["echo", "tun0", "--mtu", "67"],
        ["echo", "tun0", "--mtu", "large"],
        ["doctor", "tun0"],
        ["bridge", "tun0"],
        ["bridge", "tun0", "tun0"],
        ["bridge", "tun0", "tun1", "--count", "0"],
        ["bridge", "tun0", "tun1", "--duration", "-1"],
        ["bridge", "tun0", "tun1", "--snaplen", "65536"],
        ["bridge", "tun0", "tun1", "--display", "nonsense"],
        ["bridge", "tun0", "tun1", "--json", "-w", "-"],
        ["bench", "--seconds", "0"],
        ["bench", "--library", "nonsense"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: tunring")


def check_figures(result: dict[str, Any]) -> None:
    """Check that every packet came back."""
    assert result["ok"] is True
    assert result["lost"] == result["damaged"] == 0
    assert result["received"] == result["sent"] + result["unanswered"] > 0
    for kind in ("ping", "udp", "tcp"):
        assert result[kind]["sent"] == result[kind]["returned"]
    assert result["ping"]["sent"] > 0
    assert result["udp"]["sent"] > 0
    assert 0 < result["ping"]["p50_us"] <= result["ping"]["p99_us"]


def test_demo_over_the_cable_as_json() -> None:
    done = run("demo", "--library", "loopback", "--seconds", "0.3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    check_figures(result)
    assert result["library"] == "loopback"
    assert result["version"] == tunring.__version__
    assert result["received"] == result["sent"] == result["ping"]["sent"] + result["udp"]["sent"]
    assert result["kernel"] is None
    assert 0.3 <= result["seconds"] < 10


def test_demo_over_the_cable_as_text() -> None:
    done = run("demo", "--library", "loopback", "--seconds", "1.3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"tunring {tunring.__version__} over loopback ")
    assert any("packets/s" in line and " s   received" in line for line in lines), "no live rates"
    assert any(line.startswith("packets ") and " 0 lost" in line for line in lines)
    assert any(line.startswith("ping ") and "p50" in line and "p99" in line for line in lines)
    assert lines[-1] == "everything that was sent came back right"


def test_names_that_the_output_has_no_characters_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    script = """
from tunring.__main__ import main
from tunring.cli.report import say
assert main(["demo", "--library", "loopback", "--seconds", "0.1"]) == 0
say("interface \u6f0f\u6597")
"""
    assert check_script(script).splitlines()[-1] == r"interface \u6f0f\u6597"


class _Forgetful(Responder):
    def answer(self, packets: Any) -> int:
        answered = super().answer(packets)
        if len(packets) > 1:
            packets[0][0] = 0
        return answered


class _Careless(Responder):
    def answer(self, packets: Any) -> int:
        answered = super().answer(packets)
        packets[0][-1] ^= 1
        return answered


@pytest.mark.parametrize("responder", [_Forgetful, _Careless])
def test_demo_fails_if_something_is_wrong(
    responder: type[Responder], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "Responder", responder)
    monkeypatch.setattr("tunring.cli.traffic_cable.TIMEOUT", 0.1)
    assert main(["demo", "--library", "loopback", "--seconds", "0.1", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] is False
    assert result["lost"] > 0 or result["damaged"] > 0


def test_demo_tells_what_failed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(self: CableTraffic) -> None:
        raise OSError(5, "the cable\nis cut")

    monkeypatch.setattr(CableTraffic, "round", fail)
    assert main(["demo", "--library", "loopback", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"ok": False, "error": "the cable: is cut"}
    assert err == "tunring: the cable: is cut\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [(OSError(5, "it"), 1), (PermissionError(1, "it"), 3), (ValueError("it"), 1), (ImportError("it"), 1)],
)
def test_exit_codes(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise error

    assert exit_code_of(fail) == code
    assert capsys.readouterr() == ("", "tunring: it\n")
    assert exit_code_of(fail, as_json=True) == code
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == ({"ok": False, "error": "it"}, "tunring: it\n")


def test_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    assert exit_code_of(interrupt) == 130
    assert capsys.readouterr().err == "tunring: interrupted\n"


def test_bench() -> None:
    done = run("bench", "--library", "loopback", "--seconds", "0.4", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert {(each["what"], each["size"]) for each in result["measured"]} == {
        (what, size)
        for what in ("send a list", "send a buffer", "receive", "receive, view each")
        for size in (64, 1400)
    }
    for each in result["measured"]:
        assert each["ns_per_packet"] * each["packets_per_second"] == pytest.approx(1e9, rel=0.02)
    text = run("bench", "--library", "loopback", "--seconds", "0.1")
    assert (text.returncode, text.stderr) == (0, "")
    assert len(text.stdout.splitlines()) == 11


def test_rates_and_limits() -> None:
    flow = CountedFlow("a > b", 1000)
    rates = Rates(flow)
    flow.count(10, 250)
    flow.count(30, 500)
    rates.look(rates._last + 2)
    assert (rates.packets, rates.megabits, rates.batch, rates.fill) == (20, pytest.approx(0.003), 20, 0.5)
    rates.look(rates._last + 2)
    assert (rates.packets, rates.megabits, rates.batch, rates.fill) == (0, 0, 0, 0)
    assert Limit().progress([flow], 5) is Limit().reached([flow], 5) is None
    limit = Limit(packets=80, seconds=10)
    assert limit.progress([flow], 2) == 0.5
    assert limit.progress([flow], 20) == 1
    assert limit.reached([flow], 2) is None
    assert limit.reached([flow, flow], 2) == "count"
    assert limit.reached([flow], 10) == "duration"


class Terminal(io.StringIO):
    """A terminal of a given width, and its screen."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError(9, "no descriptor")

    def lines(self, columns: int) -> list[str]:
        lines, row, at = [""], 0, 0
        for piece in re.findall(r"\x1b\[[?\d;]*[a-zA-Z]|.", self.getvalue(), re.DOTALL):
            if piece == "\x1b[1A":
                row -= 1
            elif piece == "\x1b[2K":
                lines[row] = ""
            elif piece[0] == "\x1b":
                assert piece[-1] in "mhl"  # colours, and whether there is a cursor
            elif piece == "\r":
                at = 0
            elif piece == "\n" or at == columns:
                row, at = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            if piece >= " ":
                lines[row] = lines[row][:at].ljust(at) + piece + lines[row][at + 1 :]
                at += 1
        return [line.rstrip() for line in lines]


@pytest.mark.parametrize("columns", [200, 100, 80, 60, 40, 20])
@pytest.mark.parametrize("seconds", [None, 50.0])
def test_a_line_is_redrawn_in_its_place(columns: int, seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The display fits at every width, with any figures, and with the "^C" that a terminal shows."""
    monkeypatch.setenv("COLUMNS", str(columns))
    began = now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    terminal = Terminal()
    flows = [CountedFlow("received", 1 << 22), CountedFlow("sent", 1 << 22)]
    display = PlainDisplay(flows, Limit(seconds=seconds), terminal)
    print("before", file=terminal)
    for packets in (0, 5, 1234567, 3, 98765432):
        for flow in flows:
            flow.count(packets, packets * 1000)
        now += 1.0
        display.update()
        _, line, *others = terminal.lines(columns)
        assert not others
        # A column stays free for the cursor, and two for "^C".
        assert len(line) <= columns - 3
        assert line.lstrip().startswith(f"{now - began:.1f} s")
        if columns >= 60:
            assert re.search(rf"received +{packets:,}( packets)?/s.* sent +{packets:,}( packets)?/s", line)
            assert ("%" in line) == (seconds is not None or columns == 200)
    terminal.write("^C")
    assert terminal.lines(columns)[1].endswith("^C")
    display.end()
    print("after", file=terminal)
    assert terminal.lines(columns) == ["before", line, "after", ""]


@pytest.mark.parametrize("columns", [100, 80, 60, 40])
def test_a_table_is_redrawn_in_its_place(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunring.cli.display_rich import RichDisplay

    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    terminal = Terminal()
    print("before", file=terminal)
    flows = [CountedFlow("tunA > tunB", 1 << 22), CountedFlow("tunB > tunA", 1 << 22)]
    display = RichDisplay(flows, Limit(seconds=50.0), terminal)
    for rates in display._rates:
        rates._last = now  # they had looked at the other clock
    for _ in range(3):
        for flow in flows:
            flow.count(1234567, 1 << 22)
        now += 1.0
        display.update()
        before, *table = terminal.lines(columns)
        assert (before, len(table)) == ("before", 4)
        assert all("1,234,567" in line for line in table[1:3])
    terminal.write("^C")
    display.end()
    print("after", file=terminal)
    lines = terminal.lines(columns)
    assert [line.removesuffix("^C").rstrip() for line in lines] == ["before", *table, "after", ""]


def test_tally() -> None:
    assert not Tally().complete
    tally = Tally(pings=Count(2, 2), round_trips=[3000, 1000])
    assert tally.complete
    assert (tally.round_trip(50), tally.round_trip(99)) == (3.0, 3.0)
    assert not Tally(pings=Count(2, 2), damaged=1).complete
    assert not Tally(pings=Count(2, 2), tcp_bytes=Count(2, 1)).complete


def test_doctor() -> None:
    done = run("doctor", "--json")
    result = json.loads(done.stdout)
    assert done.stderr == ""
    findings = result["findings"]
    assert result["ok"] is all(finding["level"] != "problem" for finding in findings)
    assert done.returncode == (0 if result["ok"] else 1)
    assert {"tunring", "default library", "loopback"} <= {finding["topic"] for finding in findings}
    for finding in findings:
        assert finding["level"] in ("ok", "warning", "problem")
        assert finding["text"]
    text = run("doctor")
    assert text.returncode == done.returncode
    assert all(finding["text"] in text.stdout for finding in findings)


def test_doctor_without_the_default_library(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(which: str | None) -> tunring.Library:
        if which is None:
            raise tunring.LibraryNotFound(126, "no library 'it'; looked for: here")
        return tunring.load(which)

    monkeypatch.setattr(doctor, "load", load)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "problem  default library  no library 'it'; looked for: here" in out
    assert "install" in out or "put the official" in out or "only loopback" in out


# ---- What is checked before an adapter is configured


@pytest.mark.parametrize("address", ["", "x", "10.0.0.1/33", "fd00::1/129", "10.0.0", "10.0.0.1/24/24"])
def test_no_addresses(address: str) -> None:
    with pytest.raises(ValueError, match=r"an address must look like .*10\.6\.7\.7/24"):
        check_addresses([address])


@pytest.mark.parametrize(
    "address", ["224.0.0.1", "ff02::1/64", "0.0.0.0/0", "::/0", "255.255.255.255", "fe80::1%eth0/64"]
)
def test_addresses_that_no_host_can_have(address: str) -> None:
    with pytest.raises(ValueError, match="only addresses that one host can have"):
        check_addresses([address])


@pytest.mark.parametrize("addresses", ["10.0.0.1", b"10.0.0.1", [1], [None], [b"10.0.0.1"], 1])
def test_addresses_of_the_wrong_type(addresses: Any) -> None:
    with pytest.raises(TypeError):
        check_addresses(addresses)


def test_addresses() -> None:
    checked = check_addresses(["10.0.0.1", "fd00::1", "10.0.0.7/24", "10.0.0.1/32"])
    assert [str(address) for address in checked] == ["10.0.0.1/32", "fd00::1/128", "10.0.0.7/24"]
    assert check_addresses([address.local for address in checked]) == checked


def test_mtu() -> None:
    assert [check_mtu(mtu, with_ipv6=False) for mtu in (68, 65535)] == [68, 65535]
    assert check_mtu(1280, with_ipv6=True) == 1280
    for mtu, with_ipv6 in ((67, False), (65536, False), (1279, True), (-1, False)):
        with pytest.raises(ValueError, match=rf"to 65535 bytes.*not {mtu}"):
            check_mtu(mtu, with_ipv6=with_ipv6)
    with pytest.raises(TypeError):
        check_mtu(1420.0, with_ipv6=False)  # type: ignore[arg-type]


@pytest.mark.ours_only(reason="an adapter of the official DLL is one that the system can configure")
def test_a_cable_end_cannot_be_configured(adapter: tunring.Adapter) -> None:
    with pytest.raises(NotImplementedError, match="of loopback can't be configured"):
        adapter.configure(["10.0.0.1/24"])
    with pytest.raises(ValueError):
        adapter.configure(["10.0.0.1/24"], 67)
