"""Small results, kept in memory until the server has them."""

MAX_KEPT_BYTES = 64 << 20


class KeptResults:
    """Packed results by the uuid of their payload, at most ``max_bytes`` of them together.

    A payload exists only as long as the process of jo-client, so results in memory last as long
    as those on the disk, which a script could reach besides.
    """

    def __init__(self, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._free_bytes = max_bytes
        self._results: dict[str, bytes] = {}

    def keep(self, uuid: str, content: bytes) -> bool:
        """Keep the results of a payload in place of earlier ones; False if there is no room."""
        self.drop(uuid)
        if len(content) > self._free_bytes:
            return False
        self._free_bytes -= len(content)
        self._results[uuid] = content
        return True

    def get(self, uuid: str) -> bytes | None:
        """Return the results of a payload; None if they are not kept here."""
        return self._results.get(uuid)

    def drop(self, uuid: str) -> None:
        """Free the memory of a payload's results, if they are kept here."""
        self._free_bytes += len(self._results.pop(uuid, b""))
