"""The goals of the benchmarks, and the rows of the report's table that say whether they are met."""

from __future__ import annotations

import itertools

import aead
import routes
import server
import tunnel
import udp
from programs import NAMES
from turns import Spread, Turns

import wireguard

Figures = dict[str, dict[str, list[float]]]

#: The goals: what, of which figures, ours, beside, whether more or less is better and how much is wanted, the command.
RING, TUN, DLL = "python bench/ring.py", "python bench/tun.py", "tests/wine/run --bench"
TUNNEL, WIREGUARD = "python bench/tunnel.py", "python bench/wireguard.py"
SERVER = ("batches", "sendto", "<=", 0.2, "python bench/server.py")
GOALS: list[tuple[str, str, str, str, str, float, str]] = [
    *[
        (f"ring, receive {size} B lazily / C loop", f"ring receive {size}", "lazily", "plain C", "<=", 1.10, RING)
        for size in (64, 1400)
    ],
    *[
        (f"ring, send {size} B, a list / C loop", f"ring send {size}", "a_list", "plain C", "<=", 1.10, RING)
        for size in (64, 1400)
    ],
    ("ring, receive 64 B: ctypes / lazily", "ring receive 64", "ctypes", "lazily", ">=", 15, RING),
    ("ring, send 64 B: ctypes / a list", "ring send 64", "ctypes", "a_list", ">=", 15, RING),
    *[
        (
            f"TUN receive {size} B GSO, live: {NAMES[peer]} / {NAMES[ours]}",
            f"receive {size} GSO live",
            peer,
            ours,
            ">=",
            goal,
            f"{TUN} receive",
        )
        for size, peer, ours, goal in (
            (64, "rust", "tunring", 1.2),
            (1400, "rust", "tunring", 1.15),
            (64, "go", "tunring-views", 1.0),
            (1400, "go", "tunring-views", 1.0),
            (64, "os", "tunring", 10),
            (1400, "os", "tunring", 2.7),
            (64, "pytun", "tunring", 10),
            (1400, "pytun", "tunring", 2.7),
            (64, "pmd3", "tunring", 10),
            (1400, "pmd3", "tunring", 2.7),
        )
    ],
    *[
        (
            f"TUN receive {size} B, datagrams, {how}: os.read / {NAMES[ours]}",
            f"receive {size} datagrams {how}",
            "os",
            ours,
            ">=",
            goal,
            f"{TUN} receive",
        )
        for ours in ("tunring", "tunring-plain")
        for size, how, goal in ((64, "drained", 1.3), (64, "live", 1.05), (1400, "drained", 1.1), (1400, "live", 1.05))
    ],
    *[
        (
            f"TUN send {size} B into a UDP socket: {NAMES[peer]} / tunring",
            f"send {size} udp",
            peer,
            "tunring",
            ">=",
            goal,
            f"{TUN} send",
        )
        for size, peer, goal in (
            (64, "rust", 1.0),
            (1400, "rust", 1.0),
            (64, "go", 1.5),
            (1400, "go", 1.5),
            (64, "os", 3),
            (1400, "os", 2.2),
        )
    ],
    ("TCP through a forwarder: tunring / wireguard-go's tun", "tcp", "tunring", "go", ">=", 1.0, f"{TUN} tcp"),
    ("TCP through a forwarder: tunring / read, write in C", "tcp", "tunring", "c", ">=", 2.0, f"{TUN} tcp"),
    ("echo, p50: tunring / C", "echo p50", "tunring", "c", "<=", 1.05, f"{TUN} echo"),
    ("echo, p99: tunring / C", "echo p99", "tunring", "c", "<=", 1.1, f"{TUN} echo"),
    *[
        (f"official DLL, {what.format(size)}, by {batch}", f"dll {key} {size} {batch}", ours, other, sign, goal, DLL)
        for size, batch in itertools.product((64, 1400), (256, 1024))
        for what, key, ours, other, sign, goal in (
            ("receive {} B, bytes counted / C loop", "receive", "counted", "plain C", "<=", 1.15),
            ("receive {} B lazily / C loop", "receive", "lazily", "plain C", "<=", 1.15),
            ("send {} B, a list / C loop", "send", "a_list", "plain C", "<=", 1.15),
            ("send {} B live: a packet per call / a list", "live", "singly", "tunring", ">=", 1.8),
            ("send {} B live: C singly / a list", "live", "C each", "tunring", ">=", 1.8),
        )
    ],
    ("official DLL, send 64 B: with the guard / without", "dll guard 64 256", "guarded", "without", "<=", 1.01, DLL),
    *[
        (
            f"the cookbook's tunnel, {what}, {side} / {tunnel.OTHER}",
            f"tunnel {key}",
            side,
            tunnel.OTHER,
            sign,
            goal,
            TUNNEL,
        )
        for what, key, sign, side, goal in (
            ("TCP, Gbit/s", "tcp", ">=", "aes-256-gcm libcrypto", 2.2),
            ("TCP, Gbit/s", "tcp", ">=", "aes-256-gcm ipsec-mb", 2.5),
            ("TCP, Gbit/s", "tcp", ">=", "aes-256-gcm boringssl", 2.2),
            ("TCP, Gbit/s", "tcp", ">=", "chacha20-poly1305 libcrypto", 1.5),
            ("TCP, Gbit/s", "tcp", ">=", "chacha20-poly1305 ipsec-mb", 1.8),
            ("TCP, Gbit/s", "tcp", ">=", "chacha20-poly1305 boringssl", 1.5),
            ("processors per packet", "cpu", "<=", "aes-256-gcm libcrypto", 0.3),
            ("processors per packet", "cpu", "<=", "aes-256-gcm ipsec-mb", 0.3),
            ("processors per packet", "cpu", "<=", "aes-256-gcm boringssl", 0.3),
            ("processors per packet", "cpu", "<=", "chacha20-poly1305 libcrypto", 0.55),
            ("processors per packet", "cpu", "<=", "chacha20-poly1305 ipsec-mb", 0.55),
            ("processors per packet", "cpu", "<=", "chacha20-poly1305 boringssl", 0.55),
        )
    ],
    *[
        (f"WireGuard, {what}, {side} / {other}", f"wireguard {key}", side, other, sign, goal, f"{WIREGUARD} {part}")
        for what, part, key, sign, side, other, goal in (
            ("TCP, Gbit/s", "tcp", "tcp", ">=", "tunring libcrypto", wireguard.OTHER, 1.5),
            ("TCP, Gbit/s", "tcp", "tcp", ">=", "tunring ipsec-mb", wireguard.OTHER, 1.8),
            ("TCP, Gbit/s", "tcp", "tcp", ">=", "tunring boringssl", wireguard.OTHER, 1.5),
            *(
                ("TCP, Gbit/s", "tcp", "tcp", ">=", ends, wireguard.OTHER, 1.1)
                for library in wireguard.FACING
                for ends in (f"tunring {library} > wireguard-go", f"wireguard-go > tunring {library}")
            ),
            ("TCP, Gbit/s", "tcp", "tcp", ">=", "tunring libcrypto", wireguard.BORINGTUN, 1.5),
            ("processors per packet", "tcp", "cpu", "<=", "tunring libcrypto", wireguard.OTHER, 0.55),
            ("processors per packet", "tcp", "cpu", "<=", "tunring ipsec-mb", wireguard.OTHER, 0.55),
            ("processors per packet", "tcp", "cpu", "<=", "tunring boringssl", wireguard.OTHER, 0.55),
            ("idle ping, p50", "ping", "p50", "<=", "tunring libcrypto", wireguard.OTHER, 1.1),
            ("idle ping, p99", "ping", "p99", "<=", "tunring libcrypto", wireguard.OTHER, 1.1),
            ("bursts of 32", "bursts", "bursts tunring libcrypto", "<=", *wireguard.SPREADS[1::-1], 1.3),
        )
    ],
    *[
        (f"server, {size} B: lookup, split and send_many / a dict and sendto", f"server {size}", *SERVER)
        for size in server.SIZES
    ],
    *[
        (
            f"UdpSocket.send, runs of {udp.RUN}, far end {far} GRO / sendmsg in C",
            f"udp send {kind}",
            "UdpSocket.send",
            "sendmsg",
            "<=",
            1.15,
            "python bench/udp.py",
        )
        for far, kind in (("without", "datagrams"), ("with", "GRO"))
    ],
    (
        f"UdpSocket.receive, runs of {udp.RUN}, lazily / recvmsg in C",
        "udp receive",
        "UdpSocket.receive",
        "recvmsg",
        "<=",
        1.15,
        "python bench/udp.py",
    ),
    *[
        (
            f"{verb} {size} B, {algorithm} by {library} / the library in C",
            f"aead {library} {algorithm} {size} {verb}",
            "Python",
            "alone",
            "<=",
            goal,
            "python bench/aead.py",
        )
        for algorithm, library, (size, goal), verb in itertools.product(
            ("aes-256-gcm", "chacha20-poly1305"), aead.PATHS, ((1400, 1.1), (64, 1.3)), ("seal", "open")
        )
    ],
    ("growth: 64 adapters / 1", "scaling adapters", "64", "1", "<=", 1.15, "python bench/scaling.py"),
    ("growth: batches of 64 / 1024", "scaling batch", "64", "1024", "<=", 1.3, "python bench/scaling.py"),
]

