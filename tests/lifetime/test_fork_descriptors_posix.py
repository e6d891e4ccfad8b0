"""Files of a child: no number of its parent's is written to, closed or replaced there. Nor is its parent changed."""

from __future__ import annotations

import forked_ports
import lines
from forks import BEGIN
from running import check_script

# `files()` opens as many as the parent had descriptors, so that every number which the fork has left free is taken.
FILES = """
import tempfile

def files():
    return [tempfile.TemporaryFile() for _ in range(40)]

def untouched(opened):
    for file in opened:
        assert os.fstat(file.fileno()).st_size == 0, "something was written into a file"
        assert file.write(b"x") == 1
        file.flush()
"""


def test_a_notifier_and_a_cancel_leave_the_childs_files_alone() -> None:
    check_script(
        BEGIN
        + FILES
        + """
from tunring import _core
notifier, cancel = _core.Notifier(left), _core.Cancel()

def in_child():
    opened = files()
    notifier.arm()
    notifier.end()
    assert not notifier.wait()
    cancel.set()
    assert cancel.called
    untouched(opened)
child(in_child)

def with_a_session():
    global notifier, cancel
    one, other = tunring.testing.pair()
    assert len(other._receive_or_cancel(1, 0.01, cancel)) == 0
    del notifier, cancel    # whose numbers the sessions have
    works(one, other)
    assert not other.receive(timeout=0.01)
    one.close(); other.close()
child(with_a_session)
cancel.set()
assert not right._receive_or_cancel(1, 20, cancel)
notifier.arm()
left.close()
assert not notifier.wait()
right.close()
"""
    )


def test_a_child_that_closes_a_socket_leaves_its_parents_options() -> None:
    check_script(
        BEGIN
        + """
import socket
taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
taken.bind(("127.0.0.1", 0))
def options():
    return [taken.getsockopt(socket.IPPROTO_IP, option) for option in (8, 13)]   # IP_PKTINFO and IP_RECVTOS
before = options()
udp = tunring.UdpSocket.from_socket(taken)
during = options()
assert during != before
child(udp.close)
assert options() == during, "a child has changed the socket of its parent"
udp.close()
assert options() == before
left.close(); right.close()
"""
    )


def test_a_file_in_the_place_of_the_pipe_for_signals_stays_in_a_child() -> None:
    check_script(
        BEGIN
        + FILES
        + """
def pipes():
    return [int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")
            and os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:") and int(fd) > 2]
assert pipes() == []
assert not left.receive(timeout=0.001)
ends = pipes()
assert len(ends) == 2

def in_child():
    works_anew()
    untouched(opened)

for end in ends:
    os.close(end)
opened = files()
assert {file.fileno() for file in opened} >= set(ends)
child(in_child)
assert not left.receive(timeout=0.001)
works(left, right)
left.close(); right.close()
"""
    )


MAKE = """
def make(port):
    return tunring.UdpSocket.bind(("0.0.0.0", port))

def port_of(made):
    return made.address[1]
"""


def test_a_child_keeps_no_port() -> None:
    forked_ports.check_after(MAKE)


def test_a_child_keeps_no_port_whenever_it_is_forked() -> None:
    forked_ports.check_at_each_line(MAKE)


def test_a_child_that_goes_on_with_a_bind_leaves_its_files_alone() -> None:
    check_script(
        BEGIN
        + FILES
        + lines.BEGIN
        + """
parent = os.getpid()
pids, opened = [], []

def fork(_):
    pids.append(os.fork())
    if os.getpid() != parent:
        opened.extend(files())

def bind(_):
    failure = None
    try:
        tunring.UdpSocket.bind(("127.0.0.1", 0)).close()
    except BaseException as error:
        failure = error
    sys.settrace(None)
    def look():
        if failure and not isinstance(failure, OSError):    # as of a socket that is closed
            raise failure
        untouched(opened)
    if os.getpid() != parent:
        run_in_child(look)
    assert not failure
    while pids:
        _, status = os.waitpid(pids.pop(), 0)
        assert status == 0, f"the child ended with {status}"

at_each_line(lambda: None, bind, fork)
left.close(); right.close()
"""
    )
