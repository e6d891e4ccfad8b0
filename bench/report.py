"""Measure everything, and write the tables of bench/README.md and its plots.

    python bench/report.py [--turns N] [--only PART ...] [--again]

The parts are ring, receive, send, tcp, echo, tunnel, wireguard, server, udp, aead, routes, scaling and, only if named,
dll: tests/wine/run --bench, which installs Wine. A part that isn't measured keeps the figures of the last run, those of
bench/figures.json. With --again nothing is measured, and all is written from there. All of it takes 35 minutes, and
wants root for the parts with the kernel. Peers that can't be built here are left out, and named.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aead
import goals
import ring
import routes
import scaling
import server
import tun
import tunnel
import udp
from goals import Figures
from netns import may_make_namespaces
from programs import NAMES, available
from turns import Turns

import wireguard

if TYPE_CHECKING:
    from collections.abc import Callable

BENCH = Path(__file__).resolve().parent
FIGURES, README, PLOTS = BENCH / "figures.json", BENCH / "README.md", BENCH / "plots"
BEGIN, END = "<!-- written by report.py: begin -->", "<!-- written by report.py: end -->"


# ---- Measuring ----


def cpuinfo(name: str) -> str:
    """The first processor's value of this name in /proc/cpuinfo; empty if it has none."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def processor() -> str:
    """The model, and what ciphers make most of, as a virtual machine's model may say nothing of it."""
    model = cpuinfo("model name") or platform.processor()
    return f"{model} with AVX-512 and VAES" if {"avx512f", "vaes"} <= {*cpuinfo("flags").split()} else model


def machine() -> str:
    compiler = subprocess.run(["cc", "-dumpfullversion"], capture_output=True, text=True, check=False).stdout.strip()
    release = platform.release().partition("-")[0]  # a distribution's or a machine's own ending says nothing
    return (
        f"{len(os.sched_getaffinity(0))} processors ({processor()}), Linux {release}, "
        f"Python {platform.python_version()}, gcc {compiler}"
    )


def measure_ring(turns: int) -> Figures:
    found: Figures = {}
    for size in ring.SIZES:
        for what, result in ring.ring_turns(size, ring.BATCH, turns=turns).items():
            found[f"ring {what} {size}"] = result.taken
    return found


def measure_receive(turns: int) -> Figures:
    peers = list(available()[0])
    found: Figures = {}
    for size in (64, 1400):
        for gso in (True, False):
            # Without superpackets it matters whether a session is made for them.
            names = [name for name in peers if not gso or name != "tunring-plain"]
            for live in (False, True):
                kind = f"{'GSO' if gso else 'datagrams'} {'live' if live else 'drained'}"
                found[f"receive {size} {kind}"] = tun.receive(names, size, gso=gso, live=live, turns=turns).taken
    return found


def senders() -> list[str]:
    return [name for name in available()[0] if name not in ("tunring-views", "tunring-plain")]


def measure_send(turns: int) -> Figures:
    return {
        f"send {size} {into}": tun.send(senders(), size, into=into, turns=turns).taken
        for size in (64, 1400)
        for into in ("udp", "nft")
    }


def measure_tcp(turns: int) -> Figures:
    return {"tcp": tun.tcp(senders(), turns=turns).taken}


def measure_echo(turns: int) -> Figures:
    return {f"echo {kind}": result.taken for kind, result in tun.echo(senders(), turns=turns).items()}


def measure_tunnel(turns: int) -> Figures:
    sides = tunnel.available()[0]
    found: Figures = {f"tunnel {what}": result.taken for what, result in tunnel.tcp(sides, turns=turns).items()}
    for size in tunnel.UDP_SIZES:
        rate, result = tunnel.udp(sides, size, turns=turns)
        found[f"tunnel loss {size}"] = result.taken
        found[f"tunnel rate {size}"] = {tunnel.OTHER: [rate]}
    return found


def measure_wireguard(turns: int) -> Figures:
    sides = wireguard.available()[0]
    found = wireguard.tcp(sides, turns=turns) | wireguard.ping(sides, turns=turns)
    found |= wireguard.bursts(sides, turns=turns) | wireguard.handshakes(turns=turns)
    return {f"wireguard {what}": result.taken for what, result in found.items()}


def measure_server(turns: int) -> Figures:
    return {f"server {size}": server.server(size, turns=turns).taken for size in server.SIZES}


def measure_udp(turns: int) -> Figures:
    sent = {f"udp send {far}": udp.send(far == "GRO", turns=turns).taken for far in ("datagrams", "GRO")}
    return {**sent, "udp receive": udp.receive(turns=turns).taken}


def measure_aead(turns: int) -> Figures:
    return {
        f"aead {' '.join(map(str, case))} {verb}": result.taken
        for case in aead.cases()
        for verb, result in aead.costs(case, turns=turns, rounds=500).items()
    }


