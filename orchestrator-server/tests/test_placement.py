"""Placement of jobs on clients."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.server.scheduling.placement import Candidate, place

candidates = st.lists(
    st.builds(
        Candidate,
        name=st.text(min_size=1, max_size=3),
        occupied=st.integers(0, 8),
        slots=st.none() | st.integers(0, 5),
        look_ahead=st.integers(0, 3),
        cpu=st.none() | st.floats(0, 100),
        on_trial=st.booleans(),
    ),
    unique_by=lambda each: each.name,
    max_size=6,
)


@given(candidates, st.integers(0, 12))
def test_jobs_are_placed_up_to_the_limit_and_to_the_room_of_each_client(
    clients: list[Candidate], limit: int
) -> None:
    counts = Counter(place(clients, limit))
    assert all(counts[each.name] <= 1 for each in clients if each.on_trial)
    for each in clients:
        if each.slots is not None:
            assert counts[each.name] <= max(each.slots + each.look_ahead - each.occupied, 0)
    assert counts.total() == min(limit, sum(each.room for each in clients))


@given(candidates)
def test_free_slots_are_filled_before_any_job_waits_at_a_client(clients: list[Candidate]) -> None:
    settled = [each for each in clients if not each.on_trial]
    free = {each.name: max(0, (each.slots or 0) - each.occupied) for each in settled}
    counts = Counter(place(settled, sum(free.values())))
    assert all(counts[name] == number for name, number in free.items())


def test_client_without_a_free_slot_gets_no_job() -> None:
    assert place([Candidate("full", 4, slots=4), Candidate("overfull", 5, slots=4)], 3) == []


def test_client_that_reports_no_slots_gets_any_number_of_jobs() -> None:
    assert place([Candidate("old", 4)], 3) == ["old"] * 3


def test_job_goes_to_the_client_with_the_most_free_slots() -> None:
    clients = [Candidate("few", 0, slots=1), Candidate("many", 2, slots=5)]
    assert place(clients, 5) == ["many", "many", "few", "many"]


def test_job_goes_to_the_lowest_load_among_clients_with_equal_slots() -> None:
    clients = [
        Candidate("busy", 0, 4, cpu=80),
        Candidate("silent", 0, 4),
        Candidate("idle", 0, 4, cpu=3),
    ]
    assert place(clients, 3) == ["idle", "busy", "silent"]


def test_nothing_is_placed_without_candidates() -> None:
    assert place([], 3) == []
