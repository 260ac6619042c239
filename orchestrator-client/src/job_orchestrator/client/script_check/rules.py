"""The check of run.sh: refuses scripts with obviously dangerous commands, and says what to do.

It is a sanity check, not a sandbox: it catches accidents, and anybody who wants to can evade it.
Isolation is the task of the deployment (containers, users, networks). Honest scripts must pass, so
the rules apply to commands, not to words anywhere in the text.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from job_orchestrator.client.script_check.shell import SHELLS, read_script

_DESTRUCTIVE = "it destroys file systems"
_NETWORK = "it transfers data over the network"
_PRIVILEGE = "it asks for more privileges"
_ESCAPE = "it reaches out of a container"
_MINER = "it is a crypto miner"
_SECRETS = "it reads secrets of the environment"
_OBFUSCATED = "it executes code that can't be read here"

_COMMANDS = {
    _DESTRUCTIVE: "fdisk parted wipefs shred mkswap",
    "it stops the machine": "shutdown reboot halt poweroff",
    _NETWORK: "curl wget socat nc ncat netcat telnet ftp sftp scp ssh",
    _PRIVILEGE: "sudo su doas pkexec setcap insmod modprobe iptables nft",
    _ESCAPE: "nsenter unshare chroot mount umount docker podman kubectl runc",
    "it would outlive the job": "crontab systemctl service launchctl",
    _MINER: "xmrig minerd cgminer ethminer cpuminer bfgminer",
    _SECRETS: "printenv",
}
_REFUSED = {name: reason for reason, names in _COMMANDS.items() for name in names.split()}

_SHELL_OR_INTERPRETER = r"(?:(?:ba|da|z|k)?sh|python3?|perl)\b"
_REFUSED_TEXT = (
    (r"/dev/(?:tcp|udp)/", "it opens a network connection"),
    (r"stratum\+(?:tcp|ssl)://", _MINER),
    (r"/proc/[^/\s]+/environ\b", _SECRETS),
    (r"/var/run/docker\.sock|/run/docker\.sock", _ESCAPE),
    (r">\s*/dev/(?:sd|hd|vd|xvd|nvme|mmcblk)", _DESTRUCTIVE),
    (
        r"\$\{?[A-Z0-9_]*(?:SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|PRIVATE_KEY|_TOKEN)[A-Z_]*",
        _SECRETS,
    ),
    # Repetitions are bounded, so that no text makes these slow.
    (rf"\bbase64\b[^|;\n]{{0,200}}\|\s*(?:sudo\s+)?{_SHELL_OR_INTERPRETER}", _OBFUSCATED),
    (
        r"\b(?:eval|(?:ba|da|z|k)?sh|source)\b[\s\"'<]{0,9}[$<]\([^;\n]{0,200}\bbase64\b",
        _OBFUSCATED,
    ),
    (r":\(\)\s*\{\s*:\s*\|\s*:\s*&\s*\}\s*;\s*:", "it is a fork bomb"),
)
_REFUSED_PATTERNS = tuple((re.compile(text), reason) for text, reason in _REFUSED_TEXT)

_SYSTEM_FOLDER = re.compile(
    r"/+(?:\*|\.)?|/(?:bin|boot|dev|etc|home|lib|lib64|opt|proc|root|sbin|srv|sys|usr|var)(?:/\*?)?"
)
_BLOCK_DEVICE = re.compile(r"of=/dev/(?!null\b|zero\b|shm/|stdout\b|stderr\b).*", re.DOTALL)
_SET_ID_BITS = re.compile(
    r"0*[2-7][0-7]{3}|(?:.*,)?[ugoa]*[+=][rwxXt]*s[rwxXst]*(?:,.*)?", re.DOTALL
)
_INTERPRETER = re.compile(r"python[\d.]*|perl|ruby|node")
_INTERPRETER_OPTIONS_WITH_VALUE = frozenset({"-W", "-X", "-r"})

# Words before a command, and those that take the next word with them.
_PREFIX = re.compile(
    r"if|then|else|elif|do|while|until|!|\{|[A-Za-z_]\w*\+?=.*|\d*[<>].*", re.DOTALL
)
_PREFIX_WITH_WORD = re.compile(r"function|\d*[<>]+&?")
_WRAPPERS = frozenset(
    {"exec", "command", "builtin", "nohup", "nice", "ionice", "setsid", "stdbuf", "env", "xargs"}
    | {"timeout", "time"}
)
_MAX_DEPTH = 4
"""Scripts within scripts (``bash -c 'bash -c "…"'``) that an honest script may have."""


class Refusal(NamedTuple):
    """Why a script is refused, in which line (from 1), and what its author can do instead."""

    line: int
    command: str
    reason: str
    advice: str = "Remove it"

    def __str__(self) -> str:
        return (
            f"run.sh was refused: line {self.line}, {self.command!r}: {self.reason}. "
            f"{self.advice} and submit again"
        )


def check_script(script: bytes) -> Refusal | None:
    """Return why ``script`` is refused, or None. Never raises, for any bytes."""
    return _check(script.decode("utf-8", "replace"), first_line=1, depth=0)


def _check(text: str, first_line: int, depth: int) -> Refusal | None:
    script = read_script(text, first_line)
    for number, line in script.lines:
        for pattern, reason in _REFUSED_PATTERNS:
            if (found := pattern.search(line)) is not None:
                return Refusal(number, found[0][:60], reason)
    for command in script.commands:
        words = _without_wrappers(command.words)
        shown = " ".join(command.words)[:60]
        if words and (refused := _reason_against(_name(words[0]), words[1:])) is not None:
            return Refusal(command.line, shown, refused, _advice(_name(words[0])))
        inner = _script_within(words)
        if inner is not None and depth == _MAX_DEPTH:
            return Refusal(command.line, shown, _OBFUSCATED)
        if inner is not None and (refusal := _check(inner, command.line, depth + 1)):
            return refusal
    return None


def _without_wrappers(words: Sequence[str]) -> Sequence[str]:
    """Return the command that runs in the end: without assignments, redirections, ``nohup``."""
    at = 0
    while at < len(words):
        if _PREFIX_WITH_WORD.fullmatch(words[at]):
            at += 2
        elif _PREFIX.fullmatch(words[at]):
            at += 1
        elif _name(words[at]) in _WRAPPERS:
            wrapper, at = at, at + 1
            # The wrapper's own options, numbers and assignments.
            while at < len(words) and (words[at][:1] in "-+0123456789" or "=" in words[at]):
                at += 1
            if at == len(words):
                return words[wrapper:]
        else:
            break
    return words[at:]


def _name(word: str) -> str:
    # A program of the job itself (./service) is not the system's program of that name.
    return word.rpartition("/")[2] if word.startswith("/") else word


def _reason_against(name: str, arguments: Sequence[str]) -> str | None:
    if name in _REFUSED:
        return _REFUSED[name]
    if name == "env" and not arguments:
        return _SECRETS
    if (
        name.startswith("mkfs")
        or (name == "rm" and any(map(_SYSTEM_FOLDER.fullmatch, arguments)))
        or (name == "dd" and any(map(_BLOCK_DEVICE.fullmatch, arguments)))
    ):
        return _DESTRUCTIVE
    mode = next((argument for argument in arguments if argument[:1] != "-"), "")
    if name == "chmod" and _SET_ID_BITS.fullmatch(mode):
        return _PRIVILEGE
    if _INTERPRETER.fullmatch(name) and _has_inline_code(name, arguments):
        return _OBFUSCATED
    return None


def _has_inline_code(name: str, arguments: Sequence[str]) -> bool:
    """Check whether an interpreter gets its program as an argument, as in ``python -c``."""
    inline_code = r"-[A-Za-z]*c" if name.startswith("python") else "-e"
    remaining = iter(arguments)
    for argument in remaining:
        if argument[:1] != "-":
            return False  # a program; all further arguments are its own
        if re.fullmatch(inline_code, argument):
            return True
        if argument in _INTERPRETER_OPTIONS_WITH_VALUE:
            next(remaining, None)
    return False


def _script_within(words: Sequence[str]) -> str | None:
    """Return the script that a command gives to a shell: ``bash -c …``, ``eval …``."""
    if words and words[0] == "eval":
        return " ".join(words[1:])
    if not words or _name(words[0]) not in SHELLS:
        return None
    for argument, following in zip(words[1:], [*words[2:], None], strict=False):
        if argument[:1] not in ("-", "+"):
            return None
        if argument[:2] != "--" and "c" in argument:
            return following
    return None


def _advice(name: str) -> str:
    """Say how an honest script does the same without the command."""
    if _INTERPRETER.fullmatch(name):
        return f"Put the code into a file beside run.sh, run that ({name} FILE)"
    if name in ("printenv", "env"):
        return 'Name each variable that is needed ("$HOME" instead of printenv HOME)'
    if _REFUSED.get(name) == _NETWORK:
        return "Upload what it needs beside run.sh, remove it"
    return "Remove it"
