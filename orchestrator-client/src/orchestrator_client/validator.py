"""The sanity check of run.sh: refuses scripts that do something obviously dangerous.

It is no sandbox. Whoever wants to get past it will; isolation is the business of the deployment
(containers, users, networks). It catches accidents and the lazy, and it must let honest scripts
through: so it looks at commands where commands stand, not at words anywhere in the text.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

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
    (
        re.compile(r"\bbase64\b[^|;\n]*\|\s*(?:sudo\s+)?(?:ba|da|z|k)?sh\b"),
        _OBFUSCATED,
    ),
    (re.compile(r":\(\)\s*\{\s*:\s*\|\s*:\s*&\s*\}\s*;\s*:"), "it is a fork bomb"),
)

# Words after which a command stands.
_KEYWORDS = frozenset({"if", "then", "else", "elif", "do", "while", "until", "!", "{", "time"})
_WRAPPERS = frozenset(
    {"exec", "command", "builtin", "nohup", "nice", "ionice", "setsid", "stdbuf", "env", "xargs"}
    | {"timeout", "time", "eval"}
)
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh"})
_INTERPRETERS = {
    **dict.fromkeys(("python", "python2", "python3"), "-c"),
    **dict.fromkeys(("perl", "ruby", "node"), "-e"),
}
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)([A-Za-z_]\w*)\1")
_SYSTEM_FOLDER = re.compile(
    r"/|/\*|/(?:bin|boot|dev|etc|home|lib|lib64|opt|proc|root|sbin|srv|sys|usr|var)(?:/\*?)?"
)
_SET_ID_BITS = re.compile(r"(?:[ugoa]*\+[rwxXt]*s[rwxXst]*)|[2467]\d{3}")
_BLOCK_DEVICE = re.compile(r"of=/dev/(?!null\b|zero\b|shm/|stdout\b|stderr\b)")


@dataclass(frozen=True)
class Refusal:
    """Why a script is refused, and in which line (from 1)."""

    line: int
    command: str
    reason: str

    def __str__(self) -> str:
        return (
            f"run.sh was refused: line {self.line}, {self.command!r}: {self.reason}. "
            "Remove it and submit again"
        )


def check_script(script: bytes) -> Refusal | None:
    """Return why ``script`` is refused, None if it isn't. Never raises, whatever the bytes are."""
    for number, line in _logical_lines(script.decode("utf-8", "replace")):
        for pattern, why in _FORBIDDEN_TEXT:
            if (match := pattern.search(line)) is not None:
                return Refusal(number, match[0][:60], why)
        for words in _commands(line):
            if (reason := _reason_against(words)) is not None:
                return Refusal(number, " ".join(words)[:60], reason)
    return None


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, continued ones joined, here-documents left out.

    A here-document is data, unless a shell reads it.
    """
    lines = iter(enumerate(text.replace("\r\n", "\n").split("\n"), start=1))
    for number, line in lines:
        joined = line
        while joined.endswith("\\"):
            joined = joined[:-1] + " " + next(lines, (0, ""))[1]
        code = _without_comment(joined)
        yield number, code
        heredoc = _HEREDOC.search(code)
        if heredoc is not None and not any(w[:1] and w[0] in _SHELLS for w in _commands(code)):
            for _, data in lines:
                if data.strip() == heredoc[2]:
                    break


def _without_comment(line: str) -> str:
    """``line`` up to a ``#`` that begins a word outside quotes."""
    quote = ""
    for index, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "#" and (index == 0 or line[index - 1] in " \t;&|("):
            return line[:index]
    return line


def _commands(line: str) -> Iterator[list[str]]:
    """The simple commands of a line as words, without quotes; those of ``$(…)`` and backticks too.

    A rough reading of the shell's grammar, in linear time, that prefers to see one command too
    many: text in double quotes is data, but for the substitutions in it.
    """
    words: list[str] = []
    word: list[str] = []
    quote = ""

    def end_word() -> None:
        if word:
            words.append("".join(word))
            word.clear()

    index = 0
    while index < len(line):
        character = line[index]
        substitution = line.startswith("$(", index) or character == "`"
        if quote == "'":
            quote = "" if character == "'" else quote
            word.append(character) if quote else None
        elif substitution or (not quote and character in ";|&(){}\n"):
            end_word()
            if words:
                yield words
            words = []
            index += line.startswith("$(", index)
        elif quote:
            quote = "" if character == quote else quote
            word.append(character) if quote else None
        elif character in "'\"":
            quote = character
        elif character in " \t":
            end_word()
        elif character == "\\" and index + 1 < len(line):
            index += 1
            word.append(line[index])
        else:
            word.append(character)
        index += 1
    end_word()
    if words:
        yield words


def _reason_against(words: list[str]) -> str | None:
    """Why the simple command ``words`` is refused; looks through wrappers such as ``nohup``."""
    words = list(words)
    while words:
        # A program of the job itself (./service) is not the system's of that name.
        name = words[0].rpartition("/")[2] if words[0].startswith("/") else words[0]
        if name in _KEYWORDS or _ASSIGNMENT.match(words[0]) or words[0].startswith((">", "<")):
            words.pop(0)
        elif name in _WRAPPERS:
            # Their own options, numbers and assignments come before the command that they run.
            words = words[1:]
            if not words and name == "env":
                return _SECRETS
            while words and (words[0][0] in "-+0123456789" or _ASSIGNMENT.match(words[0])):
                words.pop(0)
        else:
            return _reason_against_command(name, words[1:])
    return None


def _reason_against_command(name: str, arguments: list[str]) -> str | None:
    if name in _FORBIDDEN_COMMANDS:
        return _FORBIDDEN_COMMANDS[name]
    if name.startswith("mkfs"):
        return _DESTRUCTIVE
    if name == "rm" and any(_SYSTEM_FOLDER.fullmatch(argument) for argument in arguments):
        return _DESTRUCTIVE
    if name == "dd" and any(_BLOCK_DEVICE.match(argument) for argument in arguments):
        return _DESTRUCTIVE
    if name == "chmod" and any(_SET_ID_BITS.fullmatch(argument) for argument in arguments):
        return _PRIVILEGE
    # Options before the script are the interpreter's; those behind it are the script's.
    own = list(itertools.takewhile(lambda argument: argument.startswith("-"), arguments))
    if name in _INTERPRETERS and _INTERPRETERS[name] in own:
        return _OBFUSCATED
    if name in _SHELLS and any(argument.startswith("-c") for argument in arguments):
        inner = arguments[arguments.index(next(a for a in arguments if a.startswith("-c"))) + 1 :]
        return next((r for w in _commands(" ".join(inner)) if (r := _reason_against(w))), None)
    return None
