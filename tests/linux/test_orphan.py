"""Interfaces that outlived their process, and what ``Adapter.create(if_exists=...)`` makes of them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import tunring

if TYPE_CHECKING:
    from netns import Namespace

pytestmark = pytest.mark.root


def index_of(namespace: Namespace, name: str) -> int:
    return int(namespace.ip(f"-o link show {name}").split(":")[0])


@pytest.fixture
def orphan(namespace: Namespace) -> int:
    """A persistent interface tun0; its index."""
    namespace.ip("tuntap add dev tun0 mode tun")
    return index_of(namespace, "tun0")


def test_error_leaves_it(orphan: int, namespace: Namespace, tun: tunring.Library) -> None:
    with namespace.entered(), pytest.raises(tunring.AlreadyExists):
        tunring.Adapter.create("tun0", library=tun)
    assert index_of(namespace, "tun0") == orphan


def test_open_serves_it_and_leaves_it(orphan: int, namespace: Namespace, tun: tunring.Library) -> None:
    with namespace.entered():
        adapter = tunring.Adapter.create("tun0", if_exists="open", library=tun)
    assert adapter.ifindex == orphan
    adapter.start_session().close()
    adapter.close()
    assert index_of(namespace, "tun0") == orphan


def test_recreate_replaces_it(orphan: int, namespace: Namespace, tun: tunring.Library) -> None:
    with namespace.entered():
        adapter = tunring.Adapter.create("tun0", if_exists="recreate", library=tun)
    assert index_of(namespace, "tun0") == adapter.ifindex != orphan
    adapter.close()
    assert namespace.interfaces() == {"lo"}, "one that create() made goes away"


def test_recreate_leaves_alone_what_this_process_serves(
    orphan: int, namespace: Namespace, tun: tunring.Library
) -> None:
    with namespace.entered():
        with tunring.Adapter.open("tun0", library=tun) as adapter:
            with pytest.raises(tunring.AlreadyExists, match="this process"):
                tunring.Adapter.create("tun0", if_exists="recreate", library=tun)
            assert adapter.ifindex == orphan
        with tunring.Adapter.create("tun1", library=tun), pytest.raises(tunring.AlreadyExists):
            tunring.Adapter.create("tun1", if_exists="recreate", library=tun)


def test_recreate_leaves_alone_what_another_process_serves(namespace: Namespace, tun: tunring.Library) -> None:
    script = (
        "import sys, tunring; a = tunring.Adapter.create('tun0'); print('up', flush=True); sys.stdin.read(); a.close()"
    )
    with namespace.entered():
        other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"up\n"
    index = index_of(namespace, "tun0")
    with namespace.entered(), pytest.raises(tunring.WintunError) as caught:
        tunring.Adapter.create("tun0", if_exists="recreate", library=tun)
    assert isinstance(caught.value, (tunring.AdapterBusy, tunring.AlreadyExists))
    assert index_of(namespace, "tun0") == index
    other.communicate(b"\n")
    assert other.returncode == 0


@pytest.mark.parametrize("if_exists", ["error", "open", "recreate"])
def test_an_interface_of_another_kind(namespace: Namespace, tun: tunring.Library, if_exists: str) -> None:
    with namespace.entered(), pytest.raises(tunring.WintunError):
        tunring.Adapter.create("lo", if_exists=if_exists, library=tun)
    assert namespace.interfaces() == {"lo"}


# ---- An alternative name, which the kernel finds an interface by as well


@pytest.mark.parametrize("if_exists", ["error", "open", "recreate"])
def test_an_alternative_name(orphan: int, namespace: Namespace, tun: tunring.Library, if_exists: str) -> None:
    namespace.ip("link property add dev tun0 altname office")
    taken = r'"office" is an alternative name of the interface "tun0"'
    with namespace.entered():
        with pytest.raises(tunring.AlreadyExists, match=taken):
            tunring.Adapter.create("office", if_exists=if_exists, library=tun)  # type: ignore[arg-type]
        with pytest.raises(tunring.AlreadyExists, match=taken):
            tunring.Adapter.open("office", library=tun)
    assert index_of(namespace, "tun0") == orphan
    with namespace.entered(), tunring.Adapter.open("tun0", library=tun) as adapter:
        assert adapter.name == "tun0"
