"""Debian for another machine, unpacked in a folder rather than installed."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from commands import run

if TYPE_CHECKING:
    from pathlib import Path


def unpack(architecture: str, packages: list[str], folder: Path) -> Path:
    """Fetches packages and all that they depend on, with apt and its sources, unless that was done; returns the root.

    No script of theirs runs, and this system learns nothing of it.
    """
    root = folder / "system"
    unpacked = folder / "unpacked"
    if unpacked.exists() and unpacked.read_text("utf-8").split() == packages:
        return root
    shutil.rmtree(folder, ignore_errors=True)
    # With a state of its own, in which nothing is installed, apt fetches the C library as well.
    for name in ("state/lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "state/status").touch()
    options = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",  # apt's own user can't write to a private folder
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "state/status",
        "Dir::Cache::archives": folder / "archives",
    }
    apt = ["apt-get", "-q", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    # A list may be missing while the mirror changes: what matters is whether the packages can be had.
    subprocess.run([*apt, "update"], check=False, stdout=subprocess.DEVNULL)
    run(*apt, "install", "-y", "--no-install-recommends", "--download-only", *packages)
    for package in sorted(folder.glob("archives/*.deb")):
        run("dpkg-deb", "-x", package, root)
    shutil.rmtree(folder / "archives")
    unpacked.write_text(" ".join(packages), "utf-8")
    return root
