"""The variables of services: which there are, and what a mistyped one was meant to be.

A limit that is mistyped is no limit, and nobody notices until it is needed.
"""

import re
from collections.abc import Iterator, Mapping

from job_orchestrator.common.config.reader import nearest
from job_orchestrator.common.errors import StartupError

SUFFIXES = (
    "UPLOAD_URL",
    "DOWNLOAD_URL",
    "TERMINATE_URL",
    "RUNS_PER_USER",
    "MAX_RUNS",
    "MAX_ATTEMPTS",
    "TIME_LIMIT",
)

_PREFIX = "SERVICE_"
_VARIABLE = re.compile(rf"{_PREFIX}(?P<name>.+)_(?:{'|'.join(SUFFIXES)})")
_KUBERNETES = re.compile(
    r"PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?|SERVICE_(HOST|PORT(_\w+)?)"
)
"""What Kubernetes and Docker set for a service of their own of that name."""


def service_names(environment: Mapping[str, str]) -> list[str]:
    """The services that have a variable, as they are spelled there.

    Raises ``StartupError`` for a variable of one of them that is none.
    """
    matches = [_VARIABLE.fullmatch(variable) for variable in environment]
    names = sorted({match["name"] for match in matches if match})
    for variable in sorted(environment):
        if _VARIABLE.fullmatch(variable):
            continue
        if (name := _service_of(variable, names)) is not None:
            told = variable.removeprefix(f"{_PREFIX}{name}_")
            if not _KUBERNETES.fullmatch(told):
                meant = nearest(told, SUFFIXES)
                ends = ", ".join(f"_{suffix}" for suffix in SUFFIXES)
                hint = f"did you mean {_PREFIX}{name}_{meant}?" if meant else f"they end in {ends}"
                raise StartupError(f"{variable} is no setting of a service; {hint}")
    return names


def nearly_service_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """Variables that would be those of a service but for a few letters, and what to say of them."""
    for variable in sorted(environment):
        if not variable.startswith(_PREFIX) or _VARIABLE.fullmatch(variable):
            continue
        words = variable.removeprefix(_PREFIX).split("_")
        for begin in range(1, len(words)):
            if meant := nearest("_".join(words[begin:]), SUFFIXES):
                name = "_".join(words[:begin])
                yield f"{variable} is ignored; did you mean {_PREFIX}{name}_{meant}?"
                break


def _service_of(variable: str, names: list[str]) -> str | None:
    """The service that a variable is about: of ``A`` and ``A_B`` the one with the longer name."""
    about = [name for name in names if variable.startswith(f"{_PREFIX}{name}_")]
    return max(about, key=len, default=None)
