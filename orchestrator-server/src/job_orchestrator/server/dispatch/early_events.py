"""What clients have told of payloads that no job is known to have yet.

A quick payload may have ended before the answer to its submit is written down here.
"""

from collections import OrderedDict, defaultdict

from job_orchestrator.common.status import PayloadStatus

MAX_KEPT = 10_000
"""Of one client: what one of them tells, true or not, makes room for nobody else's."""


class EarlyEvents:
    """The last state of each such payload, by client and id."""

    def __init__(self) -> None:
        self._kept: defaultdict[str, OrderedDict[int, PayloadStatus]] = defaultdict(OrderedDict)

    def keep(self, client_url: str, payload_id: int, status: PayloadStatus) -> None:
        """Keep a state; the oldest one goes if there are too many."""
        kept = self._kept[client_url]
        kept[payload_id] = status
        while len(kept) > MAX_KEPT:
            kept.popitem(last=False)

    def take(self, client_url: str, payload_id: int) -> PayloadStatus | None:
        """The state that was told of a payload, which is now known."""
        return self._kept[client_url].pop(payload_id, None)
