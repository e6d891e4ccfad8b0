"""fork() while other threads are inside calls: the child's sessions are over, its views stay, the parent's go on."""

from __future__ import annotations

from forks import BEGIN
from running import check_script


def test_what_the_child_may_do() -> None:
    check_script(
        BEGIN
        + """
left.send([packet(100, number=i) for i in range(8)])
batch = right.receive(4)
other = right.receive(2)
views = list(batch)
slices = [view[4:8] for view in batch]
iterator = right.batches()
reservation = left.reserve([20, 40, 40])
slots = reservation.__enter__()

def in_child():
    for session in (left, right):
        assert session.closed
        forked(session.receive)
        forked(session.receive, timeout=0)
        forked(session.send, [packet()])
        forked(session.send, batch)
        forked(session.send_packed, packet(), [20])
        forked(session.reserve, [20])
        forked(session.fileno)
        session.stats(), session.capacity, repr(session), session.adapter.name, session.adapter.luid
    assert list(iterator) == []
    forked(session.adapter.start_session)
    # Views are private copies now.
    assert [bytes(view) for view in views] == [packet(100, i) for i in range(4)]
    views[0][4:8] = b"mine"
    assert bytes(slices[0]) == b"mine"
    assert batch.tobytes()[1:] == [packet(100, i) for i in range(1, 4)]
    batch.release()
    assert batch.released
    try:
        views[0][0]
    except ValueError:
        pass
    else:
        raise AssertionError("a view outlives release()")
    assert bytes(slices[1]) == packet(100, 1)[4:8]
    slots[0][:] = packet()
    slots[1][:20] = packet()
    slots.shrink(1, 20)
    slots.drop(2)
    forked(reservation.__exit__, None, None, None)
    for session in (left, right):
        session.close()
        session.adapter.close()
    works_anew()

for turn in range(3):
    child(in_child)
assert [bytes(view) for view in views] == [packet(100, i) for i in range(4)]
slots[0][:] = packet(number=77)
assert len(slots[1]) == len(slots[2]) == 40  # the children changed their own
slots.drop(1)
slots[2][:20] = packet(number=78)
slots.shrink(2, 20)
reservation.__exit__(None, None, None)
batch.release(); other.release()
with right.receive(timeout=5) as rest:
    assert [int.from_bytes(data[4:8], "big") for data in rest.tobytes()] == [6, 7, 77, 78]
    assert list(rest.lengths) == [100, 100, 20, 20]
works(left, right); works(right, left)
left.close(); right.close()
""",
        "-X",
        "dev",
    )


def test_while_other_threads_are_inside_calls() -> None:
    check_script(
        BEGIN
        + """
full, far = tunring.testing.pair(tunring.MIN_CAPACITY)
full.send([packet()] * 100000, on_full="partial")
stop = threading.Event()

def forward(source, target):
    for batch in source.batches(64):
        target.send(batch)

def feed():
    while not stop.is_set():
        left.send([packet(200)] * 100, timeout=0.1)
        with left.reserve([60], on_full="wait") as slots:
            slots[0][:] = packet(60)

def churn():
    while not stop.is_set():
        one, other = tunring.testing.pair(tunring.MIN_CAPACITY)
        works(one, other)
        other.close(); one.close()

def complain():
    library = tunring.load("loopback")
    while not stop.is_set():
        try:
            tunring.Adapter.open("nobody", library=library)
        except tunring.NotFound:
            pass

tunring.set_logger(lambda level, text: None, tunring.load("loopback"))
def quietly(call, *arguments):
    try:
        call(*arguments)
    except tunring.SessionClosed:
        pass
threads = [threading.Thread(target=quietly, args=job, daemon=True) for job in [
    (forward, right, right), (forward, left, left), (feed,), (churn,), (complain,),
    (full.send, [packet()]), (full.receive,), (full.receive, 1),
]]
for thread in threads:
    thread.start()

def in_child():
    for session in (left, right, full, far):
        forked(session.receive)
        forked(session.send, [packet()])
        forked(session.reserve, [20], on_full="wait")
        session.close()
    one, other = tunring.testing.pair()
    works(one, other)
    other.close(); one.close()

for turn in range(40):
    child(in_child)
    time.sleep(0.003)
stop.set()
for session in (full, far, left, right):
    session.close()
for thread in threads:
    thread.join()
""",
    )


