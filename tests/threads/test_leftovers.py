"""max_packets=1 on a burst: no waiter sleeps beside packets."""

from __future__ import annotations

import errno
import select
import selectors
import time
from typing import TYPE_CHECKING

import pytest

import tunring
from packets import packet
from running import Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    Pair = tuple[tunring.Session, tunring.Session]

BURST = 200


def by_receive(session: tunring.Session) -> int:
    got = 0
    for batch in session.batches(1):
        assert len(batch) == 1
        got += 1
    return got


def by_waiting(make: Callable[[tunring.Session], Callable[[], object]]) -> Callable[[tunring.Session], int]:
    def take(session: tunring.Session) -> int:
        got = 0
        try:
            wait = make(session)
            while True:
                wait()
                with session.receive(1, timeout=0) as batch:
                    got += len(batch)
        except ValueError:
            return got  # a closed session has no descriptor
        except OSError as error:
            # close() may come between the question for the descriptor and the wait for it.
            assert isinstance(error, tunring.SessionClosed) or error.errno == errno.EBADF
            return got

    return take


def select_wait(session: tunring.Session) -> Callable[[], object]:
    return lambda: select.select([session], [], [], 20)


def poll_wait(session: tunring.Session) -> Callable[[], object]:
    poll = select.poll()
    poll.register(session, select.POLLIN)
    return lambda: poll.poll(20000)


def epoll_wait(session: tunring.Session) -> Callable[[], object]:
    epoll = select.epoll()
    epoll.register(session, select.EPOLLIN)
    # A descriptor that is closed leaves its epoll silently, so ask now and then.
    return lambda: epoll.poll(0.05)


def selector_wait(session: tunring.Session) -> Callable[[], object]:
    selector = selectors.PollSelector()
    selector.register(session, selectors.EVENT_READ)
    return lambda: selector.select(20)


WAITERS = {
    "receive": by_receive,
    "select": by_waiting(select_wait),
    "poll": by_waiting(poll_wait),
    "epoll": by_waiting(epoll_wait),
    "selectors": by_waiting(selector_wait),
}


@pytest.mark.parametrize("kinds", [*[[kind] * 3 for kind in WAITERS], list(WAITERS)], ids=[*WAITERS, "all"])
def test_all_of_a_burst_are_taken(pair: Pair, kinds: list[str]) -> None:
    left, right = pair
    total = 0
    with Threads() as threads:
        for kind in kinds:
            threads.start(WAITERS[kind], right)
        for _ in range(10):
            time.sleep(0.005)
            total += left.send([packet()] * BURST)
            limit = time.monotonic() + 10
            while right.stats().received_packets < total:
                assert time.monotonic() < limit, f"asleep beside {total - right.stats().received_packets} packets"
                time.sleep(0.0005)
        right.close()
    assert sum(threads.results) == total == 10 * BURST
