"""When a peer is sent what: each rule alone, by time stamps as C has them, and at random against a watchdog."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunring.wireguard._timers import NEVER, SECOND, Due, Limits, Timers

START = 1000 * SECOND


@dataclass
class Stamps:
    unanswered_since: int = 0
    unacknowledged_since: int = 0
    last_data_sent: int = 0
    last_sent: int = 0
    last_received: int = 0
    newest_born: int = 0

    def send_data(self, now: int) -> None:
        self.unanswered_since = self.unanswered_since or now
        self.last_data_sent = now
        self.send(now)

    def send(self, now: int) -> None:
        self.last_sent, self.unacknowledged_since = now, 0

    def receive_data(self, now: int) -> None:
        self.receive(now)
        self.unacknowledged_since = self.unacknowledged_since or now

    def receive(self, now: int) -> None:
        self.last_received, self.unanswered_since = now, 0


def make() -> Timers:
    return Timers(jitter=lambda maximum: maximum)


def test_nothing_is_due() -> None:
    assert make().look(START, Stamps()) == Due()


def test_a_handshake_is_tried_for_ninety_seconds() -> None:
    timers, stamps = make(), Stamps()
    timers.want(START)
    now, sent = START, []
    while not (due := timers.look(now, stamps)).give_up:
        assert due.initiate == (due.next == now)
        if due.initiate:
            assert due.unanswered == bool(sent)
            sent.append(now)
            timers.initiated(now)
            stamps.send(now)
        else:
            now = due.next
    assert len(sent) == 17
    assert {b - a for a, b in itertools.pairwise(sent)} == {5 * SECOND + SECOND // 3}
    assert START + 90 * SECOND <= now < START + 96 * SECOND
    assert timers.look(now, stamps) == Due()
    # Wanted again, it begins at once: the last initiation is old enough.
    timers.want(now)
    assert timers.look(now, stamps).initiate


def test_what_could_not_be_sent_does_not_hold_up_the_next_try() -> None:
    timers, stamps = make(), Stamps()
    timers.want(START)
    assert timers.look(START, stamps).initiate
    timers.unable(START)
    due = timers.look(START, stamps)
    assert (due.initiate, due.next) == (False, START + 5 * SECOND)
    timers.hurry(START + SECOND)
    assert timers.look(START + SECOND, stamps).initiate
    timers.initiated(START + SECOND)
    # Another one has to wait, as something was sent.
    timers.hurry(START + 2 * SECOND)
    assert timers.look(START + 2 * SECOND, stamps).next == START + 6 * SECOND
    timers.completed()
    timers.hurry(START + 3 * SECOND)
    assert timers.look(START + 3 * SECOND, stamps) == Due()


def test_what_can_not_be_sent_is_given_up() -> None:
    timers, stamps, now = make(), Stamps(), START
    timers.want(START)
    while not (due := timers.look(now, stamps)).give_up:
        if due.initiate:
            timers.unable(now)
        else:
            now = due.next
    assert now == START + 90 * SECOND


def test_packets_that_go_on_coming_prolong_it() -> None:
    timers, stamps, now = make(), Stamps(), START
    for _ in range(100):
        timers.want(now)
        due = timers.look(now, stamps)
        assert not due.give_up
        if due.initiate:
            timers.initiated(now)
        now += 2 * SECOND


def test_at_most_one_initiation_in_five_seconds() -> None:
    timers, stamps = make(), Stamps()
    timers.want(START)
    assert timers.look(START, stamps).initiate
    timers.initiated(START)
    timers.completed()
    timers.want(START + SECOND)
    due = timers.look(START + SECOND, stamps)
    assert (due.initiate, due.next) == (False, START + 5 * SECOND)
    assert timers.look(START + 5 * SECOND, stamps).initiate


def test_a_response_delays_an_initiation() -> None:
    timers, stamps = make(), Stamps()
    timers.responded(START)
    timers.want(START)
    assert timers.look(START, stamps).next == START + 5 * SECOND
    timers.responded(START + SECOND)
    assert timers.look(START + 5 * SECOND, stamps).next == START + 6 * SECOND + SECOND // 3


def test_keepalive_after_data() -> None:
    timers, stamps = make(), Stamps()
    stamps.receive_data(START)
    stamps.receive_data(START + 9 * SECOND)
    due = timers.look(START + 9 * SECOND, stamps)
    assert (due.keepalive, due.next) == (False, START + 10 * SECOND)
    assert timers.look(START + 10 * SECOND, stamps).keepalive
    stamps.send(START + 10 * SECOND)
    assert timers.look(START + 10 * SECOND, stamps) == Due()


def test_a_keepalive_that_could_not_be_sent() -> None:
    timers, stamps = make(), Stamps()
    stamps.receive_data(START)
    assert timers.look(START + 10 * SECOND, stamps).keepalive
    due = timers.look(START + 10 * SECOND, stamps)
    assert (due.keepalive, due.next) == (False, START + 20 * SECOND)


def test_a_handshake_after_fifteen_seconds_without_an_answer() -> None:
    timers, stamps = make(), Stamps(newest_born=START)
    stamps.send_data(START)
    assert timers.look(START, stamps).next == START + 15 * SECOND
    due = timers.look(START + 15 * SECOND, stamps)
    assert due.initiate
    assert due.unanswered
    timers.initiated(START + 15 * SECOND)
    stamps.send(START + 15 * SECOND)
    # The same silence does not begin another attempt, until there is new data.
    now = START + 16 * SECOND
    while not (due := timers.look(now, stamps)).give_up:
        if due.initiate:
            timers.initiated(now)
        now = max(due.next, now + 1)
    later = now + 60 * SECOND
    assert not timers.look(later, stamps).initiate
    stamps.send_data(later)
    assert timers.look(later + 15 * SECOND, stamps).initiate


def test_an_answer_ends_the_wait() -> None:
    timers, stamps = make(), Stamps()
    stamps.send_data(START)
    stamps.receive(START + 14 * SECOND)
    assert timers.look(START + 15 * SECOND, stamps) == Due()


def test_an_initiation_that_did_not_leave_is_tried_again_soon() -> None:
    timers, stamps = make(), Stamps()
    timers.want(START)
    now = START
    for seconds in (1, 2, 4, 5, 5):
        assert timers.look(now, stamps).initiate
        timers.initiated(now)
        timers.unsent(now)
        assert timers.look(now, stamps).next == now + seconds * SECOND
        now += seconds * SECOND
    # It does not count as one that was sent.
    timers.hurry(now - SECOND)
    assert timers.look(now - SECOND, stamps).initiate
    timers.initiated(now)
    assert timers.look(now, stamps).next >= now + 5 * SECOND
    timers.completed()
    timers.want(now + 60 * SECOND)
    assert timers.look(now + 60 * SECOND, stamps).initiate
    timers.initiated(now + 60 * SECOND)
    timers.unsent(now + 60 * SECOND)
    assert timers.look(now + 60 * SECOND, stamps).next == now + 61 * SECOND


def test_keys_are_wiped_once() -> None:
    timers, stamps = make(), Stamps(newest_born=START)
    assert timers.look(START + 540 * SECOND - 1, stamps).next == START + 540 * SECOND
    assert timers.look(START + 540 * SECOND, stamps).wipe
    assert timers.look(START + 540 * SECOND, stamps) == Due()
    stamps.newest_born = START + 600 * SECOND
    assert timers.look(START + 600 * SECOND, stamps).next == START + 1140 * SECOND


def test_persistent_keepalive() -> None:
    timers, stamps = make(), Stamps()
    timers.persistent_keepalive = 25
    assert timers.look(START, stamps, reachable=False) == Due()
    assert timers.look(START, stamps).keepalive
    # It could not be sent, since there is no key: a handshake is tried, and no other keepalive meanwhile.
    timers.want(START)
    assert timers.look(START, stamps).initiate
    timers.initiated(START)
    assert not timers.look(START + 3 * SECOND, stamps).keepalive
    timers.completed()
    stamps.send(START + 4 * SECOND)
    assert timers.look(START + 5 * SECOND, stamps).next == START + 29 * SECOND
    stamps.receive(START + 20 * SECOND)
    assert timers.look(START + 29 * SECOND, stamps).next == START + 45 * SECOND
    assert timers.look(START + 45 * SECOND, stamps).keepalive


@given(
    st.lists(
        st.tuples(
            st.integers(0, 200 * SECOND),
            st.sampled_from(["send", "receive", "any", "want", "complete", "respond", "none", "born"]),
        ),
        max_size=60,
    ),
    st.sampled_from([0, 1, 25, 65535]),
    st.booleans(),
)
def test_it_never_spins_and_never_forgets(steps: list[tuple[int, str]], persistent: int, works: bool) -> None:
    """Each look either acts or names a later time; initiations keep their distance; attempts end."""
    timers, stamps, now = Timers(), Stamps(), START
    timers.persistent_keepalive = persistent
    last = None

    def settle(until: int) -> None:
        nonlocal now, last
        for _ in range(100_000):
            due = timers.look(now, stamps)
            if due.initiate:
                assert last is None or now >= last + Limits().retry
                last = now
                timers.initiated(now)
                if works:
                    stamps.send(now)
            elif due.keepalive:
                if works and stamps.newest_born:
                    stamps.send(now)
                else:
                    timers.want(now)
            else:
                assert due.next > now
                if due.next > until:
                    break
                now = due.next
        else:
            pytest.fail("it spins")
        now = until

    for pause, event in steps:
        settle(now + pause)
        if event == "send":
            stamps.send_data(now)
        elif event == "receive":
            stamps.receive_data(now)
        elif event == "any":
            stamps.receive(now)
        elif event == "want":
            timers.want(now)
        elif event == "complete":
            timers.completed()
        elif event == "respond":
            timers.responded(now)
            last = now
        elif event == "born":
            stamps.newest_born = now
    settle(now + 1000 * SECOND)
    if not persistent and not stamps.unanswered_since and not stamps.unacknowledged_since:
        assert timers.look(now, stamps).next == NEVER
