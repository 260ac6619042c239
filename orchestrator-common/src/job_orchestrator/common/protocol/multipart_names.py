"""Quoting of names in the heads of a form's parts.

Browsers and curl write ``%22`` for a quote and ``%0D``, ``%0A`` for line breaks, but do not escape
``%`` (https://html.spec.whatwg.org/#multipart-form-data), so a ``%22`` that arrives may have been
either. Names that would change on the way are therefore sent as ``filename*`` (RFC 5987), too.
"""

from urllib.parse import quote

_ESCAPES = {"%22": '"', "%0D": "\r", "%0A": "\n"}


def file_disposition(path: str) -> str:
    """Return the Content-Disposition of a file, from which readers get its checked path unchanged.

    The part name is the whole path, the file name its last component: readers that keep only file
    names still get these, readers that know folders get the path.
    """
    name, filename = escape(path), escape(path.rpartition("/")[2])
    plain = f'form-data; name="{name}"; filename="{filename}"'
    if unescape(name) == path:
        return plain
    return f"{plain}; filename*=UTF-8''{quote(path, safe='')}"


def escape(name: str) -> str:
    """Escape a name as browsers do, to be put between quotes."""
    for escaped, character in _ESCAPES.items():
        name = name.replace(character, escaped)
    return name


def unescape(name: str) -> str:
    """Return a name as it was before its sender put it between quotes."""
    if "%" not in name:
        return name
    for escaped, character in _ESCAPES.items():
        name = name.replace(escaped, character).replace(escaped.lower(), character)
    return name
