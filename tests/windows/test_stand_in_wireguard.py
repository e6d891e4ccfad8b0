"""``tunring wireguard`` over the official DLL: by a file, by wg.exe's pipe, and to the end."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from running import check_script, run_script

if TYPE_CHECKING:
    from pathlib import Path

assert sys.platform == "win32"

#: A peer in this process, whose packets go through a cable in memory. Wine's IP Helper API changes nothing: the tests'
#: own does, for the interface that the command makes.
BEGIN = """
import _thread, signal, threading
from pathlib import Path
import iphelper_fake
from running import eventually
from tunring.__main__ import main
from tunring._system import iphelper_windows
from tunring.configuration import _windows
from tunring.wireguard import Device, Key, PublicKey, _mtu_windows
from tunring.wireguard._control_client import ask
from tunring.wireguard._control_place import connect, path_of
from wireguard_ends import ipv4

theirs = Key.generate()
host, session = tunring.testing.pair()
peer = Device(session, private_key=theirs)
made = []
create = tunring.Adapter.create

def create_with_interface(*arguments, **options):
    adapter = create(*arguments, **options)
    iphelper_fake.LUID = adapter.luid
    api = iphelper_fake.FakeIpHelper()
    api.give_route("0.0.0.0/0", "192.0.2.1")
    for module in (iphelper_windows, _windows, _mtu_windows):
        module.ip_helper = lambda: api
    other = create("system of " + adapter.name, library=library)
    libraries.connect(adapter, other)
    made.append((adapter, api, other, other.start_session()))
    return adapter

tunring.Adapter.create = create_with_interface
problems = []

def guarded(work):
    def run():
        try:
            assert eventually(lambda: made)
            work()
        except BaseException as error:
            problems.append(repr(error))
        finally:
            _thread.interrupt_main(getattr(signal, END))
    threading.Thread(target=run, daemon=True).start()
"""


def config(key: str, peer: str, port: str, *, extra: str = "") -> str:
    return f"""[Interface]
PrivateKey = {{{key}}}
Address = 10.9.0.1/24, fd09::1/64
MTU = 1380
{extra}
[Peer]
PublicKey = {{{peer}}}
Endpoint = 127.0.0.1:{{{port}}}
AllowedIPs = 10.9.0.2/32
"""


@pytest.mark.parametrize("end", ["SIGINT", "SIGBREAK"])
def test_by_a_file(name: str, tmp_path: Path, end: str) -> None:
    file = tmp_path / "wg.conf"
    text = config("ours.base64", "theirs.public.base64", "peer.listen_port", extra="SaveConfig = true")
    done = run_script(
        f"""
END = "{end}"
{BEGIN}
ours = Key.generate()
Path({str(file)!r}).write_text(f{text!r})

def work():
    adapter, api, _, system = made[0]
    assert eventually(lambda: ask(path_of({name!r}))["peers"])
    told = ask(path_of({name!r}))
    assert told["public_key"] == ours.public.base64 and len(told["peers"]) == 1
    addresses = {{"10.9.0.1/24", "fd09::1/64"}}
    assert eventually(lambda: addresses <= set(map(str, adapter.configuration().addresses)))
    assert [row.mtu for row in api.interfaces if row.luid == adapter.luid] == [1380, 1380]
    with peer:
        peer.add_peer(ours.public, allowed_ips=["10.9.0.1/32"])
        out, back = ipv4("10.9.0.1", "10.9.0.2"), ipv4("10.9.0.2", "10.9.0.1")
        system.send([out])
        with host.receive(timeout=20) as batch:
            assert batch.tobytes() == [out]
        host.send([back])
        with system.receive(timeout=20) as batch:
            assert batch.tobytes() == [back]
    # At the end, it is written to the file.
    (known,) = told["peers"]
    with connect(path_of({name!r})) as stream:
        stream.write(f"set=1\\npublic_key={{PublicKey(known['public_key']).hex}}\\n"
                     "persistent_keepalive_interval=21\\n\\n".encode())
        stream.flush()
        assert stream.readline() == b"errno=0\\n"

guarded(work)
code = main(["wireguard", {name!r}, "--config", {str(file)!r}, "--foreground", "--json"])
assert not problems, problems
assert code == 0, code
try:
    ask(path_of({name!r}))
except FileNotFoundError:
    pass
else:
    raise AssertionError("the pipe is still there")
""",
        library="wintun",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["interface"] == name
    assert report["ended_by"] == "signal"
    (peer,) = report["peers"]
    assert peer["received_bytes"] > 100
    assert "PersistentKeepalive = 21" in file.read_text("utf-8")


def test_a_full_tunnel_leaves_a_way_to_the_endpoint(name: str, tmp_path: Path) -> None:
    file = tmp_path / "wg.conf"
    text = config("ours.base64", "theirs.public.base64", "peer.listen_port").replace("10.9.0.2/32", "0.0.0.0/0")
    text = text.replace("127.0.0.1:", "192.0.2.7:")
    check_script(
        f"""
END = "SIGINT"
{BEGIN}
ours = Key.generate()
Path({str(file)!r}).write_text(f{text!r})

def work():
    adapter, api, _, system = made[0]
    assert eventually(lambda: [row for row in api.routes if row.luid == adapter.luid and not row.destination.length])
    assert eventually(lambda: [row for row in api.routes if row.luid != adapter.luid
                               and str(row.destination.prefix.host) == "192.0.2.7"])

guarded(work)
code = main(["wireguard", {name!r}, "--config", {str(file)!r}, "--foreground"])
assert not problems, problems
assert code == 0, code
adapter, api, _, system = made[0]
assert not [row for row in api.routes if str(row.destination.prefix.host) == "192.0.2.7"]
""",
        library="wintun",
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [("FwMark = 7", "mark must be None or 0 on Windows, not 7"), ("Table = 12", "Table = 12: Windows has no routing")],
)
def test_what_windows_lacks_is_refused_first(name: str, tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "wg.conf"
    file.write_text(f"[Interface]\nPrivateKey = {'A' * 42}8=\n{line}\n", "utf-8")
    done = run_script(
        f"""
import sys
from tunring.__main__ import main
sys.exit(main(["wireguard", {name!r}, "--config", {str(file)!r}, "--foreground"]))
""",
        library="wintun",
    )
    assert done.returncode not in (0, None)
    assert words in done.stderr


@pytest.mark.parametrize("command", ["main(['wireguard', NAME])", "service([NAME])"])
def test_it_stays_in_the_foreground(name: str, command: str) -> None:
    done = run_script(f"""
import sys
from tunring.__main__ import main
from tunring.cli.wireguard_service import main as service
NAME = {name!r}
sys.exit({command})
""")
    assert done.returncode not in (0, None)
    assert "pass --foreground" in done.stderr
