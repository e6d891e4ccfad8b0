"""Descriptors: how many there are, and what happens when there are none left."""

from __future__ import annotations

import closed_streams
from running import check_script


def test_none_left_and_then_some_again() -> None:
    out = check_script("""
import os, resource, gc
library = tunring.load("loopback")
left, right = tunring.testing.pair(tunring.MIN_CAPACITY)   # opens what is opened once
left.receive(timeout=0.001)
def count():
    return len(os.listdir("/proc/self/fd"))
before = count()
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
codes = set()
# Every number of free descriptors that might be too few.
for spare in range(0, 12):
    highest = max(map(int, os.listdir("/proc/self/fd")))
    filler = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 40, hard))
    while True:
        try:
            filler.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            break
    for _ in range(spare):
        os.close(filler.pop())
    try:
        adapter = tunring.Adapter.create("short", library=library)
        try:
            with adapter, adapter.start_session() as session:
                session.send([packet()])
        finally:
            adapter.close()
    except tunring.WintunError as error:
        codes.add((error.winerror, error.errno))
    else:
        codes.add(None)
    try:
        one, other = tunring.testing.pair(tunring.MIN_CAPACITY)
        one.close()
        other.close()
    except tunring.WintunError as error:
        codes.add((error.winerror, error.errno))
    # Open sessions go on.
    left.send([packet()])
    with right.receive(timeout=1) as batch:
        assert len(batch) == 1
    for fd in filler:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert count() == before, (spare, count(), before)
import errno
assert codes == {None, (4, errno.EMFILE)}, codes
for session in tunring.testing.pair():
    session.close()
gc.collect()
left.close(); right.close()
""")
    assert out == ""


def test_none_left_for_the_first_wait() -> None:
    check_script("""
import os, resource
left, right = tunring.testing.pair(tunring.MIN_CAPACITY)
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (60, hard))
filler = []
while True:
    try:
        filler.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        break
for spare in (0, 1):
    try:
        right.receive(timeout=0.01)
    except OSError:
        pass
    else:
        raise AssertionError("a wait without a pipe")
    os.close(filler.pop())
    try:
        tunring.set_logger(lambda level, text: None, tunring.load("loopback"))
    except OSError as error:
        assert error.winerror == 4
for fd in filler:
    os.close(fd)
assert not right.receive(timeout=0.01)
left.send([packet()])
right.receive(timeout=1).release()
left.close(); right.close()
""")


def test_thousands_of_sessions_leave_none() -> None:
    check_script("""
import os
for turn in range(2000):
    for session in tunring.testing.pair(tunring.MIN_CAPACITY):
        session.close()
    if turn == 10:
        before = len(os.listdir("/proc/self/fd"))
assert len(os.listdir("/proc/self/fd")) == before
""")


def test_they_are_not_inherited() -> None:
    out = check_script("""
import subprocess, sys, os
left, right = tunring.testing.pair(tunring.MIN_CAPACITY)
left.receive(timeout=0.001)
tunring.set_logger(lambda level, text: None, tunring.load("loopback"))
show = "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[3:])"
subprocess.run([sys.executable, "-c", show], close_fds=False)
left.close(); right.close()
""")
    assert out.count(",") <= 0, f"inherited: {out}"


SESSIONS = """
def use(left, right):
    assert not right.receive(timeout=0.01)
    left.send([packet()])
    with right.receive(timeout=5) as batch:
        assert len(batch) == 1

async def use_async(left, right):
    waiting = asyncio.create_task(right.receive_async(timeout=5))
    await asyncio.sleep(0.01)
    left.send([packet()])
    with await waiting as batch:
        assert len(batch) == 1

def main():
    logged = []
    tunring.set_logger(lambda level, text: logged.append(text), tunring.load("loopback"))
    left, right = tunring.testing.pair(tunring.MIN_CAPACITY)
    use(left, right)
    loop = asyncio.SelectorEventLoop()          # whose own descriptors may well be 0 to 2
    used = standard_streams()
    loop.run_until_complete(use_async(left, right))
    mine = standard_streams().keys() - used.keys()
    loop.close()
    assert not mine, mine
    assert not standard_streams()
    redirect()
    use(left, right)
    left.close(); right.close()
"""


