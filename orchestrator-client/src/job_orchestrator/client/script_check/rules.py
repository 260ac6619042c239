"""The sanity check of run.sh: refuses scripts that do something obviously dangerous.

It is no sandbox. Whoever wants to get past it will; isolation is the business of the deployment
(containers, users, networks). It catches accidents and the lazy, and it must let honest scripts
through: so it looks at commands where commands stand, not at words anywhere in the text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from job_orchestrator.client.script_check.shell import SHELLS, read_script

_DESTRUCTIVE = "it destroys file systems"
_NETWORK = "it transfers data over the network"
_PRIVILEGE = "it asks for more privileges"
_ESCAPE = "it reaches out of a container"
_PERSISTENCE = "it would outlive the job"
_MINER = "it is a crypto miner"
_SECRETS = "it reads secrets of the environment"
_OBFUSCATED = "it executes code that can't be read here"

_FORBIDDEN_COMMANDS = {
    **dict.fromkeys(("fdisk", "parted", "wipefs", "shred", "mkswap"), _DESTRUCTIVE),
    **dict.fromkeys(("shutdown", "reboot", "halt", "poweroff"), "it stops the machine"),
    **dict.fromkeys(
        ("curl", "wget", "socat", "nc", "ncat", "netcat", "telnet", "ftp", "sftp", "scp", "ssh"),
        _NETWORK,
    ),
    **dict.fromkeys(("sudo", "su", "doas", "pkexec", "setcap"), _PRIVILEGE),
    **dict.fromkeys(("insmod", "modprobe", "iptables", "nft"), _PRIVILEGE),
    **dict.fromkeys(
        ("nsenter", "unshare", "chroot", "mount", "umount", "docker", "podman", "kubectl", "runc"),
        _ESCAPE,
    ),
    **dict.fromkeys(("crontab", "systemctl", "service", "launchctl"), _PERSISTENCE),
    **dict.fromkeys(("xmrig", "minerd", "cgminer", "ethminer", "cpuminer", "bfgminer"), _MINER),
    "printenv": _SECRETS,
}

# In the text, wherever it stands outside comments.
_FORBIDDEN_TEXT = (
    (re.compile(r"/dev/(?:tcp|udp)/"), "it opens a network connection"),
    (re.compile(r"stratum\+(?:tcp|ssl)://"), _MINER),
    (re.compile(r"/proc/[^/\s]+/environ\b"), _SECRETS),
    (re.compile(r"/var/run/docker\.sock|/run/docker\.sock"), _ESCAPE),
    (re.compile(r">\s*/dev/(?:sd|hd|vd|xvd|nvme|mmcblk)"), _DESTRUCTIVE),
    (
        re.compile(
            r"\$\{?[A-Z0-9_]*(?:SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|PRIVATE_KEY|_TOKEN)[A-Z_]*"
        ),
        _SECRETS,
    ),
    # Bounded, so that no text makes them slow.
    (
        re.compile(
            r"\bbase64\b[^|;\n]{0,200}\|\s*(?:sudo\s+)?(?:(?:ba|da|z|k)?sh|python3?|perl)\b"
        ),
        _OBFUSCATED,
    ),
    (
        re.compile(
            r"\b(?:eval|(?:ba|da|z|k)?sh|source)\b[\s\"'<]{0,9}[$<]\([^;\n]{0,200}\bbase64\b"
        ),
        _OBFUSCATED,
    ),
    (re.compile(r":\(\)\s*\{\s*:\s*\|\s*:\s*&\s*\}\s*;\s*:"), "it is a fork bomb"),
)

# Words after which a command stands.
_KEYWORDS = frozenset({"if", "then", "else", "elif", "do", "while", "until", "!", "{"})
# Commands that run another one.
_WRAPPERS = frozenset(
    {"exec", "command", "builtin", "nohup", "nice", "ionice", "setsid", "stdbuf", "env", "xargs"}
    | {"timeout", "time"}
)
_INTERPRETER = re.compile(r"(?:python[\d.]*|perl|ruby|node)")
# Options of interpreters that take the next word: it is no program.
_OPTIONS_WITH_VALUE = frozenset({"-W", "-X", "-r"})
_PYTHON_CODE = re.compile(r"-[A-Za-z]*c")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
_REDIRECTION = re.compile(r"\d*[<>]+&?")
_SYSTEM_FOLDER = re.compile(
    r"/+(?:\*|\.)?|/(?:bin|boot|dev|etc|home|lib|lib64|opt|proc|root|sbin|srv|sys|usr|var)(?:/\*?)?"
)
_SET_ID_BITS = re.compile(
    r"0*[2-7][0-7]{3}|(?:.*,)?[ugoa]*[+=][rwxXt]*s[rwxXst]*(?:,.*)?", re.DOTALL
)
_BLOCK_DEVICE = re.compile(r"of=/dev/(?!null\b|zero\b|shm/|stdout\b|stderr\b)")
# bash -c 'bash -c "…"': nobody honest goes deeper.
_MAX_DEPTH = 4


@dataclass(frozen=True)
class Refusal:
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
    """Return why ``script`` is refused, None if it isn't. Never raises, whatever the bytes are."""
    return _check(script.decode("utf-8", "replace"), first_line=1, depth=0)


