"""The first line of run.sh: the shell that the script names, and the options for it.

A kernel passes all that follows the shell as one argument. Here, words are separated as by
``env -S``, so that ``#!/bin/bash -e -o pipefail`` does what its author means.
"""

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from job_orchestrator.client.workspace.layout import SCRIPT, Workspace
from job_orchestrator.common.storage.regular_file import open_regular_file

_ENV = "/usr/bin/env"
_LAUNCHERS = frozenset({"env", "busybox"})
_SPLIT = re.compile(r"-[a-z]*S|--split-string=?")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*")
_WITH_OPTIONS_OF_BASH = re.compile(r"(?:r?ba|da|a)?sh(?:-?[\d.]+)?")
_LIKE_BASH = re.compile(r"(?:z|k|mk)sh(?:-?[\d.]+)?|nix-shell")
"""Interpreters whose scripts bash can run; nix-shell leaves the rest to a shell."""

_LETTERS = re.compile(r"[-+][abefhiklmpruvxBCEHPToO]+")
"""Options of bash that leave it run the script: not -c, -s, -n, -t and -D."""
_WORDS = frozenset({"--login", "--noprofile", "--norc", "--posix", "--restricted", "--verbose"})
_END_OF_OPTIONS = ("-", "--")

_MAX_LINE_BYTES = 4096


class Shebang(NamedTuple):
    """Meaning of a first line.

    ``program`` is the interpreter if bash can't take its place, ``misused`` the first word that
    would make bash run something other than the script; both are empty for scripts that are run.
    """

    options: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    program: str = ""
    misused: str = ""


def read_shebang(first_line: str) -> Shebang:
    """Read the first line of a script. Never raises; a line without ``#!`` has no options."""
    if not first_line.startswith("#!"):
        return Shebang()
    words = first_line[2:].split()
    variables = []
    if words and _name(words[0]) in _LAUNCHERS:
        del words[0]
        while words and (words[0].startswith("-") or "=" in words[0]):
            word = words.pop(0)
            if _ASSIGNMENT.fullmatch(word):
                variables.append(word)
            elif (split := _SPLIT.match(word)) is not None and split.end() < len(word):
                words.insert(0, word[split.end() :])
    name = _name(words[0]) if words else "sh"
    if _WITH_OPTIONS_OF_BASH.fullmatch(name):
        options, misused = _options(words[1:])
        return Shebang(options, tuple(variables), misused=misused)
    if _LIKE_BASH.fullmatch(name):
        return Shebang(variables=tuple(variables))
    return Shebang(program=name)


def script_command(workspace: Workspace, bash: str) -> list[str]:
    """Return the command that runs the script of ``workspace`` as its first line says.

    ``bash`` is the path of the shell. Blocks, for the disk only.
    """
    try:
        descriptor = open_regular_file(workspace.work / SCRIPT)
        try:
            first_line, _, _ = os.read(descriptor, _MAX_LINE_BYTES).partition(b"\n")
        finally:
            os.close(descriptor)
    except OSError:
        first_line = b""  # bash reports the missing file in the output of the job
    shebang = read_shebang(first_line.decode("utf-8", "replace"))
    command = [bash, *shebang.options, SCRIPT]
    return [_ENV, *shebang.variables, *command] if shebang.variables else command


def _name(word: str) -> str:
    return word.rpartition("/")[2]


def _options(words: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Return the options for bash, and the first word that it would misread."""
    options: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word in _END_OF_OPTIONS or word.startswith("#"):
            break
        if word not in _WORDS and not _LETTERS.fullmatch(word):
            return (), word
        options.append(word)
        names_to_come = 0 if word in _WORDS else word.count("o") + word.count("O")
        for _ in range(names_to_come):
            name = next(remaining, "")
            if not re.fullmatch(r"\w+", name):
                return (), word  # bash would take the script for the name
            options.append(name)
    # Long options of bash stand before the letters.
    options.sort(key=lambda word: word not in _WORDS)
    return tuple(options), ""
