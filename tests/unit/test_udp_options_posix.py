"""Options of sockets on Linux: what is set on them, read back from the kernel, and put back at the end."""

from __future__ import annotations

import pytest

import tunring
from tunring import _udp


@pytest.mark.parametrize(
    ("release", "mangles"),
    [
        *(
            (release, True)
            for release in ("7.0", "7.0.0", "7.0-rc1", "7.0.5-200.fc44.x86_64", "7.1.4", "7.1.4-arch1-1")
        ),
        *((release, True) for release in ("7.0.5+deb14-amd64", "7.1.2+deb13-cloud-amd64", "7.1.0+", "7.1.4_1", "7.1+")),
        *((release, False) for release in ("6.1.0-49-amd64", "6.19.14+deb14-amd64", "6.99", "7.1.5", "7.1.10+", "7.2")),
        *((release, False) for release in ("7.1.40_1", "7.10.1", "8.0.0", "70.1", "17.0.1", "", "unknown", "7")),
    ],
)
def test_kernels_that_mangle_runs_get_none(monkeypatch: pytest.MonkeyPatch, release: str, mangles: bool) -> None:
    monkeypatch.setattr(_udp.platform, "release", lambda: release)
    monkeypatch.setattr(_udp, "_supports", lambda sock, option: True)
    monkeypatch.delenv("TUNRING_UDP_OFFLOADS", raising=False)
    with tunring.UdpSocket.bind(("127.0.0.1", 0)) as udp:
        assert udp.stats().segment is not mangles
    with tunring.UdpSocket.bind(("127.0.0.1", 0), segment=True) as udp:
        assert udp.stats().segment  # whoever asks gets them