def _check(text: str, first_line: int, depth: int) -> Refusal | None:
    script = read_script(text, first_line)
    for number, line in script.lines:
        for pattern, why in _FORBIDDEN_TEXT:
            if (match := pattern.search(line)) is not None:
                return Refusal(number, match[0][:60], why)
    for command in script.commands:
        words = _without_wrappers(command.words)
        reason = _reason_against(words)
        if reason is not None:
            return Refusal(command.line, " ".join(command.words)[:60], reason, _advice(words))
        inner = _script_within(words)
        if inner is None:
            continue
        if depth == _MAX_DEPTH:
            return Refusal(command.line, " ".join(command.words)[:60], _OBFUSCATED)
        refusal = _check(inner, command.line, depth + 1)
        if refusal is not None:
            return refusal
    return None


def _without_wrappers(words: Sequence[str]) -> Sequence[str]:
    """The command that is run in the end: without assignments, redirections, ``nohup``, …"""
    at = 0
    while at < len(words):
        word = words[at]
        if word in _KEYWORDS or _ASSIGNMENT.match(word):
            at += 1
        elif (redirection := _REDIRECTION.match(word)) is not None:
            at += 2 if redirection[0] == word else 1
        elif word == "function":
            at += 2
        elif _name(word) in _WRAPPERS:
            start, at = at, at + 1
            # Their own options, numbers and assignments.
            while at < len(words) and (words[at][:1] in "-+0123456789" or "=" in words[at]):
                at += 1
            if at == len(words):
                return words[start:]
        else:
            break
    return words[at:]


def _name(word: str) -> str:
    # A program of the job itself (./service) is not the system's of that name.
    return word.rpartition("/")[2] if word.startswith("/") else word


def _reason_against(words: Sequence[str]) -> str | None:
    if not words:
        return None
    name, arguments = _name(words[0]), words[1:]
    if name in _FORBIDDEN_COMMANDS:
        return _FORBIDDEN_COMMANDS[name]
    if name.startswith("mkfs"):
        return _DESTRUCTIVE
    if name == "env" and not arguments:
        return _SECRETS
    if name == "rm" and any(_SYSTEM_FOLDER.fullmatch(argument) for argument in arguments):
        return _DESTRUCTIVE
    if name == "dd" and any(_BLOCK_DEVICE.match(argument) for argument in arguments):
        return _DESTRUCTIVE
    if name == "chmod":
        mode = next((argument for argument in arguments if argument[:1] != "-"), "")
        return _PRIVILEGE if _SET_ID_BITS.fullmatch(mode) else None
    if _INTERPRETER.fullmatch(name) and _runs_an_argument(name, arguments):
        return _OBFUSCATED
    return None


def _advice(words: Sequence[str]) -> str:
    """How an honest script does what a refused command would do."""
    name = _name(words[0])
    if _INTERPRETER.fullmatch(name):
        return f"Put the code into a file beside run.sh, run that ({name} FILE)"
    if name in ("printenv", "env"):
        return 'Name each variable that is needed ("$HOME" instead of printenv HOME)'
    if _FORBIDDEN_COMMANDS.get(name) == _NETWORK:
        return "Upload what it needs beside run.sh, remove it"
    return Refusal.advice


def _runs_an_argument(name: str, arguments: Sequence[str]) -> bool:
    """Whether an interpreter is given its program as an argument, as in ``python -c``."""
    is_value = False
    for argument in arguments:
        if is_value:
            is_value = False
        elif argument[:1] != "-":
            return False  # a file; what follows is for that
        elif name.startswith("python"):
            if _PYTHON_CODE.fullmatch(argument):
                return True
        elif argument == "-e":
            return True
        is_value = argument in _OPTIONS_WITH_VALUE
    return False


def _script_within(words: Sequence[str]) -> str | None:
    """The script that a command gives to a shell: ``bash -c …``, ``eval …``."""
    if words and words[0] == "eval":
        return " ".join(words[1:])
    if not words or _name(words[0]) not in SHELLS:
        return None
    for at, argument in enumerate(words[1:], start=1):
        if argument[:1] not in ("-", "+"):
            return None
        if argument[:2] != "--" and "c" in argument:
            return words[at + 1] if at + 1 < len(words) else None
    return None
