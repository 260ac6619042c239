"""Names in the heads of a form's parts: how they are written between quotes, and read again.

Browsers and curl put ``%22`` for a quote and ``%0D``, ``%0A`` for line breaks, but leave a ``%`` as
it is (https://html.spec.whatwg.org/#multipart-form-data): nobody can tell whether a ``%22`` that
arrives was one. So names that would come out changed are sent as ``filename*`` (RFC 5987) too.
RFC 7578 knows no ``filename*`` in forms; older requests, .NET and others send it all the same.
"""

import re
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

_ESCAPES = {"%22": '"', "%0D": "\r", "%0A": "\n"}

_EXTENDED = re.compile(r"(utf-8|iso-8859-1)'[^']*'(.*)", re.IGNORECASE)
_STARRED = re.compile(r"filename\*", re.IGNORECASE)
# The parser drops every parameter with a star; it doesn't drop this one.
_STANDS_FOR_STARRED = "filename-extended"


class PartNames(NamedTuple):
    """What the head of a part says. ``filename`` is empty for a field, which is no file."""

    name: str
    filename: str


def names_of_part(disposition: str) -> PartNames:
    """Read a Content-Disposition, decoded as Latin-1. ``filename*`` wins over ``filename``.

    Raises ``ValueError`` with the reason.
    """
    # Imported here: the client library only writes names, and is installed without this parser.
    from python_multipart.multipart import parse_options_header

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


def file_disposition(path: str) -> str:
    """The Content-Disposition of a file, from which its checked path is read again as it was.

    The part name is the whole path, the file name its last component: readers that keep only file
    names still get them, readers that know folders get those too.
    """
    name, filename = quoted(path), quoted(path.rpartition("/")[2])
    plain = f'form-data; name="{name}"; filename="{filename}"'
    if unescape(name) == path:
        return plain
    return f"{plain}; filename*=UTF-8''{quote(path, safe='')}"


def quoted(name: str) -> str:
    """``name`` within quotes: escaped as browsers do it."""
    for escape, character in _ESCAPES.items():
        name = name.replace(character, escape)
    return name


def unescape(name: str) -> str:
    """A name of a form as it was before its sender put it between quotes."""
    if "%" not in name:
        return name
    for escape, character in _ESCAPES.items():
        name = name.replace(escape, character).replace(escape.lower(), character)
    return name


def _extended_filename(disposition: str) -> str:
    """``filename*``; empty if there is none."""
    from python_multipart.multipart import parse_options_header

    _, options = parse_options_header(_STARRED.sub(_STANDS_FOR_STARRED, disposition))
    found = [key for key in options if key.startswith(_STANDS_FOR_STARRED.encode())]
    if not found:
        return ""
    value = _EXTENDED.fullmatch(options[found[0]].decode("latin-1"))
    if found != [_STANDS_FOR_STARRED.encode()] or value is None:
        raise ValueError("a filename* must be one UTF-8''NAME, percent-encoded")
    try:
        return unquote_to_bytes(value[2]).decode(value[1])
    except UnicodeDecodeError as error:
        raise ValueError(f"a filename* is not {value[1]}") from error
