"""Checks whether tunring has become slower: fails on ratios and on instruction counts, never on times.

    python bench/guard.py [ratios] [instructions] [--base COMMIT]

- *ratios*: what Python takes beside plain C, ctypes, system calls and libcrypto alone in the same run. The best turns
  of either side count, and the limits leave room for a busy machine; they catch what has become much slower.
- *instructions*: what the C core and the back ends execute for a packet, as callgrind counts it: without the kernel's
  work and, for sealing and opening, without a cipher's. The commit that this branch left the main one at (or the one
  before, on the main branch itself) is built on this machine, too, and nothing may take over 3 % more than there. Every
  compiler is different, so no number is kept.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from turns import Turns

ROOT = Path(__file__).resolve().parents[1]

#: How much more than the base may take.
THRESHOLD = 1.03

WORKS = [
    *((work, size) for work in ("receive", "hold", "forward", "send") for size in (64, 1400)),
    *((work, size) for work in ("tun-receive", "tun-receive-plain") for size in (64, 1400)),
    *((work, size) for work in ("tun-split-udp", "tun-split-tcp", "tun-send") for size in (64, 1400)),
    *((work, size) for work in ("tun-many", "tun-many-udp", "tun-many-tcp", "tun-send-many") for size in (64, 1400)),
    *((work, size) for work in ("seal", "open", "udp-send", "udp-receive") for size in (64, 1400)),
    *((work, 64) for work in ("lookup-v4", "lookup-v6")),
]

#: Parts of sources.py that the counted program is linked with.
PARTS = ("core", "ring", "loopback", "common", "offloads", "tun_session")

#: The same for commits before there was a sources.py.
OLD_INCLUDE = ("include", "src/core", "src/backends")
OLD_GLOBS = (
    "src/core/*.c",
    "src/backends/ring_*.c",
    "src/backends/loopback*.c",
    "src/backends/cable*.c",
    "src/backends/simulator*.c",
    "src/backends/backend_log.c",
    "src/backends/offload_*.c",
    "src/backends/tun_re*.c",
    "src/backends/tun_uring*.c",
    "src/backends/tun_send.c",
    "src/backends/tun_session.c",
)


# ---- Instructions ----


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def base_commit() -> str:
    """The commit to compare with: "" if there is nothing."""
    head = git("rev-parse", "HEAD")
    for main in ("origin/main", "main"):
        fork = git("merge-base", "HEAD", main)
        if fork and fork != head:
            return fork
    return head if git("status", "--porcelain", "src", "include") else git("rev-parse", "HEAD~1")


def check_out(commit: str, folder: Path) -> None:
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


def compiled(tree: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The sources of the counted program and the folders of its headers, as that tree lists them."""
    if (tree / "sources.py").exists():
        sources = runpy.run_path(str(tree / "sources.py"))
        return sources["c_files"](tree, sources["this_system"](), *PARTS), sources["INCLUDE"]
    others = ("_windows", "_pipe")
    files = [file for glob in OLD_GLOBS for file in sorted(tree.glob(glob)) if not file.stem.endswith(others)]
    return files, OLD_INCLUDE


