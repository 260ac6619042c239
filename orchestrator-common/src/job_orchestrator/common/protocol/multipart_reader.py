"""Parser of multipart/form-data bodies (RFC 7578) that arrive in blocks. Does no I/O.

The body is parsed by the callback parser of python-multipart. Only this module imports it: programs
that only send forms do not need that package.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.protocol.multipart_names import unescape
from job_orchestrator.common.protocol.paths import uploaded_path

MAX_HEADER_LINE_BYTES = 8192
"""Of the head of a part: the longest path, escaped, three times."""

_PLAIN_CONTENT_TYPE = re.compile(r"multipart/form-data; ?boundary=([A-Za-z0-9_-]+)")
_PLAIN_HEAD = re.compile(
    rb"Content-Disposition: ?([\t -~\x80-\xff]{1,2048})(?:\r\nContent-Type: ?[ -~]{1,256})?",
    re.IGNORECASE,
)
_EXTENDED_VALUE = re.compile(r"(utf-8|iso-8859-1)'[^']*'(.*)", re.IGNORECASE)
_EXTENDED_NAME = re.compile(r"filename\*", re.IGNORECASE)
# The parser drops all parameters whose names have a star; it keeps this one.
_REPLACED_NAME = "filename-extended"


class MultipartError(BadRequest):
    """The body is not well-formed multipart/form-data."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Multipart error: {reason}")


class PartSink(Protocol):
    """Receiver of the parts of a form, in their order. Its methods may raise to stop."""

    def open_file(self, path: str) -> None:
        """Begin a file with a checked path."""

    def open_field(self, name: str) -> None:
        """Begin a field."""

    def write(self, data: memoryview) -> None:
        """Continue the part that was begun last."""

    def close_part(self) -> None:
        """End the part that was begun last."""


class MultipartReader:
    """Parses one body and passes its parts to a sink.

    ``content_type`` is the header of the request. Raises ``MultipartError``.
    """

    def __init__(self, content_type: str, sink: PartSink) -> None:
        self._sink = sink
        self._ended = False
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._disposition = ""
        callbacks: dict[str, Callable[..., None]] = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_to_header_name,
            "on_header_value": self._add_to_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": lambda: _open_part(self._disposition, sink),
            "on_part_data": self._write,
            "on_part_end": sink.close_part,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(
                _boundary(content_type),
                callbacks,  # type: ignore[arg-type]
                max_header_size=MAX_HEADER_LINE_BYTES,
            )
        except FormParserError as error:
            raise MultipartError(str(error)) from error

    def feed(self, block: bytes) -> None:
        """Parse a block. Raises ``MultipartError``, ``UnsafePath`` and the errors of the sink."""
        try:
            self._parser.write(block)
        except FormParserError as error:
            raise MultipartError(str(error)) from error

    def finish(self) -> None:
        """Raise ``MultipartError`` unless the body was complete."""
        if not self._ended:
            raise MultipartError("the body ends before its closing boundary")

    def _begin_part(self) -> None:
        self._disposition = ""

    def _add_to_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _add_to_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _end_header(self) -> None:
        name, value = self._header
        if bytes(name).lower() == b"content-disposition":
            self._disposition = value.decode("latin-1")
        self._header = (bytearray(), bytearray())

    def _write(self, data: bytes, start: int, end: int) -> None:
        self._sink.write(memoryview(data)[start:end])

    def _end(self) -> None:
        self._ended = True


def read_whole(content_type: str, body: bytes, sink: PartSink) -> None:
    """Parse a body that has arrived completely. Raises the errors of ``MultipartReader``.

    A body of the form in which nearly all programs send it is split at its boundaries. Any other
    one is left to the callback parser, which takes five times as long for a small form.
    """
    parts = _plain_parts(_boundary(content_type), body)
    if parts is None:
        reader = MultipartReader(content_type, sink)
        reader.feed(body)
        reader.finish()
        return
    for disposition, content in parts:
        _open_part(disposition, sink)
        if content:
            sink.write(memoryview(content))
        sink.close_part()


def _plain_parts(boundary: bytes, body: bytes) -> list[tuple[str, bytes]] | None:
    """Return the Content-Disposition and the content of each part; None if one is not plain."""
    before, *pieces = (b"\r\n" + body).split(b"\r\n--" + boundary)
    if before or not pieces or pieces.pop() not in (b"--", b"--\r\n"):
        return None
    parts = []
    for piece in pieces:
        head, separator, content = piece.partition(b"\r\n\r\n")
        plain = _PLAIN_HEAD.fullmatch(head, 2)
        if plain is None or not (separator and piece.startswith(b"\r\n")):
            return None
        parts.append((plain[1].decode("latin-1"), content))
    return parts


def _open_part(disposition: str, sink: PartSink) -> None:
    """Begin the part of a Content-Disposition. Raises ``MultipartError`` and errors of the sink."""
    try:
        name, filename = parse_part_names(disposition)
    except ValueError as error:
        raise MultipartError(str(error)) from error
    if filename:
        sink.open_file(uploaded_path(name, filename))
    else:
        sink.open_field(name)


class PartNames(NamedTuple):
    """The names in the head of a part. ``filename`` is empty for a field."""

    name: str
    filename: str


# Portals send the same few names with every form, and parsing them takes longer than a small file.
@lru_cache(maxsize=128)
def parse_part_names(disposition: str) -> PartNames:
    """Parse a Content-Disposition, decoded as Latin-1. ``filename*`` wins over ``filename``.

    Raises ``ValueError`` with the reason.
    """
    _, options = parse_options_header(disposition)
    if b"name" not in options:
        raise ValueError("a part has no Content-Disposition with a name")
    try:
        name = unescape(options[b"name"].decode())
        filename = unescape(options.get(b"filename", b"").decode())
    except UnicodeDecodeError as error:
        raise ValueError("a name is not UTF-8") from error
    if "*" in disposition:
        filename = _extended_filename(disposition) or filename
    return PartNames(name, filename)


def _extended_filename(disposition: str) -> str:
    """Parse ``filename*`` (RFC 5987); return an empty string if there is none.

    RFC 7578 does not allow ``filename*`` in forms; older requests, .NET and others send it anyway.
    """
    _, options = parse_options_header(_EXTENDED_NAME.sub(_REPLACED_NAME, disposition))
    found = [key for key in options if key.startswith(_REPLACED_NAME.encode())]
    if not found:
        return ""
    value = _EXTENDED_VALUE.fullmatch(options[found[0]].decode("latin-1"))
    if found != [_REPLACED_NAME.encode()] or value is None:
        raise ValueError("a filename* must be one UTF-8''NAME, percent-encoded")
    try:
        return unquote_to_bytes(value[2]).decode(value[1])
    except UnicodeDecodeError as error:
        raise ValueError(f"a filename* is not {value[1]}") from error


def _boundary(content_type: str) -> bytes:
    # The form in which nearly all programs send it. The parser of headers takes ten times as long.
    if plain := _PLAIN_CONTENT_TYPE.fullmatch(content_type):
        return plain[1].encode()
    # Headers may hold any bytes; the parser accepts Latin-1.
    header = content_type.encode("utf-8", "surrogateescape").decode("latin-1")
    kind, options = parse_options_header(header)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise MultipartError("Content-Type must be multipart/form-data with a boundary")
    return boundary