#: Nanoseconds that a memoryview of each packet may add.
VIEW_GOAL = 35


def digits_beside(median: float, goal: float, met: bool) -> int:
    """Decimals of a figure: more than two where it would look like the goal that it misses."""
    return next((digits for digits in (2, 3, 4) if met or round(median, digits) != goal), 5)


def rows(figures: Figures) -> list[str]:
    lines = ["| what | wanted | found, and its range | | command |", "| --- | ---: | ---: | --- | --- |"]
    for what, key, ours, other, sign, goal, command in GOALS:
        taken = figures.get(key, {})
        if ours not in taken or other not in taken:
            lines.append(f"| {what} | {sign} {goal:g} | not measured | | `{command}` |")
            continue
        ratio = Turns(taken).ratio(ours, other)
        met = ratio.median <= goal if sign == "<=" else ratio.median >= goal
        found = ratio.text(digits_beside(ratio.median, goal, met))
        lines.append(f"| {what} | {sign} {goal:g} | {found} | {'met' if met else '**missed**'} | `{command}` |")
    for size in (64, 1400):
        taken = figures.get(f"ring receive {size}", {})
        if taken:
            added = Spread.of([a - b for a, b in zip(taken["views"], taken["lazily"], strict=True)])
            met = "met" if added.median <= VIEW_GOAL else "**missed**"
            what = f"a memoryview of each packet, {size} B, added ns"
            lines.append(f"| {what} | <= {VIEW_GOAL} | {added} | {met} | `{RING}` |")
    return lines + handshake_rows(figures) + loss_rows(figures) + lookup_rows(figures)


