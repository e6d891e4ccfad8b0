"""Arguments that several commands take, and their checks."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING

from tunring.configuration._checks import check_interface, check_mtu

if TYPE_CHECKING:
    from ipaddress import IPv4Interface, IPv6Interface

#: For --json of every command.
JSON_HELP = "print one JSON object at the end, and nothing else on standard output"


def seconds(text: str) -> float:
    """A time to run."""
    with suppress(ValueError):
        if 0 < float(text) <= 86400:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be more than 0 and at most 86400 seconds, not {text!r}")


def count(text: str) -> int:
    """A number of packets."""
    with suppress(ValueError):
        if 1 <= int(text) < 1 << 63:
            return int(text)
    raise argparse.ArgumentTypeError(f"must be a number of at least 1, not {text!r}")


def address(text: str) -> IPv4Interface | IPv6Interface:
    """An address with a prefix length."""
    try:
        return check_interface(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def mtu(text: str) -> int:
    """An MTU in bytes."""
    try:
        return check_mtu(int(text), with_ipv6=False)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
