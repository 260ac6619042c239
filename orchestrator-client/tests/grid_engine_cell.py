"""A Grid Engine cell of one node, for tests: real daemons in namespaces of their own.

The daemons listen on all addresses and read fixed folders, so they get a network, a host name and
mounts that no other process sees. Commands are run in the same namespaces.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

PROGRAMS = ("sge_qmaster", "sge_execd", "qsub", "unshare", "nsenter", "ip")
START_TIMEOUT_S = 60.0
ROOT = "/var/lib/gridengine"

_START = """\
set -e
D=$1
ip link set lo up
ip addr add 10.99.0.1/32 dev lo
printf '127.0.0.1 localhost\\n10.99.0.1 sgehost\\n' > $D/hosts
mount --bind $D/hosts /etc/hosts
hostname sgehost
cp -a /var/lib/gridengine/. $D/root/
cp -a /var/spool/gridengine/. $D/spool/
mkdir -p $D/spool/spooldb $D/spool/qmaster/job_scripts $D/spool/execd
mount --bind $D/root /var/lib/gridengine
mount --bind $D/spool /var/spool/gridengine
chown -R sgeadmin:sgeadmin $D/root/default $D/spool
as_admin() { setpriv --reuid sgeadmin --regid sgeadmin --init-groups "$@"; }
as_admin /usr/share/gridengine/scripts/init_cluster $SGE_ROOT default \\
  /var/spool/gridengine/spooldb sgeadmin
echo sgehost > $SGE_ROOT/default/common/act_qmaster
SGE_ND=1 /usr/sbin/sge_qmaster &
until qconf -sh > /dev/null 2>&1; do sleep 0.1; done
set +e  # the package may have made some of these
as_admin qconf -am root
as_admin qconf -as sgehost
as_admin qconf -ah sgehost
printf 'group_name @allhosts\\nhostlist sgehost\\n' > $D/group
qconf -Ahgrp $D/group
mkdir -p $D/conf
qconf -sconf | sed 's/^min_uid.*/min_uid 0/;s/^min_gid.*/min_gid 0/
s/^execd_params.*/execd_params ENABLE_ADDGRP_KILL=TRUE/
s/^load_report_time.*/load_report_time 00:00:05/' > $D/conf/global
qconf -Mconf $D/conf/global
qconf -ssconf | sed 's/^schedule_interval.*/schedule_interval 0:0:1/
s/^flush_submit_sec.*/flush_submit_sec 1/;s/^flush_finish_sec.*/flush_finish_sec 1/' > $D/conf/sched
qconf -Msconf $D/conf/sched
SGE_ND=1 /usr/sbin/sge_execd &
sleep 1
qconf -Aq $D/queue
until qstat -f | grep -q 'lx-amd64 *$'; do sleep 0.2; done
touch $D/ready
wait
"""

_UNSHARE = (
    "unshare",
    "--net",
    "--mount",
    "--uts",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
)
"""All processes in the namespaces end with this one."""

_UNLIMITED = ["rt", "cpu", "fsize", "data", "stack", "core", "rss", "vmem"]
_QUEUE = {
    "qname": "main.q",
    "hostlist": "@allhosts",
    "seq_no": "0",
    "load_thresholds": "NONE",
    "suspend_thresholds": "NONE",
    "nsuspend": "1",
    "suspend_interval": "00:05:00",
    "priority": "0",
    "min_cpu_interval": "00:05:00",
    "processors": "UNDEFINED",
    "qtype": "BATCH",
    "ckpt_list": "NONE",
    "pe_list": "NONE",
    "rerun": "FALSE",
    "slots": "16",
    "tmpdir": "/tmp",  # noqa: S108 (a folder of the node)
    "shell": "/bin/bash",
    "prolog": "NONE",
    "epilog": "NONE",
    "shell_start_mode": "unix_behavior",
    "starter_method": "NONE",
    "suspend_method": "NONE",
    "resume_method": "NONE",
    "terminate_method": "NONE",
    "notify": "00:00:01",
    "owner_list": "NONE",
    "user_lists": "NONE",
    "xuser_lists": "NONE",
    "subordinate_list": "NONE",
    "complex_values": "NONE",
    "projects": "NONE",
    "xprojects": "NONE",
    "calendar": "NONE",
    "initial_state": "default",
    **{f"{kind}_{name}": "INFINITY" for name in _UNLIMITED for kind in "sh"},
}


@dataclass(frozen=True)
class GridEngineCell:
    """A running cell. ``environment`` has commands that enter its namespaces."""

    folder: Path
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the commands."""
        return {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "HOME": "/root",
            "USER": "root",
            **_variables(),
        }

    def enter(self) -> None:
        """Write commands that run those of Grid Engine inside."""
        programs = self.folder / "bin"
        programs.mkdir()
        for name in ("qsub", "qstat", "qdel", "qacct", "qconf", "qhold"):
            wrapper = programs / name
            real = shutil.which(name)
            inside = f"nsenter --target {self.pid} --net --mount --uts"
            wrapper.write_text(f'#!/bin/sh\nexec {inside} {real} "$@"\n')
            wrapper.chmod(0o755)


@contextmanager
def grid_engine_cell() -> Iterator[GridEngineCell]:
    """Run a cell within the block. Skips the test where Grid Engine is missing."""
    if os.geteuid() != 0:
        pytest.skip("only root can run the daemons of Grid Engine")
    if not all(shutil.which(program) for program in PROGRAMS):
        pytest.skip("Grid Engine is not installed")
    folder = Path(tempfile.mkdtemp(prefix="jo-sge-"))
    folder.chmod(0o755)
    (folder / "root").mkdir()
    (folder / "spool").mkdir()
    (folder / "queue").write_text("".join(f"{key} {text}\n" for key, text in _QUEUE.items()))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            (*_UNSHARE, "bash", "-c", _START, "bash", str(folder)),
            env={"PATH": os.environ["PATH"], "HOME": "/root", **_variables()},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (folder / "ready").exists():
            text = (folder / "log").read_text()
            assert process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.05)
        (inside,) = psutil.Process(process.pid).children()
        cell = GridEngineCell(folder, inside.pid)
        cell.enter()
        yield cell
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _variables() -> dict[str, str]:
    return {
        "SGE_ROOT": ROOT,
        "SGE_CELL": "default",
        "SGE_QMASTER_PORT": "6444",
        "SGE_EXECD_PORT": "6445",
    }
