"""The job script of a payload: it runs at most once, and records start and end in files.

``mkdir`` of one folder decides who begins. So a job that was submitted twice, or that an
administrator has requeued, ends without an effect, and a payload that was cancelled in time never
begins, even if the batch system does not answer.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path

from job_orchestrator.client.executors.batch.marks import EXIT, STARTED
from job_orchestrator.client.workspace.layout import Workspace
from job_orchestrator.client.workspace.shebang import script_command

JOB_SCRIPT = "job.sh"
JOB_LOG = "job.log"
TAKEN = "taken"
"""Folder in the workspace, which exists once the payload has begun, or must not begin any more."""

_TEMPLATE = """\
#!/bin/bash
# Runs one payload of jo-client, at most once, and records its start and its end.
root={root} marks={marks} name={name}
if ! mkdir "$root/{taken}"; then
  echo "jo-client: $name has begun before, was cancelled, or its folder is not on $(uname -n)" >&2
  exit 0
fi
mark() {{ printf '%s\\n' "$2" > "$root/.$1" && mv "$root/.$1" "$marks/$name$1"; }}
mark {started} "${{SLURM_JOB_ID:-${{JOB_ID:-0}}}} $(date +%s.%N) $(uname -n)"
cd "$root/work" || exit
{exports}
# The batch system may signal all processes. This shell goes on, to record the end.
trap : HUP INT TERM USR1 USR2 XCPU
{command} < /dev/null >> "$root/{stdout}" 2>> "$root/{stderr}"
code=$?
# What the script has left in the background.
kill -TERM 0
mark {exit} "$code $(date +%s.%N)"
exit "$code"
"""


def job_script(workspace: Workspace, name: str, marks: Path, environment: Mapping[str, str]) -> str:
    """Return the text of the job script for ``workspace``. Blocks, for the disk only.

    The script sees ``environment``, and the variables that the batch system sets.
    """
    variables = {
        **environment,
        "HOME": str(workspace.work),
        "TMPDIR": str(workspace.scratch),
        "JO_WORKSPACE": str(workspace.root),
    }
    return _TEMPLATE.format(
        root=shlex.quote(str(workspace.root)),
        marks=shlex.quote(str(marks)),
        name=shlex.quote(name),
        taken=TAKEN,
        started=STARTED,
        exit=EXIT,
        exports="\n".join(f"export {key}={shlex.quote(text)}" for key, text in variables.items()),
        command=shlex.join(script_command(workspace, "bash")),
        stdout=workspace.stdout.name,
        stderr=workspace.stderr.name,
    )