#: Nanoseconds per packet that a lookup among that many prefixes may take.
LOOKUP_GOAL, LOOKUP_PREFIXES = 25, 10_000


def lookup_rows(figures: Figures) -> list[str]:
    rows = []
    for version in routes.VERSIONS:
        taken = figures.get(f"routes {version} {LOOKUP_PREFIXES}")
        if not taken:
            continue
        found = Turns(taken).spread(routes.COLUMNS[0])
        what = f"lookup of a random IPv{version} destination among {LOOKUP_PREFIXES:,} prefixes, ns"
        met = "met" if found.median <= LOOKUP_GOAL else "**missed**"
        rows.append(f"| {what} | <= {LOOKUP_GOAL} | {found} | {met} | `python bench/routes.py` |")
    return rows


def handshake_rows(figures: Figures) -> list[str]:
    """Goals that are not ratios."""
    rows = []
    for what, sign, goal in (("handshake", "<=", 2), ("handshakes", ">=", 400)):
        if taken := figures.get(f"wireguard {what}"):
            found = Spread.of(taken["both ends"])
            met = found.median <= goal if sign == "<=" else found.median >= goal
            command = f"{WIREGUARD} handshakes"
            title = f"WireGuard, {wireguard.UNITS[what]}"
            rows.append(f"| {title} | {sign} {goal} | {found} | {'met' if met else '**missed**'} | `{command}` |")
    return rows


def loss_rows(figures: Figures) -> list[str]:
    """Ours is not to be more than the other's: a ratio says nothing where hardly anything is lost."""
    rows = []
    for size in tunnel.UDP_SIZES:
        taken = figures.get(f"tunnel loss {size}", {})
        for side in taken:
            if side == tunnel.OTHER or tunnel.OTHER not in taken:
                continue
            rate = figures[f"tunnel rate {size}"][tunnel.OTHER][0]
            lost, others = Spread.of(taken[side]), Spread.of(taken[tunnel.OTHER])
            met = "met" if lost.median <= others.median else "**missed**"
            what = f"the cookbook's tunnel, UDP {size} B, {rate:,.0f} per second, {side}: % lost"
            rows.append(f"| {what} | <= {others.median:.2f} | {lost} | {met} | `{TUNNEL} udp` |")
    return rows