def test_none_of_ours_is_a_standard_stream() -> None:
    check_script(closed_streams.BEGIN + SESSIONS + closed_streams.END)


def test_a_program_that_closes_all_descriptors() -> None:
    """Every wait ends, though there is nothing left to wait for; what is made afterwards works."""
    check_script("""
import os, threading, time
left, right = tunring.testing.pair(tunring.MIN_CAPACITY)
assert not right.receive(timeout=0.001)
os.closerange(3, 100)
def waits(session):
    began = time.monotonic()
    try:
        session.receive(timeout=20)
    except tunring.SessionClosed as error:
        assert error.reason == "removed", error.reason
    else:
        raise AssertionError("a receive goes on")
    assert time.monotonic() - began < 5
thread = threading.Thread(target=waits, args=(left,))
thread.start()
thread.join()
waits(right)
one, other = tunring.testing.pair(tunring.MIN_CAPACITY)
assert not other.receive(timeout=0.01)
one.send([packet()])
with other.receive(timeout=5) as batch:
    assert len(batch) == 1
for session in (one, other, left, right):
    session.close()
""")


def test_a_close_under_a_wait_without_descriptors() -> None:
    """Neither hears of the closing: the wait sleeps, and the event that would end it is gone."""
    check_script("""
import os, threading, time
def waits(call):
    try:
        call()
    except tunring.SessionClosed:
        return
    raise AssertionError("it goes on")
udp = tunring.UdpSocket.bind(("127.0.0.1", 0))
left, right = tunring.testing.pair(tunring.MIN_CAPACITY)
threads = [threading.Thread(target=waits, args=(source.receive,)) for source in (right, udp)]
for thread in threads:
    thread.start()
time.sleep(0.2)
os.closerange(3, 100)
began = time.monotonic()
for source in (right, udp, left):
    source.close()
for thread in threads:
    thread.join(5)
    assert not thread.is_alive()
assert time.monotonic() - began < 5
""")


def test_files_that_have_our_numbers() -> None:
    """They are neither written to nor closed, whatever is closed and whatever ends."""
    check_script("""
import os, socket, tempfile
import tunring.pcapng
left, right = tunring.testing.pair(tunring.MIN_CAPACITY)
assert not right.receive(timeout=0.001)
tunring.set_logger(lambda level, text: None, tunring.load("loopback"))
udp = tunring.UdpSocket.bind(("127.0.0.1", 0))
folder = tempfile.mkdtemp()
writer = tunring.pcapng.Writer(os.path.join(folder, "capture"))
writer.flush()
os.closerange(3, 100)
files = [tempfile.TemporaryFile(buffering=0) for _ in range(15)]
pipes = [os.pipe() for _ in range(15)]
sockets = [socket.socketpair() for _ in range(15)]
for file in files:
    file.write(b"12345")
for source in (left, right, udp):
    source.close()
try:
    writer.close()
except OSError:
    pass
for file in files:
    assert os.fstat(file.fileno()).st_size == 5
for read, write in pipes:
    os.set_blocking(read, False)
    os.write(write, b"x")
    assert os.read(read, 100) == b"x"
for one, other in sockets:
    one.setblocking(False)
    other.send(b"y")
    assert one.recv(100) == b"y"
if os.fork() == 0:                              # a child closes ours, and only those
    for file in files:
        assert os.fstat(file.fileno()).st_size == 5
    os._exit(0)
_, status = os.wait()
assert status == 0
""")


def test_a_closed_session_has_none() -> None:
    """Only memory stays while something of its packets lives."""
    out = check_script("""
import os, gc
left, right = tunring.testing.pair(tunring.MIN_CAPACITY)
right.receive(timeout=0.001)
def count():
    return len(os.listdir("/proc/self/fd"))
kept = []
for turn in range(40):
    left.send([packet(number=turn)])
    kept.append(right.receive(timeout=5)[0][:])
    left.close(); right.close()
    if turn == 0:
        before = count()
    assert count() == before, (turn, count(), before)
    left, right = tunring.testing.pair(tunring.MIN_CAPACITY)
left.close(); right.close()
assert [bytes(view) for view in kept] == [packet(number=turn) for turn in range(40)]
del kept
""")
    assert out == ""
