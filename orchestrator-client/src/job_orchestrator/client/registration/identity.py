"""Identity and name of a client, which it keeps in its data folder."""

import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from job_orchestrator.common.protocol.tunnel import MAX_NAME
from job_orchestrator.common.storage.durable import write_durably
from job_orchestrator.common.storage.small_file import read_if_small

FILE = "client-identity"

_IDENTITY = re.compile(rb"[0-9a-f]{32}\s*")
_SUFFIX_LENGTH = 4


@dataclass(frozen=True)
class Identity:
    """Name of this client, and what distinguishes it from others.

    ``identity`` stays the same as long as the data folder does, ``instance`` as long as the
    process.
    """

    name: str
    identity: str
    instance: str


def load_identity(data_path: Path, name: str | None) -> Identity:
    """Read the identity of a data folder, or make one. Blocks: call it in a thread.

    Without a ``name``, it is that of the machine with some digits of the identity.
    """
    file = data_path / FILE
    try:
        kept = read_if_small(file)
    except FileNotFoundError:
        kept = None
    if kept is not None and _IDENTITY.fullmatch(kept.content):
        identity = kept.content.decode().strip()
    else:
        identity = secrets.token_hex(16)
        write_durably(file, identity.encode())
    return Identity(name or _default_name(identity), identity, secrets.token_hex(16))


def _default_name(identity: str) -> str:
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname().partition(".")[0]).lstrip("._-")
    suffix = identity[:_SUFFIX_LENGTH]
    return f"{host[: MAX_NAME - _SUFFIX_LENGTH - 1] or 'client'}-{suffix}"
