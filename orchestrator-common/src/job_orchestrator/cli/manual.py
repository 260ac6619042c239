"""Manual pages of ``jo``, made from the help texts of its commands.

``python -m job_orchestrator.cli.manual FOLDER`` writes them into a folder.
"""

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from job_orchestrator.cli.main import jo
from job_orchestrator.common import __version__

SECTION = 1


def pages() -> Mapping[str, str]:
    """Return all pages in troff, by name: that of ``jo``, and one for each of its commands."""
    group = jo.make_context("jo", [], resilient_parsing=True)
    found = {"jo": _page("jo", group, sorted(jo.commands))}
    for name, command in jo.commands.items():
        context = command.make_context(name, [], parent=group, resilient_parsing=True)
        found[f"jo-{name}"] = _page(f"jo-{name}", context, ())
    return found


def write_pages(folder: Path) -> None:
    """Write the pages into ``folder``, which is created if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in pages().items():
        (folder / f"{name}.{SECTION}").write_text(page, encoding="utf-8")


def _page(name: str, context: click.Context, commands: Iterable[str]) -> str:
    command = context.command
    summary, _, details = (command.help or "").partition(".")
    arguments = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH "{_text(name.upper())}" "{SECTION}" "" "jo {__version__}" "Manual of jo"',
        ".SH NAME",
        f"{_text(name)} \\- {_text(summary)}",
        ".SH SYNOPSIS",
        f"\\fB{_text(context.command_path)}\\fR {_text(arguments)}",
        ".SH DESCRIPTION",
        *_paragraphs(f"{summary}.{details}"),
        ".SH OPTIONS",
    ]
    for parameter in command.get_params(context):
        if (
            isinstance(parameter, click.Option)
            and (record := parameter.get_help_record(context)) is not None
        ):
            option, explanation = record
            lines += [".TP", f"\\fB{_text(option)}\\fR", _text(explanation)]
    if commands:
        lines.append(".SH COMMANDS")
        for each in commands:
            about = jo.commands[each].get_short_help_str(limit=200)
            lines += [".TP", f"\\fBjo\\-{_text(each)}\\fR({SECTION})", _text(about)]
    else:
        lines += [".SH SEE ALSO", f"\\fBjo\\fR({SECTION})"]
    return "\n".join(lines) + "\n"


def _paragraphs(text: str) -> Iterable[str]:
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        yield from (".PP", _text(" ".join(paragraph.split())))


def _text(text: str) -> str:
    """Escape a line of text, in which troff would find commands."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    escaped = "".join(each if each.isascii() else f"\\[u{ord(each):04X}]" for each in escaped)
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