def measure_routes(turns: int) -> Figures:
    found = routes.lookups(turns=turns)
    return {f"routes {version} {prefixes}": result.taken for (version, prefixes), result in found.items()}


def measure_scaling(turns: int) -> Figures:
    wakes, milliseconds = scaling.idle()
    return {
        "scaling batch": scaling.by_batch(turns).taken,
        "scaling size": scaling.by_size(turns).taken,
        "scaling adapters": scaling.by_adapters(turns).taken,
        "scaling threads": scaling.by_threads(turns).taken,
        "scaling idle": {
            "KiB of a session": [scaling.session_memory() / 1024],
            "wake-ups in 3 s": [float(wakes)],
            "ms of processor in 3 s": [milliseconds],
        },
    }


def measure_dll(turns: int) -> Figures:
    path = BENCH.parent / "build/bench/dll.json"
    # Its turns are short.
    command = [BENCH.parent / "tests/wine/run", "--bench", path, "--turns", str(6 * turns)]
    subprocess.run(command, check=True)
    figures: Figures = json.loads(path.read_text())
    return figures


PARTS: dict[str, Callable[[int], Figures]] = {
    "ring": measure_ring,
    "scaling": measure_scaling,
    "receive": measure_receive,
    "send": measure_send,
    "tcp": measure_tcp,
    "echo": measure_echo,
    "tunnel": measure_tunnel,
    "wireguard": measure_wireguard,
    "server": measure_server,
    "udp": measure_udp,
    "aead": measure_aead,
    "routes": measure_routes,
    "dll": measure_dll,
}


#: Those that make network namespaces.
KERNEL_PARTS = ("receive", "send", "tcp", "echo", "tunnel", "wireguard")

#: Those whose turns vary more, and their minimum of turns.
VARYING_PARTS, MIN_TURNS = ("tunnel", "wireguard", "server", "udp", "aead", "routes"), 7


def measure(parts: list[str], turns: int, known: dict[str, Any]) -> dict[str, Any]:
    figures: Figures = dict(known.get("figures", {}))
    runs: dict[str, str] = dict(known.get("runs", {}))
    notes = [] if may_make_namespaces() else ["No part with the kernel: it needs root."]
    missing = {NAMES[peer]: reason for peer, reason in available()[1].items()} | tunnel.available()[1]
    if "wireguard" in parts:
        missing |= {f"WireGuard's {side}": reason for side, reason in wireguard.available()[1].items()}
    notes += [f"Without {name}: {' '.join(reason.split())[:200]}" for name, reason in missing.items()]
    for part in parts:
        if part in KERNEL_PARTS and not may_make_namespaces():
            continue
        began, load = time.monotonic(), os.getloadavg()[0]
        taken = max(turns, MIN_TURNS) if part in VARYING_PARTS else turns
        try:
            figures |= PARTS[part](taken)
        except (OSError, RuntimeError, AssertionError, subprocess.SubprocessError) as failure:
            notes.append(f"{part} failed: {failure}")
        else:
            libraries = f", {tunnel.versions()}" if part in ("tunnel", "wireguard", "aead") else ""
            runs[part] = (
                f"{machine()}{libraries}; {time.strftime('%Y-%m-%d')}, load {load:.1f} before; medians of {taken} turns"
            )
        print(f"{part}: {time.monotonic() - began:.0f} s, load {load:.1f}", flush=True)
    return {"runs": runs, "notes": notes, "figures": figures}


# ---- Writing ----


def named(side: str, key: str) -> str:
    """A side as a table shows it. Only where packets are received does it matter what tunring does with them."""
    return side if side == "tunring" and not key.startswith("receive") else NAMES.get(side, side)


def table(figures: Figures, key: str, base: str, unit: str) -> list[str]:
    turns = Turns(figures[key])
    base = base if base in turns.taken else next(iter(turns.taken))
    if unit == "% lost":
        spreads = {side: turns.spread(side) for side in turns.taken}
        rows = [
            f"| {side} | {spread.median:.3f} | {spread.low:.3f}-{spread.high:.3f} |" for side, spread in spreads.items()
        ]
        return [f"| | {unit} | range |", "| --- | ---: | ---: |", *rows]
    rows = [f"| | {unit} | range | of {named(base, key)} |", "| --- | ---: | ---: | ---: |"]
    for side in turns.taken:
        spread = turns.spread(side)
        rows.append(
            f"| {named(side, key)} | {spread.median:.1f} | {spread.low:.1f}-{spread.high:.1f} | "
            f"{turns.ratio(side, base)} |"
        )
    return rows


