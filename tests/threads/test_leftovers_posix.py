"""max_packets=1 on a burst: nobody who waits for the descriptor sleeps beside packets."""

from __future__ import annotations

import errno
import select
import selectors
from typing import TYPE_CHECKING

import pytest

import tunring
from bursts import by_receive, check_bursts

if TYPE_CHECKING:
    from collections.abc import Callable

    Pair = tuple[tunring.Session, tunring.Session]


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
    "select": by_waiting(select_wait),
    "poll": by_waiting(poll_wait),
    "epoll": by_waiting(epoll_wait),
    "selectors": by_waiting(selector_wait),
}


@pytest.mark.parametrize("kinds", [*([kind] * 3 for kind in WAITERS), ["receive", *WAITERS]], ids=[*WAITERS, "all"])
def test_all_of_a_burst_are_taken(pair: Pair, kinds: list[str]) -> None:
    check_bursts(*pair, [WAITERS.get(kind, by_receive) for kind in kinds])