def test_the_childs_descriptors_are_closed() -> None:
    check_script(
        BEGIN
        + """
left.receive(timeout=0.001)
tunring.set_logger(lambda level, text: None, tunring.load("loopback"))
def in_child():
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            pass
    assert not [path for path in found.values() if "eventfd" in path], found
child(in_child)
tunring.set_logger(None, tunring.load("loopback"))
works(left, right)
left.close(); right.close()
"""
    )


def test_a_wait_in_the_childs_main_thread_can_be_interrupted() -> None:
    check_script(
        BEGIN
        + """
left.receive(timeout=0.001)
def in_child():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    one, other = tunring.testing.pair()
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        one.receive(timeout=5)
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("no Ctrl-C in the child")
child(in_child)
left.close(); right.close()
"""
    )


def test_the_child_of_a_thread_that_waits_elsewhere_may_wait_too() -> None:
    check_script(
        BEGIN
        + """
def fork_from_a_thread():
    def in_child():
        one, other = tunring.testing.pair()
        assert not one.receive(timeout=0.01)
        works(one, other)
    child(in_child)
thread = threading.Thread(target=fork_from_a_thread)
thread.start()
assert not left.receive(timeout=0.1)
thread.join()
works(left, right)
left.close(); right.close()
"""
    )


def test_the_childs_log_lines() -> None:
    check_script(
        BEGIN
        + """
import queue
library = tunring.load("loopback")
lines = queue.Queue()
tunring.set_logger(lambda level, text: lines.put(text), library)
def complain(name):
    try:
        tunring.Adapter.open(name, library=library)
    except tunring.NotFound:
        pass
complain("parent")
assert "parent" in lines.get(timeout=5)
def in_child():
    mine = queue.Queue()
    tunring.set_logger(lambda level, text: mine.put(text), library)
    complain("child")
    assert "child" in mine.get(timeout=5)
child(in_child)
complain("again")
assert "again" in lines.get(timeout=5)
left.close(); right.close()
"""
    )


def test_a_child_that_ends_as_programs_end() -> None:
    out = check_script(
        BEGIN
        + """
left.send([packet()] * 3)
batch = right.receive()
views = [view[:] for view in batch]
pid = os.fork()
if pid == 0:
    signal.alarm(10)
    sys.exit(0)     # everything is torn down in the child
_, status = os.waitpid(pid, 0)
print(status)
assert [bytes(view) for view in views] == [packet()] * 3
batch.release()
views.clear()
works(left, right)
left.close(); right.close()
"""
    )
    assert out.split() == ["0"]


def test_a_grandchild() -> None:
    check_script(
        BEGIN
        + """
def in_child():
    one, other = tunring.testing.pair()
    def in_grandchild():
        forked(left.receive)
        forked(one.receive)
        works_anew()
    child(in_grandchild)
    works(one, other)
    forked(left.receive)
child(in_child)
works(left, right)
left.close(); right.close()
"""
    )


#: `busy` is a function that runs while the main thread waits in a session; then a signal comes.
WAITS = """
signal.signal(signal.SIGUSR1, lambda *_: None)
def while_waiting(session, busy):
    failed = []
    def run():
        time.sleep(0.1)
        try:
            busy()
        except BaseException:
            failed.append(traceback.format_exc())
    thread = threading.Thread(target=run)
    thread.start()
    session.receive(timeout=0.5)
    thread.join()
    assert not failed, failed[0]
"""

FILES = """
import socket, tempfile
def files_stay_as_they_are():
    files = [tempfile.TemporaryFile(buffering=0) for _ in range(10)]
    pairs = [socket.socketpair() for _ in range(10)]
    for one, other in pairs:
        one.setblocking(False)
        other.setblocking(False)
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.02)
    for file in files:
        assert os.fstat(file.fileno()).st_size == 0, file.fileno()
    for pair in pairs:
        for end in pair:
            try:
                assert not end.recv(10), end.fileno()
            except BlockingIOError:
                pass
"""


