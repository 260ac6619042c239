"""The check of run.sh: refuses scripts with obviously dangerous commands, and says what to do.

It is a sanity check, not a sandbox: it catches accidents, and anybody who wants to can evade it.
Isolation is the task of the deployment (containers, users, networks). Honest scripts must pass, so
the rules apply to commands, not to words anywhere in the text.
"""

import re
from codecs import BOM_UTF8
from collections.abc import Sequence
from typing import NamedTuple

from job_orchestrator.client.script_check.shell import SHELLS, read_script
from job_orchestrator.client.workspace.shebang import read_shebang

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
_WIDE_ENCODINGS = (
    (re.compile(rb"\xff\xfe|[\t\n\r -~]\0[\t\n\r -~]\0"), "utf-16-le"),
    (re.compile(rb"\xfe\xff|\0[\t\n\r -~]\0[\t\n\r -~]"), "utf-16-be"),
)
_SHOWN_BYTES = 120
_SHOWN_BINARY_BYTES = 16

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
    return _check_encoding(script) or _check(text, first_line=1, depth=0) or _check_format(text)


def _check_encoding(script: bytes) -> Refusal | None:
    """Refuse a script whose bytes are not those that bash expects."""
    start = script.partition(b"\n")[0][:_SHOWN_BYTES]
    wide = next((name for mark, name in _WIDE_ENCODINGS if mark.match(script)), None)
    if wide is not None:
        return Refusal(
            1,
            script[:_SHOWN_BYTES].decode(wide, "replace").lstrip("\ufeff").split("\n")[0].rstrip(),
            "run.sh is encoded in UTF-16, which bash can't read",
            "Save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
        )
    if b"\0" in script.partition(b"\n")[0]:
        return Refusal(
            1,
            start[:_SHOWN_BINARY_BYTES].decode("ascii", "backslashreplace"),
            "run.sh is a binary file, and bash runs scripts",
            "Upload it under another name, run it in run.sh (chmod +x FILE; ./FILE)",
        )
    if script.startswith(BOM_UTF8):
        return Refusal(
            1,
            start.decode("utf-8", "replace").lstrip("\ufeff").rstrip(),
            "run.sh begins with a byte order mark, which bash takes as part of the first line",
            "Save it as UTF-8 without BOM (sed -i '1s/^\\xef\\xbb\\xbf//' run.sh)",
        )
    return None


def _check_format(text: str) -> Refusal | None:
    """Refuse a script that bash would misread: its messages would not lead to the cause."""
    lines = text.split("\n")
    shebang = read_shebang(lines[0])
    shown = lines[0].rstrip()[:60]
    if shebang.program:
        program = shebang.program[:60]
        return Refusal(
            1,
            shown,
            f"run.sh is always run by bash, and this is a script for {program}",
            f"Put it into another file next to run.sh, run that ({program} FILE)",
        )
    if shebang.misused:
        return Refusal(
            1,
            shown,
            f"with {shebang.misused[:60]!r} bash would not run this script",
            "Keep only options such as -e, -u, -x, -l and -o pipefail in this line",
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