def title_of(key: str) -> tuple[str, str, str]:
    """A heading, what to compare with, and the unit."""
    kind, *rest = key.split()
    words = " ".join(rest)
    if kind == "ring":
        return f"The ring alone: {rest[0]}, {rest[1]} bytes, batches of {ring.BATCH}", "plain C", "ns per packet"
    if kind == "dll":
        what = {"live": "send while the driver takes", "guard": "send, the guard against lost wake-ups"}
        base = {"live": "C each", "guard": "without"}
        title = f"The official DLL under Wine: {what.get(rest[0], rest[0])}, {rest[1]} bytes, batches of {rest[2]}"
        return title, base.get(rest[0], "plain C"), "ns per packet"
    if kind == "scaling":
        return f"By {words}", {"batch": "256", "size": "64"}.get(words, "1"), "ns per packet"
    if kind == "tunnel":
        what, unit = {
            "tcp": ("TCP through a tunnel (more is better)", "Gb/s"),
            "cpu": ("TCP through a tunnel: its two processes", "ns of processor time per packet of 1400 bytes"),
        }.get(words, (f"UDP through a tunnel, {rest[-1]} bytes, at wireguard-go's highest rate", "% lost"))
        return what, tunnel.OTHER, unit
    if kind == "wireguard":
        title, unit = {
            "tcp": ("TCP (more is better)", "Gb/s"),
            "cpu": ("TCP: two processes", "ns of processor time per packet of 1400 bytes"),
            "p50": ("ping through the idle tunnel, median", "microseconds"),
            "p99": ("ping through the idle tunnel, 99th percentile", "microseconds"),
            "handshake": ("a handshake by itself, both ends", "ms"),
            "handshakes": ("handshakes at once, both ends (more is better)", "per second"),
        }.get(rest[0], (f"a hub by {' '.join(rest[1:])}, packets of 1400 bytes", "ns of processor time per packet"))
        return f"WireGuard: {title}", wireguard.SPREADS[0] if rest[0] == "bursts" else wireguard.OTHER, unit
    if kind == "server":
        title = f"A server's way down to {server.CLIENTS} clients, {words} bytes"
        return title, "sendto", "ns of processor time per packet"
    if kind == "udp":
        what = {
            "send datagrams": "UdpSocket.send, far end without GRO",
            "send GRO": "UdpSocket.send, far end with GRO",
            "receive": "UdpSocket.receive",
        }
        base = "recvmsg" if words == "receive" else "sendmsg"
        return f"{what[words]}, runs of {udp.RUN} datagrams of {udp.SIZE} bytes", base, "ns per datagram"
    if kind == "aead":
        library, algorithm, size, verb = rest
        return f"{verb.capitalize()} {size} bytes, {algorithm} by {library}", "alone", "ns per packet"
    if kind == "routes":
        title = f"Lookups of IPv{rest[0]} among {int(rest[1]):,} prefixes; what a prefix takes to add"
        return title, routes.COLUMNS[0], "ns"
    if kind == "tcp":
        return "TCP through a forwarder (more is better)", "c", "Gb/s"
    if kind == "echo":
        return f"Echo of a datagram of 64 bytes, {words}", "c", "microseconds"
    if kind == "send":
        into = "a UDP socket that nobody reads" if rest[1] == "udp" else "an interface that drops all (nft)"
        return f"Send {rest[0]} bytes into {into}", "os", "ns per packet"
    return f"Receive {rest[0]} bytes, {' '.join(rest[1:])}", "os", "ns per packet"


def sections(results: dict[str, Any]) -> list[str]:
    figures: Figures = results["figures"]
    lines = []
    for run in dict.fromkeys(results["runs"].values()):
        parts = ", ".join(part for part, its in results["runs"].items() if its == run)
        lines += [f"- {parts}: {run}."]
    lines += [f"- {note}" for note in results["notes"]] + ["", "### The goals", "", *goals.rows(figures), ""]
    lines += [f"![{plot.stem}](plots/{plot.name})" for plot in sorted(PLOTS.glob("*.svg"))]
    for key in figures:
        if key.startswith("tunnel rate"):
            continue
        title, base, unit = title_of(key)
        if key == "scaling idle":
            lines += ["", "### Idle", ""] + [f"- {what}: {values[0]:.0f}" for what, values in figures[key].items()]
        else:
            lines += ["", f"### {title}", "", *table(figures, key, base, unit)]
    return lines


