"""The Range header, read as RFC 9110, section 14, has it."""

import re

_ONE_RANGE = re.compile(r"bytes=[ \t]*(\d*)-(\d*)[ \t]*", re.ASCII | re.IGNORECASE)
_MAX_DIGITS = 18


def usable_range(header: str, size: int) -> str | None:
    """The range of ``size`` bytes that is asked for, as one that aiohttp reads the same way.

    None: the header is to be ignored, and all is sent. So it is with other units, with what is no
    range, and with several at once, which nobody needs of a ZIP. aiohttp refuses those, takes the
    last 0 bytes for all of them, and can't read very long numbers. One that can't be satisfied
    begins at the end, and is answered with 416.
    """
    match = _ONE_RANGE.fullmatch(header)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return f"bytes={size - min(_number(last), size)}-"
    if not last:
        return f"bytes={min(_number(first), size)}-"
    if _number(last) < _number(first):
        return f"bytes={size}-"
    return f"bytes={min(_number(first), size)}-{min(_number(last), size)}"


def _number(digits: str) -> int:
    """Its value; one of more than ``_MAX_DIGITS`` is beyond the end of any file."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS
