"""Bad times, counts and modes, wherever they are taken."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import pytest

from packets import packet

if TYPE_CHECKING:
    from collections.abc import Callable

    import tunring

    Pair = tuple[tunring.Session, tunring.Session]

CALLS: dict[str, Callable[[tunring.Session, Any], object]] = {
    "receive": lambda session, timeout: session.receive(timeout=timeout),
    "send": lambda session, timeout: session.send([packet()], timeout=timeout),
    "send_packed": lambda session, timeout: session.send_packed(packet(), [20], timeout=timeout),
    "reserve": lambda session, timeout: session.reserve([20], timeout=timeout).abandon(),
}


@pytest.fixture(params=list(CALLS))
def call(request: pytest.FixtureRequest) -> Callable[[tunring.Session, Any], object]:
    return CALLS[request.param]


@pytest.mark.parametrize("coalesce", ["all", "tcp", "none"])
def test_every_library_takes_coalesce(adapter: tunring.Adapter, coalesce: Any) -> None:
    with adapter.start_session(coalesce=coalesce) as session:
        assert not session.closed


@pytest.mark.parametrize("coalesce", ["udp", "ALL", "", None, True, 0, b"all"])
def test_other_values_of_coalesce(adapter: tunring.Adapter, coalesce: Any) -> None:
    with pytest.raises(ValueError, match=r"coalesce must be one of 'all', 'tcp', 'none', not"):
        adapter.start_session(coalesce=coalesce)
    adapter.start_session().close()


@pytest.mark.parametrize("timeout", [-1, -0.001, -5e-324, -math.inf, math.nan])
def test_bad_times(pair: Pair, call: Callable[[Any, Any], object], timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        call(pair[0], timeout)
    assert pair[0].stats().sent_packets == 0


@pytest.mark.parametrize("timeout", ["1", "soon", b"1", [], object(), 1j])
def test_times_of_the_wrong_type(pair: Pair, call: Callable[[Any, Any], object], timeout: object) -> None:
    with pytest.raises(TypeError, match="timeout"):
        call(pair[0], timeout)
    assert pair[0].stats().sent_packets == 0


@pytest.mark.parametrize("timeout", [math.inf, 1e300, 9.3e9, 2**80, None, 0, 0.0, -0.0, 5e-324, True])
def test_times_that_are_taken(pair: Pair, call: Callable[[Any, Any], object], timeout: float | None) -> None:
    pair[1].send([packet()])
    call(pair[0], timeout)


def test_an_integer_that_no_float_can_hold_is_for_ever(pair: Pair, call: Callable[[Any, Any], object]) -> None:
    pair[1].send([packet()])
    call(pair[0], 10**400)


@pytest.mark.parametrize("timeout", [5e-324, 1e-9, 0.01, 0.05])
def test_a_timeout_is_kept(pair: Pair, timeout: float) -> None:
    began = time.perf_counter()  # the other clock is coarse on Windows before Python 3.13
    assert not pair[0].receive(timeout=timeout)
    assert timeout <= time.perf_counter() - began < timeout + 1


@pytest.mark.parametrize("count", [0, -1, 65537, 2**31, 2**32, 2**63, 2**64 + 1, -(2**70)])
def test_bad_max_packets(pair: Pair, count: int) -> None:
    with pytest.raises(ValueError, match="max_packets"):
        pair[0].receive(count)
    with pytest.raises(ValueError, match="max_packets"):
        next(iter(pair[0].batches(count)))


@pytest.mark.parametrize("count", [1.0, "1", None, [1]])
def test_max_packets_of_the_wrong_type(pair: Pair, count: object) -> None:
    with pytest.raises(TypeError):
        pair[0].receive(count)
    with pytest.raises(TypeError):
        next(iter(pair[0].batches(count)))


@pytest.mark.parametrize("count", [1, 2, 65536, True])
def test_max_packets_that_are_taken(pair: Pair, count: int) -> None:
    pair[1].send([packet()] * 3)
    with pair[0].receive(count, 0) as batch:
        assert len(batch) == min(count, 3)


@pytest.mark.parametrize("mode", ["", "Wait", "block", None, 0, b"wait", ["wait"]])
def test_bad_modes(pair: Pair, mode: object) -> None:
    session, other = pair
    with pytest.raises(ValueError, match="on_full"):
        session.send([packet()], on_full=mode)
    with pytest.raises(ValueError, match="on_full"):
        session.send_packed(packet(), [20], on_full=mode)
    with pytest.raises(ValueError, match="on_full"):
        session.reserve([20], on_full=mode)
    assert not other.receive(timeout=0)


@pytest.mark.parametrize("mode", ["partial", "drop"])
def test_reserve_takes_all_or_nothing(pair: Pair, mode: str) -> None:
    with pytest.raises(ValueError, match="on_full"):
        pair[0].reserve([20], on_full=mode)
