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
_LAUNCHERS = frozenset({"env", "busybox"})
_LIKE_BASH = re.compile(r"(?:r?ba|da|a|z|k|mk)?sh(?:-?[\d.]+)?|nix-shell")
"""Interpreters in a shebang whose scripts bash can run; nix-shell leaves the rest to a shell."""
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
    """Refusal of a script: the line (from 1), the command, and what the author can do instead."""

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
    text = script.decode("utf-8", "replace")
    return _check(text, first_line=1, depth=0) or _check_format(text)


def _check_format(text: str) -> Refusal | None:
    """Refuse a script that bash would misread: its messages would not lead to the cause."""
    lines = text.split("\n")
    if (program := _other_interpreter(lines[0])) is not None:
        return Refusal(
            1,
            lines[0].rstrip()[:60],
            f"run.sh is always run by bash, and this is a script for {program}",
            f"Put it into another file next to run.sh, run that ({program} FILE)",
        )
    for number, code in read_script(text).lines:
        if code.strip() and lines[number - 1].endswith("\r"):
            return Refusal(
                number,
                code.strip()[:60],
                "the line ends with CR LF, as on Windows, and bash takes the CR as part of the "
                "command",
                "Convert the line ends (dos2unix run.sh)",
            )
    return None


def _other_interpreter(first_line: str) -> str | None:
    """Return the program that a shebang names; None if bash can run its scripts."""
    if not first_line.startswith("#!"):
        return None
    names = [word.rpartition("/")[2] for word in first_line[2:].split()]
    while names and (names[0] in _LAUNCHERS or names[0].startswith("-") or "=" in names[0]):
        del names[0]
    return names[0][:60] if names and not _LIKE_BASH.fullmatch(names[0]) else None


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
