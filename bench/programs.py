"""The programs that tunring is compared with: built from C, Go and Rust sources and packages named by their registries.

Programs that can't be built here, say without Go, are left out, and the reason kept.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "bench" / "peers"
BUILT = ROOT / "build" / "bench"

#: From the Python package index, for the peers in Python.
PACKAGES = {"pytun": "python-pytun==2.4.2", "pmd3": "pytun-pmd3==3.0.3"}


#: The release of boringtun's command.
BORINGTUN = "0.7.1"


class Missing(Exception):
    """A program can't be had here; the text has the reason."""


def _run(*command: str, folder: Path = ROOT) -> None:
    if not shutil.which(command[0]):
        raise Missing(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"{shlex.join(command)}: {(done.stdout + done.stderr).strip()[-500:]}")


@functools.cache
def c_program(source: str) -> str:
    """Compile one C file under bench/; returns the program's path."""
    BUILT.mkdir(parents=True, exist_ok=True)
    program = BUILT / Path(source).stem
    options = ["-std=c11", "-D_GNU_SOURCE", "-O2", f"-I{ROOT / 'include'}", "-pthread"]
    compiler = shlex.split(os.environ.get("CC", "cc"))
    _run(*compiler, *options, str(ROOT / "bench" / source), "-o", str(program), "-ldl")
    return str(program)


@functools.cache
def go_program() -> str:
    BUILT.mkdir(parents=True, exist_ok=True)
    _run("go", "build", "-o", str(BUILT / "go-peer"), ".", folder=PEERS / "go")
    return str(BUILT / "go-peer")


@functools.cache
def wireguard_program() -> str:
    """Build wireguard-go; returns the program's path. ``wg`` and ``iperf3`` have to be there as well."""
    for tool in ("wg", "iperf3"):
        if not shutil.which(tool):
            raise Missing(f"{tool} is not installed")
    program = BUILT / "wireguard-go"
    BUILT.mkdir(parents=True, exist_ok=True)
    _run("go", "build", "-o", str(program), "golang.zx2c4.com/wireguard", folder=PEERS / "wireguard")
    return str(program)


@functools.cache
def boringtun_program() -> str:
    """Build boringtun's command from its registry; returns the program's path."""
    folder = BUILT / "boringtun"
    if not (folder / "bin/boringtun-cli").exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        package = ["boringtun-cli", "--version", BORINGTUN, "--locked"]
        _run("cargo", "install", "--quiet", *package, "--root", str(folder))
    return str(folder / "bin/boringtun-cli")


@functools.cache
def rust_program() -> str:
    target = BUILT / "rust"
    _run("cargo", "build", "--release", "--locked", "--target-dir", str(target), folder=PEERS / "rust")
    return str(target / "release" / "peer")


@functools.cache
def python_package(library: str) -> str:
    """Install a peer's package where only that peer looks; returns the folder."""
    folder = BUILT / library
    if not folder.exists():
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(folder)]
        _run(sys.executable, "-m", "pip", "install", *options, PACKAGES[library])
    return str(folder)


#: Every peer, and what it is called in tables.
NAMES = {
    "tunring": "tunring, lazily",
    "tunring-views": "tunring, a memoryview each",
    "tunring-plain": "tunring, without offloads",
    "os": "os.read, os.write",
    "pytun": "python-pytun 2.4.2",
    "pmd3": "pytun-pmd3 3.0.3",
    "go": "wireguard-go's tun (Go)",
    "rust": "tun-rs 2.8.16 (Rust)",
    "c": "read, write in C",
}


def command(peer: str) -> tuple[list[str], dict[str, str]]:
    """How to start a peer: its command so far, and its environment. Raises Missing."""
    environment = dict(os.environ)
    if peer == "c":
        return [c_program("peers/plain.c")], environment
    if peer == "go":
        return [go_program()], environment
    if peer == "rust":
        return [rust_program()], environment
    if peer in PACKAGES:
        environment["PYTHONPATH"] = os.pathsep.join([python_package(peer), *environment.get("PYTHONPATH", "").split()])
    return [sys.executable, str(PEERS / "python.py"), peer], environment


@functools.cache
def available() -> tuple[tuple[str, ...], dict[str, str]]:
    """The peers that can be had here, and why others can't."""
    found, missing = [], {}
    for peer in NAMES:
        try:
            command(peer)
        except Missing as reason:
            missing[peer] = str(reason)
        else:
            found.append(peer)
    return tuple(found), missing
