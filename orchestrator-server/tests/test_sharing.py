"""Services that share a client: no slot twice, none idle, shares by weight."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.server.model import ClientUrls, Service
from job_orchestrator.server.scheduling.client_use import ClientUse
from job_orchestrator.server.store.base import JobStore
from job_orchestrator.server.store.queue import Offer, WaitingUser
from job_orchestrator.server.store.sharing import divide
from job_orchestrator.server.store.usage import Usage
from stores import all_of_them

places = st.lists(st.sampled_from(["a", "b", "c"]), max_size=8)


@given(
    st.dictionaries(
        st.sampled_from(["x", "y", "z"]),
        st.tuples(places, st.integers(1, 4), st.floats(0, 100), st.floats(0.1, 50)),
    )
)
def test_each_slot_is_in_one_part_and_no_part_has_more_than_was_offered(
    drawn: dict[str, tuple[list[str], int, float, float]],
) -> None:
    offers = {
        name: Offer(9, clients, all_of_them, weight=weight, used_s={"a": used}, run_s=run_s)
        for name, (clients, weight, used, run_s) in drawn.items()
    }
    parts = {name: Counter(offer.clients) for name, offer in divide(offers).items()}
    for client in "abc":
        offered = {name: Counter(offer.clients)[client] for name, offer in offers.items()}
        given = {name: part[client] for name, part in parts.items()}
        assert all(given[name] <= offered[name] for name in offers)
        assert sum(given.values()) == max(offered.values(), default=0)


@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize(
    ("weights", "runs_s"),
    [((1, 1), (1.0, 20.0)), ((3, 1), (5.0, 5.0)), ((1, 2, 4), (2.0, 30.0, 7.0))],
)
def test_shares_converge_to_the_weights_while_all_have_jobs(
    slots: int, weights: Sequence[int], runs_s: Sequence[float]
) -> None:
    half_life_s = 100_000.0
    names = "xyz"[: len(weights)]
    usages = {name: Usage() for name in names}
    held: Counter[str] = Counter()
    used = dict.fromkeys(names, 0.0)
    ends: list[tuple[float, str]] = []
    now = 0.0
    for _ in range(4_000):
        free = slots - held.total()
        offers = {
            name: Offer(
                99,
                ["c"] * free,
                all_of_them,
                weight=weights[number],
                run_s=runs_s[number],
                used_s={
                    "c": usages[name].seconds_at(now, half_life_s) + held[name] * runs_s[number]
                },
            )
            for number, name in enumerate(names)
        }
        for name, part in divide(offers).items():
            for _ in part.clients:
                run_s = runs_s[names.index(name)]
                used[name] += run_s
                held[name] += 1
                heapq.heappush(ends, (now + run_s, name))
            usages[name] = usages[name].holding(held[name], now, half_life_s)
        now, name = heapq.heappop(ends)
        held[name] -= 1
        usages[name] = usages[name].holding(held[name], now, half_life_s)
    for name, weight in zip(names, weights, strict=True):
        share = used[name] / sum(used.values())
        assert share == pytest.approx(weight / sum(weights), rel=0.02)


async def test_services_claim_their_parts_and_what_others_leave(store: JobStore) -> None:
    for number in range(6):
        await store.create(f"x{number}", 1, "x")
    for number in range(3):
        await store.create(f"y{number}", 1, "y")
    offer = Offer(20, ["c"] * 4, all_of_them)
    claims = await store.claim({"x": offer, "y": replace(offer, used_s={"c": 0.5})})
    assert {name: len(claim.jobs) for name, claim in claims.items()} == {"x": 2, "y": 2}
    claims = await store.claim({"x": offer, "y": offer})
    assert {name: len(claim.jobs) for name, claim in claims.items()} == {"x": 3, "y": 1}
    # Without jobs of y, x gets all.
    await store.create("x9", 1, "x")
    claims = await store.claim({"x": offer, "y": offer})
    assert {name: len(claim.jobs) for name, claim in claims.items()} == {"x": 2}


async def test_service_that_is_full_does_not_hide_jobs_that_ask_for_resources(
    store: JobStore,
) -> None:
    await store.create("u", 1, "x")

    def arrange(
        active: int, clients: Sequence[str], waiting: Sequence[WaitingUser], _: Mapping[int, int]
    ) -> Sequence[object]:
        raise AssertionError

    offer = Offer(0, ["c"], all_of_them, arrange=arrange)  # type: ignore[arg-type]
    claims = await store.claim({"x": offer})
    assert claims["x"].arranged


def test_only_shared_clients_are_observed() -> None:
    def service(name: str, *clients: str) -> Service:
        urls = tuple(ClientUrls(each, each, each) for each in clients)
        return Service(name, urls, 5, 10, 3, None)

    x, y = service("x", "a", "b"), service("y", "b")
    use = ClientUse([x, y], 100.0)
    use.observe([], 5.0)
    assert use.used_s(x, 3.0) == {"b": 0.0}
    assert ClientUse([x], 100.0).used_s(x, 3.0) == {}