def build(tree: Path, count_c: Path, program: Path) -> str:
    """Compile the counted program over this tree's sources; returns what the compiler has against it."""
    files, include = compiled(tree)
    folders = [f"-I{tree / name}" for name in (*include, "tests/c")]
    options = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-fvisibility=hidden", "-pthread", *folders]
    compiler = shlex.split(os.environ.get("CC", "cc"))
    command = [*compiler, *options, str(count_c), *map(str, files), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr[-2000:]


def instructions(program: Path, work: str, size: int) -> float | None:
    """Of one packet; None if the program doesn't know the work."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        tool = ["valgrind", "--tool=callgrind", "--toggle-collect=measured", f"--callgrind-out-file={out}"]
        done = subprocess.run([*tool, str(program), work, str(size)], capture_output=True, text=True, check=False)
        if done.returncode == 2:
            return None
        if done.returncode:
            raise SystemExit(f"{work} {size}: {done.stderr[-2000:]}")
        total = re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.MULTILINE)
        assert total
        return int(total[1]) / int(done.stdout)


def count_all(program: Path) -> dict[tuple[str, int], float | None]:
    with ThreadPoolExecutor(2) as pool:
        counts = pool.map(lambda work: instructions(program, *work), WORKS)
        return dict(zip(WORKS, counts, strict=True))


def check_instructions(base: str) -> list[str]:
    """Works that take more than at the base."""
    if not shutil.which("valgrind"):
        return ["valgrind is not installed, so that no instructions can be counted"]
    base = base or base_commit()
    print(f"instructions per packet, beside {base[:12] or 'nothing: there is no commit to compare with'}")
    failures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        problem = build(ROOT, ROOT / "bench/c/count.c", folder / "head-count")
        if problem:
            return [problem]
        now, before = count_all(folder / "head-count"), dict.fromkeys(WORKS)
        if base:
            check_out(base, folder / "base")
            # The same program over both; where it can't be compiled over the older sources, that with which they came.
            for count_c in (ROOT / "bench/c/count.c", folder / "base/bench/c/count.c"):
                problem = build(folder / "base", count_c, folder / "base-count")
                if not problem:
                    before = count_all(folder / "base-count")
                    break
            else:
                failures.append(f"the base can't be compiled, so that there is no comparison: {problem}")
    for (work, size), count in now.items():
        assert count
        old = before[work, size]
        line = f"{work} {size} B: {count:.1f}"
        if old:
            line += f", {old:.1f} before: {count / old:.3f}"
            if count > old * THRESHOLD:
                failures.append(f"{line} is over {THRESHOLD}")
        print("  " + line)
    return failures


# ---- Ratios ----


def check_ratios() -> dict[tuple[str, str], str]:
    """Works that take too much of what they are compared with, and how much that is."""
    sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tests/linux")]
    import aead
    import udp
    from netns import may_make_namespaces
    from ring import BATCH, ring_turns
    from tun import receive

    failures = {}

    def check(what: str, turns: Turns, side: str, other: str, limit: float) -> None:
        # The best of both: what a busy machine adds is in neither.
        ratio = min(turns.taken[side]) / min(turns.taken[other])
        line = f"{what}: {ratio:.3f} of {other}, at most {limit:.3f}"
        print("  " + line)
        if ratio > limit:
            failures[what, other] = line

    # About a third more than a quiet machine reached, or a busy one where others' use of the caches shows.
    for size, lazily, by_ctypes, views, a_list, packed in [
        (64, 0.4, 1 / 60, 1.5, 0.65, 0.65),
        (1400, 0.6, 1 / 40, 1.6, 1.2, 1.2),
    ]:
        ring = ring_turns(size, BATCH, turns=7)
        check(f"ring, receive {size} B, lazily", ring["receive"], "lazily", "plain C", lazily)
        check(f"ring, receive {size} B, memoryviews", ring["receive"], "views", "plain C", views)
        check(f"ring, receive {size} B, lazily", ring["receive"], "lazily", "ctypes", by_ctypes)
        check(f"ring, send {size} B, a list", ring["send"], "a_list", "plain C", a_list)
        check(f"ring, send {size} B, packed", ring["send"], "packed", "plain C", packed)
        singly = ring_turns(size, 1, turns=7)
        check(f"ring, send {size} B, one slot reserved", singly["send"], "reserve_one", "send_one", 1.75)
        check(f"ring, send {size} B, a loop over one slot", singly["send"], "reserved", "a_list", 2.1)
    for gro in (False, True):
        what = f"UdpSocket.send, far end with{'' if gro else 'out'} GRO"
        check(what, udp.send(gro, turns=5), "UdpSocket.send", "sendmsg", 1.35)
    check("UdpSocket.receive", udp.receive(turns=5), "UdpSocket.receive", "recvmsg, kept", 1.5)
    for case in aead.cases():
        if case[:2] == ("libcrypto", "aes-256-gcm"):
            for verb, turns in aead.costs(case, turns=5, rounds=200).items():
                check(
                    f"{verb} {case[2]} B, AES-256-GCM by libcrypto",
                    turns,
                    "Python",
                    "alone",
                    1.6 if case[2] == 64 else 1.35,
                )
    if not may_make_namespaces():
        print("  nothing of the kernel: that needs root, and the right to make network namespaces")
        return failures
    for size, gso, limit in [(64, True, 0.1), (1400, True, 0.45), (64, False, 1.1), (1400, False, 1.35)]:
        turns = receive(["tunring", "os"], size, gso=gso, live=False, turns=7, waiting=64)
        check(f"TUN, receive {size} B, {'GSO' if gso else 'datagrams'}", turns, "tunring", "os", limit)
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="ratios, instructions; without it, both")
    parser.add_argument("--base", default="", help="the commit to compare instructions with")
    options = parser.parse_args()
    failures = []
    if not options.what or "instructions" in options.what:
        failures += check_instructions(options.base)
    if not options.what or "ratios" in options.what:
        print("ratios")
        # A busy machine may have slowed down every turn, so only a work that is slow twice counts.
        if slow := check_ratios():
            print("ratios, once more")
            failures += [line for work, line in check_ratios().items() if work in slow]
    for failure in failures:
        print("SLOWER:", failure)
    print(f"{len(failures)} became slower" if failures else "nothing became slower")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
