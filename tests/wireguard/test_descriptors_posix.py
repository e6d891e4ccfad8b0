"""Descriptors: none is a standard stream, and a forked child has nothing of a port or of the control socket."""

from __future__ import annotations

import closed_streams
import forked_ports
from forks import BEGIN
from running import check_script

MAKE_DEVICE = """
from tunring.wireguard import Device, Key

def make(port):
    return Device(left, private_key=Key.generate(), listen_port=port)

def port_of(made):
    return made.listen_port
"""

MAKE_TUNNEL_SOCKET = """
from tunring.wireguard._socket import TunnelSocket

def make(port):
    return TunnelSocket(port, 0)

def port_of(made):
    return made.port
"""

TUNNEL = """
import tempfile
from pathlib import Path
from tunring.wireguard import Device, Key
from tunring.wireguard._control_client import ask
from tunring.wireguard._control_socket import ControlServer, connect

def main():
    left, right = tunring.testing.pair()
    udp = tunring.UdpSocket.bind(("127.0.0.1", 0))
    device = Device(left, private_key=Key.generate())
    path = Path(tempfile.gettempdir(), f"tunring-{os.getpid()}.sock")
    server = ControlServer(path)
    server.start(device)
    client = connect(path)
    client.write(b"get=1\\n\\n")
    client.flush()
    assert client.readline()                    # so that the server has its own side of it
    assert not standard_streams(), standard_streams()
    redirect()
    device.mark = 0
    device.listen_port = 0
    assert ask(path)["listen_port"] == device.listen_port
    udp.send([b"data"], udp.address)
    with udp.receive(timeout=5) as batch:
        assert batch.tobytes() == [b"data"]
    client.close(); server.close(); device.close(); udp.close(); left.close(); right.close()
    assert standard_streams() == {fd: "/dev/null" for fd in (0, 1, 2)}
"""


def test_none_is_a_standard_stream() -> None:
    check_script(closed_streams.BEGIN + TUNNEL + closed_streams.END)


def test_a_child_keeps_no_port() -> None:
    forked_ports.check_after(MAKE_DEVICE)


def test_a_child_keeps_no_port_whenever_it_is_forked() -> None:
    forked_ports.check_at_each_line(MAKE_TUNNEL_SOCKET)


def test_a_child_has_nothing_of_a_control_socket() -> None:
    """Neither the server's side nor a client's: both see the end when the parent hangs up."""
    check_script(
        BEGIN
        + """
import socket, tempfile
from pathlib import Path
from tunring.wireguard import Device, Key
from tunring.wireguard._control_socket import ControlServer

def sockets():
    return {fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")
            and os.readlink(f"/proc/self/fd/{fd}").startswith(("socket:", "net:"))}

before = sockets()
device = Device(left, private_key=Key.generate())
path = Path(tempfile.gettempdir(), f"tunring-{os.getpid()}.sock")
server = ControlServer(path)
server.start(device)
with socket.socket(socket.AF_UNIX) as client:
    client.connect(str(path))
    client.sendall(b"get=1\\n\\n")
    assert client.recv(1)
    def look():
        assert sockets() - before == {str(client.fileno())}
        server.close()
        device.close()
    child(look)
    assert server.is_there()
server.close()
device.close()
left.close(); right.close()
"""
    )
