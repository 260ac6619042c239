"""Conditional requests and ranges of RFC 9110, sections 13 and 14, for results."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate

from aiohttp import ETag, hdrs, web

CONDITIONAL = frozenset(
    {
        hdrs.RANGE,
        hdrs.IF_MATCH,
        hdrs.IF_NONE_MATCH,
        hdrs.IF_MODIFIED_SINCE,
        hdrs.IF_UNMODIFIED_SINCE,
    }
)
"""Headers of requests that may get something else than the whole results."""

_ONE_RANGE = re.compile(
    r"bytes=[ \t]*(?:(?P<first>\d+)-(?P<last>\d*)|-(?P<suffix>\d+))[ \t]*",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True)
class Version:
    """Version of results: the time of their last change in nanoseconds, and their size in bytes."""

    modified_ns: int
    size: int

    @property
    def etag(self) -> str:
        """ETag without quotes, as aiohttp computes it for a file: all ways to send it agree."""
        return f"{self.modified_ns:x}-{self.size:x}"

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that name this version."""
        return {
            hdrs.ETAG: f'"{self.etag}"',
            hdrs.LAST_MODIFIED: formatdate(self.modified_s, usegmt=True),
        }

    @property
    def modified_s(self) -> int:
        """Time of the last change in seconds, which is the precision of dates in HTTP."""
        return self.modified_ns // 10**9

    def range_of(self, request: web.BaseRequest) -> range | None:
        """Return the bytes that a request asks for: empty if there are none, None for all."""
        if hdrs.RANGE not in request.headers or not self._is_named_by_if_range(request):
            return None
        return _requested_range(request.headers[hdrs.RANGE], self.size)

    def _is_named_by_if_range(self, request: web.BaseRequest) -> bool:
        """Return whether If-Range names this version, or there is no If-Range."""
        validator = request.headers.get(hdrs.IF_RANGE)
        if validator is None:
            return True
        if validator.endswith('"'):
            return validator == f'"{self.etag}"'
        date = request.if_range
        return date is not None and self.modified_s <= date.timestamp()


def failed_condition(request: web.BaseRequest, version: Version) -> int | None:
    """Return the status of a request whose condition is not met: 304 or 412; None if it is."""
    if request.if_match is not None:
        if not _names(request.if_match, version, weak=False):
            return 412
    elif (date := request.if_unmodified_since) and version.modified_s > date.timestamp():
        return 412
    if request.if_none_match is not None:
        if _names(request.if_none_match, version, weak=True):
            return 304
    elif (date := request.if_modified_since) and version.modified_s <= date.timestamp():
        return 304
    return None


def with_readable_range(request: web.BaseRequest, version: Version) -> web.BaseRequest:
    """Return the request with a Range that aiohttp can read, or without one.

    aiohttp answers several ranges, other units and invalid ranges with 416, where they must be
    ignored; it serves the whole file for its last 0 bytes, refuses very long numbers, and reads
    only dates in If-Range. An empty range gets a start at the end of the file, which aiohttp
    answers with 416.
    """
    headers = request.headers.copy()
    del headers[hdrs.RANGE]
    wanted = version.range_of(request)
    if wanted is not None:
        headers.pop(hdrs.IF_RANGE, None)
        headers[hdrs.RANGE] = (
            f"bytes={wanted.start}-{wanted.stop - 1}" if wanted else f"bytes={version.size}-"
        )
    return request.clone(headers=headers)


def _names(tags: Sequence[ETag], version: Version, *, weak: bool) -> bool:
    return any(
        tag.value == "*" or (tag.value == version.etag and (weak or not tag.is_weak))
        for tag in tags
    )


def _requested_range(header: str, size: int) -> range | None:
    """Return the bytes of a Range header, or None if it must be ignored.

    That is the case for other units, for invalid ranges, and for several ranges.
    """
    match = _ONE_RANGE.fullmatch(header)
    if match is None:
        return None
    first, last, suffix = match.group("first", "last", "suffix")
    if suffix:
        return range(size - _at_most(size, suffix), size)
    return range(_at_most(size, first), _at_most(size - 1, last) + 1 if last else size)


def _at_most(limit: int, digits: str) -> int:
    """Return the value of ``digits``, or ``limit`` if that is less."""
    # Not int(), which refuses more than 4300 digits. The size of a file is exact as a float.
    return int(min(float(digits), limit))
