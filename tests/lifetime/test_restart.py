"""An adapter whose session is closed starts another one, also while packets of the old one are held."""

from __future__ import annotations

import pytest

import tunring
from packets import number_of, packet
from running import eventually
from tunring import _core
from tunring.testing import Simulator


@pytest.mark.ours_only(reason="the official DLL's adapter can't start a session while packets of its last one are held")
def test_the_documented_sample_closed_and_started_again_while_old_views_live(
    library: tunring.Library, name: str
) -> None:
    guid = "6ba7b811-9dad-11d1-80b4-00c04fd430c8"
    kept = []
    with (
        tunring.Adapter.create(name, tunnel_type="Tunring", guid=guid, library=library) as adapter,
        tunring.Adapter.create(name + "b", guid=guid, library=library) as other,
        other.start_session() as far,
    ):
        for turn in range(3):
            with adapter.start_session(capacity=0x400000) as session:
                far.send([packet(40, number=turn)] * 3)
                for batch in session.batches(max_packets=256):
                    with batch:
                        for one in batch:
                            reply, other_reply = bytes(one), bytes(one)
                        kept.append(batch[0][:])
                    session.send([reply, other_reply])
                    with session.reserve([40] * 64) as slots:
                        for slot in slots:
                            slot[:] = reply
                    break
            with far.receive(timeout=5) as back:
                assert len(back) == 66
                assert {number_of(view) for view in back} == {turn}
        assert [number_of(view) for view in kept] == [0, 1, 2]
        assert _core.pinned_sessions() == 3
    assert [number_of(view) for view in kept] == [0, 1, 2]


@pytest.mark.ours_only(reason="the official DLL's adapter stays while packets of its session are held")
def test_an_adapter_of_that_name_may_come_again_while_old_views_live(library: tunring.Library, name: str) -> None:
    adapter = tunring.Adapter.create(name, guid="6ba7b811-9dad-11d1-80b4-00c04fd430c9", library=library)
    with (
        tunring.Adapter.create(name + "b", guid="6ba7b811-9dad-11d1-80b4-00c04fd430c9", library=library) as other,
        other.start_session() as far,
    ):
        session = adapter.start_session()
        far.send([packet(number=1)])
        kept = session.receive(timeout=5)
        adapter.close()
        with tunring.Adapter.create(name, library=library) as again, again.start_session():
            assert number_of(kept[0]) == 1
    kept.release()


def test_a_driver_that_must_wait_for_the_old_views_says_how_many(
    adapter: tunring.Adapter, simulator: Simulator
) -> None:
    session = adapter.start_session()
    simulator.inject([packet(number=i) for i in range(5)])
    with session.receive() as batch:
        kept = [view[:] for view in batch[:3]]
    session.close()
    for _ in range(2):
        with pytest.raises(tunring.AdapterBusy, match=r"\b3 packets"):
            adapter.start_session()
    kept.pop()
    with pytest.raises(tunring.AdapterBusy, match=r"\b2 packets"):
        adapter.start_session()
    assert [number_of(view) for view in kept] == [0, 1]
    kept.clear()
    assert eventually(lambda: _core.pinned_sessions() == 0, 2)
    adapter.start_session().close()
    assert simulator.stale_ends() == 0


def test_it_starts_as_soon_as_the_last_old_view_is_gone(adapter: tunring.Adapter, simulator: Simulator) -> None:
    for _ in range(200):
        session = adapter.start_session(tunring.MIN_CAPACITY)
        simulator.inject([packet()])
        batch = session.receive()
        session.close()
        del batch
    assert simulator.stale_ends() == 0


def test_an_adapter_that_closes_while_old_views_live_goes_after_them(
    adapter: tunring.Adapter, simulator: Simulator
) -> None:
    session = adapter.start_session()
    simulator.inject([packet(number=3)])
    kept = session.receive()
    session.close()
    adapter.close()
    # By the official DLL tunring asks itself whether the name is taken, and knows why it is.
    taken = tunring.AdapterBusy if adapter.library.official else tunring.AlreadyExists
    with pytest.raises(taken):
        tunring.Adapter.create(adapter.name, library=adapter.library)
    assert number_of(kept[0]) == 3
    kept.release()

    def free() -> bool:
        try:
            tunring.Adapter.create(adapter.name, library=adapter.library).close()
        except (tunring.AdapterBusy, tunring.AlreadyExists):  # the latter while it is on its way
            return False
        return True

    assert eventually(free, 2)
    assert simulator.stale_ends() == 0
