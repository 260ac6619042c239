"""Ids are never reused: by threads, after a restart, or after the loss of the data folder."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job_orchestrator.client.errors import IdsExhausted
from job_orchestrator.client.payloads.stored.ids import BLOCK, PayloadIds

NOW = 1_790_000_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "next-id"


def ids(file: Path, now: float = NOW) -> PayloadIds:
    return PayloadIds(file, now=lambda: now)


def test_ids_taken_by_many_threads_are_all_different(file: Path) -> None:
    source = ids(file)
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: source.take(), range(3 * BLOCK)))
    assert len(set(taken)) == 3 * BLOCK
    assert all(0 < one < 2**32 for one in taken)


def test_trap_19_restart_goes_on_above_all_that_were_taken(file: Path) -> None:
    first = ids(file)
    taken = [first.take() for _ in range(BLOCK + 1)]
    assert ids(file).take() > max(taken)


@pytest.mark.parametrize("what_happens", ["lost", "garbage", "restored from a backup"])
def test_trap_19_without_its_file_counting_goes_on_at_the_time(
    file: Path, what_happens: str
) -> None:
    taken = [ids(file).take() for _ in range(10)]
    backup = file.read_text()
    taken += [ids(file).take() for _ in range(3)]
    if what_happens == "lost":
        file.unlink()
    else:
        file.write_text("\0\0" if what_happens == "garbage" else backup)
    later = ids(file, now=NOW + 3600 * 24)
    assert later.take() > max(taken)


def test_file_that_vanishes_while_the_client_runs_changes_nothing(file: Path) -> None:
    source = ids(file)
    taken = [source.take() for _ in range(BLOCK)]
    file.unlink()
    assert source.take() == taken[-1] + 1


def test_exhausted_ids_raise(file: Path) -> None:
    file.write_text(str(2**32 - 10))
    with pytest.raises(IdsExhausted, match="remove"):
        ids(file).take()


@settings(deadline=None)
@given(st.lists(st.integers(1, BLOCK + 5), min_size=1, max_size=5), st.data())
def test_no_id_is_taken_twice_over_any_restarts(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], data: st.DataObject
) -> None:
    file = tmp_path_factory.mktemp("ids") / "next-id"
    taken = []
    for count in counts:
        clock = data.draw(st.integers(0, 2 * NOW))  # may be wrong, and go backwards
        source = ids(file, now=clock)
        taken += [source.take() for _ in range(count)]
    assert all(one < other for one, other in itertools.pairwise(taken))
