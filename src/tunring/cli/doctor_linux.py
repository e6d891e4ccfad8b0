"""The Linux half of ``tunring doctor``: the TUN driver, privileges, namespaces."""

from __future__ import annotations

import errno
import importlib.metadata
import os
import platform
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tunring._system.privilege_linux import CAPABILITIES, capabilities
from tunring.cli.report import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunring.cli.report import Level

assert sys.platform == "linux"

_DEVICE = "/dev/net/tun"
_TUNGETFEATURES, _TUNGETIFF = 0x800454CF, 0x800454D2
_FEATURES = {
    0x0001: "tun",
    0x4000: "vnet_hdr",
    0x0100: "multi_queue",
    0x0010: "napi",
    0x0040: "no_carrier",
}
_NEEDED = 0x0001

#: Calls by which the driver does what not every kernel has, and what is missing without them. To a descriptor that is
#: attached to no interface each driver refuses them, by ENOTTY if it doesn't know them at all.
_CALLS = {0x400454D0: "offloads", 0x400454E2: "switching the link", 0x400454D9: "several queues"}


def look() -> Iterator[Finding]:
    """Look at the system, without changing anything."""
    yield _device()
    yield _capabilities()
    yield _namespaces()
    yield _netlink()


def _device() -> Finding:
    topic = "TUN driver"
    try:
        descriptor = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return Finding(topic, "problem", *_refused(error))
    try:
        return Finding(topic, *_driver(descriptor))
    finally:
        os.close(descriptor)


def _refused(error: OSError) -> tuple[str, str]:
    """Why the device can't be opened, and what to do."""
    if error.errno == errno.EPERM:
        advice = (
            f"start the container with --device {_DEVICE}; LXC: devices.allow = c 10:200 rwm; "
            f"a systemd service: DeviceAllow={_DEVICE}"
        )
        return f"the device rules of this container or service forbid {_DEVICE}: {error.strerror}", advice
    if error.errno == errno.EACCES:
        mode = os.stat(_DEVICE).st_mode & 0o777
        advice = f"run as root, or let the administrator: chmod 0666 {_DEVICE}"
        return f"this user may not open {_DEVICE} (mode {mode:04o})", advice
    absent = error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR)
    advice = "load the kernel's driver: modprobe tun; in a container, pass the device: --device /dev/net/tun"
    return f"{_DEVICE}: {error.strerror}", advice if absent else ""


def _knows(descriptor: int, call: int) -> bool:
    from fcntl import ioctl

    try:
        ioctl(descriptor, call, bytes(40))
    except OSError as error:
        return error.errno != errno.ENOTTY
    return True


def _driver(descriptor: int) -> tuple[Level, str, str]:
    from fcntl import ioctl

    try:
        (features,) = struct.unpack("I", ioctl(descriptor, _TUNGETFEATURES, bytes(4)))
    except OSError as error:
        if not _knows(descriptor, _TUNGETIFF):
            return "problem", f"{_DEVICE} is not a TUN driver: {error.strerror}", "mknod /dev/net/tun c 10 200"
        features = _NEEDED  # a driver that doesn't report its features
    names = ", ".join(name for bit, name in _FEATURES.items() if features & bit)
    text = f"{_DEVICE} of Linux {platform.release()}; features: {names}"
    if not features & _NEEDED:
        return "problem", text, "a kernel with TUN interfaces is needed"
    if missing := [what for call, what in _CALLS.items() if not _knows(descriptor, call)]:
        return "warning", f"{text}; missing: {', '.join(missing)}", "packets still pass, one by one"
    return "ok", text, ""


def _capabilities() -> Finding:
    topic, held = "privileges", capabilities()
    text = f"user {os.geteuid()}; {', '.join(sorted(held)) or 'none of ' + ', '.join(CAPABILITIES.values())}"
    if "CAP_NET_ADMIN" in held:
        return Finding(topic, "ok", text)
    advice = (
        "to create adapters, run as root or with CAP_NET_ADMIN; or open one that the administrator made: "
        f"ip tuntap add dev NAME mode tun user {os.geteuid()}"
    )
    return Finding(topic, "warning", text, advice)


def _sysctl(name: str, default: int) -> int:
    try:
        return int(Path("/proc/sys", *name.split(".")).read_text("ascii"))
    except (OSError, ValueError):
        return default


def _namespaces() -> Finding:
    topic = "namespaces"
    if not Path("/proc/self").exists():
        return Finding(topic, "warning", "/proc is not mounted: it is unknown what is allowed")
    if not Path("/proc/self/ns/net").exists():
        return Finding(topic, "warning", "the kernel has no network namespaces", "the demo will use loopback")
    if "CAP_SYS_ADMIN" in capabilities():
        return Finding(topic, "ok", "network namespaces can be made")
    allowed = _sysctl("user.max_user_namespaces", 0) > 0 and _sysctl("kernel.unprivileged_userns_clone", 1)
    if allowed and not _sysctl("kernel.apparmor_restrict_unprivileged_userns", 0):
        return Finding(topic, "ok", "network namespaces can be made inside user namespaces")
    return Finding(
        topic, "warning", "user namespaces are restricted", "the demo will use loopback unless it is run as root"
    )


def _netlink() -> Finding:
    topic = "pyroute2"
    try:
        version = importlib.metadata.version("pyroute2")
    except importlib.metadata.PackageNotFoundError:
        return Finding(topic, "warning", "not installed", "Adapter.configure() needs it: pip install pyroute2")
    return Finding(topic, "ok", f"{version}, for Adapter.configure()")
