"""Per-key concurrency limits, so that no single user, job or payload can exhaust a resource."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class KeyedLimiter(Generic[K]):
    """Counts the slots in use by each key. ``len`` is the number of keys that use any."""

    def __init__(self) -> None:
        self._in_use: Counter[K] = Counter()

    def __len__(self) -> int:
        return len(self._in_use)

    def in_use(self, key: K) -> int:
        """Return the number of slots that ``key`` uses."""
        return self._in_use.get(key, 0)

    @contextmanager
    def slot(self, limit: int, key: K, refusal: Callable[[], Exception]) -> Iterator[None]:
        """Hold a slot of ``key`` during the block; raise ``refusal()`` if ``limit`` are in use."""
        if self._in_use[key] >= limit:
            raise refusal()
        self._in_use[key] += 1
        try:
            yield
        finally:
            self._in_use[key] -= 1
            if not self._in_use[key]:
                del self._in_use[key]
