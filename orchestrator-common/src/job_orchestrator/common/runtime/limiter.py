"""A bound on what is done at once for one user, job or payload: one of them can't use up all."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class KeyedLimiter(Generic[K]):
    """Counts what is under way, by whom or what it is for. ``len`` of it: for how many."""

    def __init__(self) -> None:
        self._under_way: Counter[K] = Counter()

    def __len__(self) -> int:
        return len(self._under_way)

    @contextmanager
    def slot(self, limit: int, key: K, refusal: Callable[[], Exception]) -> Iterator[None]:
        """Count the block. Raises what ``refusal`` gives if there are ``limit`` for ``key``."""
        if self._under_way[key] >= limit:
            raise refusal()
        self._under_way[key] += 1
        try:
            yield
        finally:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]
