"""Payloads that were recalled or given back, remembered for late requests of their servers."""

from collections import OrderedDict
from typing import TypeVar

from job_orchestrator.client.model import PayloadRow

MAX_REMEMBERED = 10_000
"""Payloads that are remembered, the last ones."""

T = TypeVar("T")


class ReturnedPayloads:
    """Record of payloads whose jobs are in another attempt from now on."""

    def __init__(self) -> None:
        self._unstarted: OrderedDict[int, None] = OrderedDict()
        self._keys: OrderedDict[str, None] = OrderedDict()

    def add(self, row: PayloadRow, *, started: bool) -> None:
        """Remember a payload, and whether its script has begun."""
        if not started:
            _remember(self._unstarted, row.id)
        if row.key is not None:
            _remember(self._keys, row.key)

    def never_started(self, payload_id: int) -> bool:
        """Return whether the payload was returned before its script began."""
        return payload_id in self._unstarted

    def has_key(self, key: str) -> bool:
        """Return whether the payload of ``key`` was returned: a late submit must not run it."""
        return key in self._keys


def _remember(entries: OrderedDict[T, None], entry: T) -> None:
    entries[entry] = None
    if len(entries) > MAX_REMEMBERED:
        entries.popitem(last=False)
