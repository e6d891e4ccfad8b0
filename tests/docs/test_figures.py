"""Tables of measurements in the README and in docs/ have the medians of bench/figures.json, the last run's."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[2]
FIGURES: dict[str, dict[str, list[float]]] = json.loads((ROOT / "bench/figures.json").read_text("utf-8"))["figures"]
SIZES = ("64", "1400")

#: The side of the ring's figures that each row of docs/which-call.md has.
RECEIVE = {
    "`batch.lengths`, `batch.nbytes`": "lazily",
    "`batch.pack_into(array)`": "pack_into",
    "`other.send(batch)`": "forward",
    "`batch.tobytes()`": "tobytes",
    "`for view in batch`": "views",
    "to compare: C": "plain C",
    "to compare: ctypes": "ctypes",
}
SEND = {
    "`session.send_packed(buffer, lengths)`": "packed",
    "`session.send(packets)`": "a_list",
    "`session.reserve(sizes)`": "reserved",
    "to compare: C": "plain C",
    "to compare: ctypes": "ctypes",
}
CIPHERS = {
    "AES-256-GCM by libcrypto": "libcrypto aes-256-gcm",
    "AES-256-GCM by ipsec-mb": "ipsec-mb aes-256-gcm",
    "ChaCha20-Poly1305 by libcrypto": "libcrypto chacha20-poly1305",
    "ChaCha20-Poly1305 by ipsec-mb": "ipsec-mb chacha20-poly1305",
}
#: The peers in the order of the columns.
PEERS = ("tunring", "os", "go", "rust")


def shown(key: str, side: str) -> str:
    return f"{median(FIGURES[key][side]):.0f}"


def seal_and_open(cipher: str, size: str) -> str:
    return " and ".join(shown(f"aead {cipher} {size} {verb}", "Python") for verb in ("seal", "open"))


def rows(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table after a heading, without its head."""
    lines = iter((ROOT / page).read_text("utf-8").partition(f"\n{heading}\n")[2].splitlines())
    table = []
    for line in lines:
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip("|").split("|")])
        elif table:
            break
    return table[2:]


@pytest.mark.parametrize(
    ("heading", "verb", "sides"),
    [("## Receiving", "receive", RECEIVE), ("## Sending", "send", SEND)],
    ids=["in", "out"],
)
def test_costs_of_calls(heading: str, verb: str, sides: dict[str, str]) -> None:
    found = {next(cell for cell in row if cell in sides): row[2:] for row in rows("docs/which-call.md", heading)}
    assert found == {name: [shown(f"ring {verb} {size}", side) for size in SIZES] for name, side in sides.items()}


def test_costs_of_ciphers() -> None:
    assert {name: cells for name, *cells in rows("docs/which-call.md", "## Sealing and opening")} == {
        name: [seal_and_open(cipher, size) for size in SIZES] for name, cipher in CIPHERS.items()
    }


def test_costs_by_batch() -> None:
    [[_, *cells]] = rows("docs/which-call.md", "## How many at once")
    assert cells == [shown("scaling batch", count) for count in ("1", "8", "64", "256", "1024")]


@pytest.mark.parametrize(
    ("page", "heading"), [("README.md", "## How fast"), ("docs/performance.md", "## Real interfaces")]
)
def test_costs_of_real_interfaces(page: str, heading: str) -> None:
    keys = ("receive 64 GSO live", "receive 1400 GSO live", "send 64 udp", "send 1400 udp")
    assert [cells for _, *cells in rows(page, heading)] == [[shown(key, peer) for peer in PEERS] for key in keys]


def test_tunnel() -> None:
    names = {name.replace(" by ", " ").lower(): cells for name, *cells in rows("docs/performance.md", "## A tunnel")}
    assert names.keys() == FIGURES["tunnel tcp"].keys()
    for side, (rate, _, time) in names.items():
        assert rate == f"{median(FIGURES['tunnel tcp'][side]):.1f}"
        assert time == f"{median(FIGURES['tunnel cpu'][side]):,.0f}"
