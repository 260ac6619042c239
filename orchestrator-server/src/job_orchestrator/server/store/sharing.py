"""Division of free slots between the services that share a client, by their weights."""

from collections import Counter
from collections.abc import Mapping

from job_orchestrator.server.store.queue import Offer


def divide(offers: Mapping[str, Offer]) -> Mapping[str, Offer]:
    """Return the part of each offer such that no slot is in two of them.

    The next slot of a client goes to the service that has used least of it, divided by its weight.
    """
    sharers = Counter(name for offer in offers.values() for name in set(offer.clients))
    shared = sorted(name for name, count in sharers.items() if count > 1)
    if not shared:
        return offers
    places = {service: Counter(offer.clients) for service, offer in offers.items()}
    taken: dict[str, Counter[str]] = {service: Counter() for service in offers}
    for client in shared:
        given = Counter[str]()
        for _ in range(max(each[client] for each in places.values())):
            left = [name for name in offers if given[name] < places[name][client]]
            given[min(left, key=lambda name: (offers[name].rank(client, given[name]), name))] += 1
        for name in offers:
            taken[name][client] = places[name][client] - given[name]
    return {name: offer.without(+taken[name]) for name, offer in offers.items()}