def plot(results: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "tunring"
    from matplotlib import pyplot

    figures: Figures = results["figures"]
    PLOTS.mkdir(exist_ok=True)

    def caption(title: str, keys: dict[str, str]) -> str:
        run = results["runs"][next(iter(keys)).split()[0]]
        return "\n".join([title, *textwrap.wrap(f"{run}, and range", 70 * len(keys))])

    def bars(name: str, title: str, keys: dict[str, str], unit: str) -> None:
        keys = {key: label for key, label in keys.items() if key in figures}
        if not keys:
            return
        figure, axes = pyplot.subplots(1, len(keys), figsize=(5.2 * len(keys), 3.6), squeeze=False)
        for axis, (key, label) in zip(axes[0], keys.items(), strict=True):
            turns = Turns(figures[key])
            spreads = [turns.spread(side) for side in turns.taken]
            middle = [spread.median for spread in spreads]
            errors = [[s.median - s.low for s in spreads], [s.high - s.median for s in spreads]]
            colours = [
                "tab:blue" if side.startswith(("tunring", "lazily", "views", "aes", "chacha")) else "tab:gray"
                for side in turns.taken
            ]
            axis.barh([named(side, key) for side in turns.taken], middle, xerr=errors, color=colours, capsize=3)
            axis.bar_label(axis.containers[1], [f" {value:.3g}" for value in middle])
            axis.margins(x=0.25)
            axis.invert_yaxis()
            axis.set_title(label, fontsize=10)
            axis.set_xlabel(unit)
        figure.suptitle(caption(title, keys), fontsize=9)
        figure.tight_layout()
        figure.savefig(PLOTS / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)

    def lines(name: str, title: str, keys: dict[str, str]) -> None:
        keys = {key: label for key, label in keys.items() if key in figures}
        if not keys:
            return
        figure, axes = pyplot.subplots(1, len(keys), figsize=(4 * len(keys), 3.4), squeeze=False)
        for axis, (key, label) in zip(axes[0], keys.items(), strict=True):
            turns = Turns({side: taken for side, taken in figures[key].items() if side.isdigit()})
            spreads = {int(side): turns.spread(side) for side in turns.taken}
            errors = [[s.median - s.low for s in spreads.values()], [s.high - s.median for s in spreads.values()]]
            axis.errorbar(list(spreads), [s.median for s in spreads.values()], yerr=errors, marker="o", capsize=3)
            axis.set_xscale("log", base=2)
            axis.set_xticks(list(spreads), [str(number) for number in spreads], rotation=45)
            axis.set_ylim(bottom=0)
            axis.set_xlabel(label)
            axis.set_ylabel("ns per packet")
        figure.suptitle(caption(title, keys), fontsize=9)
        figure.tight_layout()
        figure.savefig(PLOTS / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)

    sizes = {64: "64 bytes", 1400: "1400 bytes"}
    bars(
        "receive",
        "Receive segmented UDP from a TUN interface, live: less is better",
        {f"receive {size} GSO live": label for size, label in sizes.items()},
        "ns per packet",
    )
    bars(
        "send",
        "Send into a UDP socket through a TUN interface: less is better",
        {f"send {size} udp": label for size, label in sizes.items()},
        "ns per packet",
    )
    bars("tcp", "TCP through a forwarder between two TUN interfaces: more is better", {"tcp": "one connection"}, "Gb/s")
    titles = {"tunnel tcp": "Gb/s: more is better", "tunnel cpu": "ns of processor time per packet"}
    bars("tunnel", "TCP through the cookbook's tunnel and wireguard-go, in packets of 1400 bytes", titles, "")
    titles = {"wireguard tcp": "Gb/s: more is better", "wireguard cpu": "ns of processor time per packet"}
    bars("wireguard", "TCP through WireGuard, in packets of 1400 bytes", titles, "")
    bars("echo", "Echo of a datagram: less is better", {"echo p50": "p50", "echo p99": "p99"}, "microseconds")
    lines(
        "growth",
        "The ring alone, lazily",
        {
            "scaling batch": "packets per batch",
            "scaling size": "bytes per packet",
            "scaling adapters": "adapters",
            "scaling threads": "threads",
        },
    )


def write(results: dict[str, Any]) -> None:
    plot(results)
    text = README.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text("\n".join([before + BEGIN, "", *sections(results), "", END]) + after, "utf-8")


def dumps(results: dict[str, Any]) -> str:
    """JSON with a line for each list."""
    text = json.dumps(results, indent=1)
    return re.sub(r"\[\s+([^][]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[part for part in PARTS if part != "dll"])
    parser.add_argument("--again", action="store_true", help="measure nothing")
    options = parser.parse_args()
    results = json.loads(FIGURES.read_text("utf-8")) if FIGURES.exists() else {}
    if not options.again:
        results = measure(options.only, options.turns, results)
        for taken in results["figures"].values():
            for side, values in taken.items():
                taken[side] = [round(value, 3) for value in values]
        FIGURES.write_text(dumps(results) + "\n", "utf-8")
    write(results)
    print("\n".join(goals.rows(results["figures"])))


if __name__ == "__main__":
    main()
