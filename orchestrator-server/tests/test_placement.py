"""Placement of jobs on clients."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.server.scheduling.placement import Candidate, place

candidates = st.lists(
    st.builds(
        Candidate,
        name=st.text(min_size=1, max_size=3),
        jobs=st.integers(0, 5),
        slots=st.none() | st.integers(0, 5),
        cpu=st.none() | st.floats(0, 100),
        reachable=st.booleans(),
        on_trial=st.booleans(),
    ),
    unique_by=lambda each: each.name,
    max_size=6,
)


@given(candidates, st.integers(0, 12))
def test_jobs_are_placed_up_to_the_limit_and_one_on_a_client_on_trial(
    clients: list[Candidate], limit: int
) -> None:
    counts = Counter(place(clients, limit))
    reachable = [each for each in clients if each.reachable] or clients
    assert counts.keys() <= {each.name for each in reachable}
    assert all(counts[each.name] <= 1 for each in reachable if each.on_trial)
    only_trials = all(each.on_trial for each in reachable)
    assert counts.total() == (min(limit, len(reachable)) if only_trials else limit)


@given(candidates)
def test_free_slots_of_reachable_clients_are_filled_before_any_is_overbooked(
    clients: list[Candidate],
) -> None:
    settled = [each for each in clients if each.reachable and not each.on_trial]
    free = {each.name: max(0, (each.slots or 0) - each.jobs) for each in settled}
    counts = Counter(place(settled, sum(free.values())))
    assert all(counts[name] == number for name, number in free.items())


def test_job_goes_to_the_client_with_the_most_free_slots() -> None:
    clients = [Candidate("few", 0, slots=1), Candidate("many", 2, slots=5)]
    assert place(clients, 4) == ["many", "many", "few", "many"]


def test_job_goes_to_the_lowest_load_among_clients_with_equal_slots() -> None:
    clients = [
        Candidate("busy", 0, 4, cpu=80),
        Candidate("silent", 0, 4),
        Candidate("idle", 0, 4, 3),
    ]
    assert place(clients, 3) == ["idle", "busy", "silent"]


def test_unreachable_client_is_used_only_if_there_is_no_other() -> None:
    down = Candidate("down", 0, slots=9, reachable=False)
    assert place([down, Candidate("full", 4, slots=4)], 2) == ["full", "full"]
    assert place([down], 2) == ["down", "down"]


def test_nothing_is_placed_without_candidates() -> None:
    assert place([], 3) == []
