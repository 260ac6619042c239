"""Small results that were packed a moment ago, so that they are sent without reading them again."""

from collections import OrderedDict

MAX_BYTES = 8 << 20


class RecentResults:
    """Packed results in memory, by the uuid of their payload. They are on the disk as well.

    Above ``max_bytes`` together, the oldest are dropped.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._results: OrderedDict[str, bytes] = OrderedDict()

    def put(self, uuid: str, content: bytes) -> None:
        """Keep results for a while."""
        self.take(uuid)
        self._results[uuid] = content
        self._bytes += len(content)
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._results.popitem(last=False)[1])

    def take(self, uuid: str, max_bytes: int = MAX_BYTES) -> bytes | None:
        """Remove and return results; None if they are not here, or larger than ``max_bytes``."""
        content = self._results.pop(uuid, None)
        if content is None:
            return None
        self._bytes -= len(content)
        return content if len(content) <= max_bytes else None