def test_a_child_does_not_write_signals_into_its_files() -> None:
    check_script(
        BEGIN
        + WAITS
        + FILES
        + """
def in_child():
    files_stay_as_they_are()
    assert signal.set_wakeup_fd(-1) == -1, "the parent's wait is not the child's"
while_waiting(left, lambda: child(in_child))

import multiprocessing
def fork_by_multiprocessing():
    process = multiprocessing.get_context("fork").Process(target=in_child)
    process.start()
    process.join(10)
    assert process.exitcode == 0, process.exitcode
while_waiting(left, fork_by_multiprocessing)
works(left, right)
left.close(); right.close()
"""
    )


def test_a_fork_that_python_knows_nothing_of() -> None:
    """Its child still has a wake-up descriptor: one that is nobody else's."""
    check_script(
        BEGIN
        + WAITS
        + FILES
        + """
import ctypes
def fork_beside_python():
    pid = ctypes.PyDLL(None).fork()   # keeps the GIL, so that the child may run Python code
    if pid == 0:
        run_in_child(files_stay_as_they_are)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
while_waiting(left, fork_beside_python)
works(left, right)
left.close(); right.close()
"""
    )


def test_a_child_has_the_programs_own_wakeup_descriptor() -> None:
    check_script(
        BEGIN
        + WAITS
        + """
import socket
reader, writer = socket.socketpair()
reader.setblocking(False)
writer.setblocking(False)
signal.set_wakeup_fd(writer.fileno())
def in_child():
    os.kill(os.getpid(), signal.SIGUSR1)
    time.sleep(0.02)
    assert reader.recv(10) == bytes([signal.SIGUSR1])
    assert signal.set_wakeup_fd(-1) == writer.fileno()
while_waiting(left, lambda: child(in_child))
assert signal.set_wakeup_fd(-1) == writer.fileno()

# One whose owner closes it meanwhile is nobody's.
signal.set_wakeup_fd(writer.fileno())
number = writer.fileno()
def close_and_fork():
    writer.close()
    taken = socket.socketpair()
    assert number in [end.fileno() for end in taken]
    def in_child():
        assert signal.set_wakeup_fd(-1) == -1
    child(in_child)
while_waiting(left, close_and_fork)
assert signal.set_wakeup_fd(-1) == -1
left.close(); right.close()
"""
    )


def test_a_handler_that_forks_during_a_wait() -> None:
    check_script(
        BEGIN
        + """
def fork_here(*_):
    def in_child():
        assert signal.set_wakeup_fd(-1) == -1
        works_anew()
        forked(left.receive)
    child(in_child)
signal.signal(signal.SIGUSR1, fork_here)
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
assert not left.receive(timeout=0.3)
works(left, right)
left.close(); right.close()
"""
    )


def test_forks_while_others_make_and_close_sessions() -> None:
    """No child has a descriptor that it doesn't know of, whenever the fork was."""
    check_script(
        BEGIN
        + """
left.receive(timeout=0.001)
stop = threading.Event()
def churn():
    while not stop.is_set():
        for session in tunring.testing.pair(tunring.MIN_CAPACITY):
            session.close()
threads = [threading.Thread(target=churn) for _ in range(3)]
for thread in threads:
    thread.start()
def in_child():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass
    assert not [path for path in found if "eventfd" in path], found
for _ in range(100):
    child(in_child)
stop.set()
for thread in threads:
    thread.join()
left.close(); right.close()
"""
    )


def test_a_child_does_not_call_its_parents_event_loops() -> None:
    """One of their locks may have been held by another thread at the fork."""
    check_script(
        BEGIN
        + """
import asyncio
from tunring._loops.tasks import Tasks
async def main():
    waiting = asyncio.create_task(right.receive_async())
    await asyncio.sleep(0.01)
    Tasks.session_closed = lambda self: os._exit(3)
    child(right.close)
    waiting.cancel()
original = Tasks.session_closed
try:
    asyncio.run(main())
finally:
    Tasks.session_closed = original
left.close(); right.close()
"""
    )
