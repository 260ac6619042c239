"""A Slurm cluster of one node on this machine, for tests: real daemons on loopback."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from job_orchestrator.client.executors.batch.executor import BatchTiming

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
START_TIMEOUT_S = 60.0
HOST = socket.gethostname().partition(".")[0]

FAST = BatchTiming(
    mark_interval_s=0.1,
    ask_interval_s=1.0,
    cancel_ask_interval_s=0.3,
    mark_grace_s=5.0,
    end_grace_s=0.5,
)
"""Timing of a batch executor that need not spare the batch system."""

_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={port}
SlurmdPort={node_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MpiDefault=none
ProctrackType=proctrack/{tracking}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=16
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=10000,sched_interval=1,bf_interval=1,default_queue_depth=10000
ReturnToService=2
MinJobAge=300
KillWait=2
MessageTimeout=20
SlurmdTimeout=300
NodeName={host} NodeAddr=127.0.0.1 CPUs=64 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
_CGROUPS = """\
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
"""


@dataclass
class SlurmCluster:
    """A running cluster. ``environment`` is what its commands need."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the commands."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": "/root",
            "USER": "root",
            "SLURM_CONF": str(self.folder / "slurm.conf"),
        }

    def command(self, *words: str) -> str:
        """Run a command of Slurm, and return its output."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def start(self, daemon: str) -> None:
        """Start one of the daemons, which detaches itself."""
        self.command(daemon)

    def kill(self, daemon: str) -> None:
        """Kill one of the daemons."""
        pid = int((self.folder / f"{daemon}.pid").read_text())
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            process.send_signal(signal.SIGKILL)
            process.wait(START_TIMEOUT_S)

    def has_saved(self, name: bytes) -> bool:
        """Return whether a job with ``name`` in its name survives a crash of the controller."""
        return name in (self.folder / "state" / "job_state").read_bytes()

    def fail_node(self) -> None:
        """Declare that the node has failed."""
        self.command("scontrol", "update", f"NodeName={HOST}", "State=DOWN", "Reason=test")

    def until_idle(self) -> None:
        """Wait until the node takes jobs; if it has failed, resume it."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while (state := self.command("sinfo", "--noheader", "--format=%t").strip()) != "idle":
            assert time.monotonic() < deadline, (state, self.log())
            if state.startswith("down"):
                with contextlib.suppress(AssertionError):  # it may be back already
                    self.command("scontrol", "update", f"NodeName={HOST}", "State=RESUME")
            time.sleep(0.1)

    def log(self) -> str:
        """Return the ends of the logs."""
        files = (self.folder / "slurmctld.log", self.folder / "slurmd.log")
        return "\n".join(file.read_text()[-2000:] for file in files if file.exists())


@contextmanager
def slurm_cluster() -> Iterator[SlurmCluster]:
    """Run a cluster within the block. Skips the test where Slurm is missing."""
    if os.geteuid() != 0:
        pytest.skip("only root can run the daemons of Slurm")
    if not all(shutil.which(program) for program in PROGRAMS):
        pytest.skip("Slurm is not installed")
    # Not in a folder of pytest: sockets have short names.
    folder = Path(tempfile.mkdtemp(prefix="jo-slurm-"))
    cluster = SlurmCluster(folder)
    try:
        _configure(folder)
        (folder / "state").mkdir()
        (folder / "spool").mkdir()
        cluster.command(
            "munged",
            f"--socket={folder}/munge.sock",
            f"--key-file={folder}/munge.key",
            f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log",
            f"--seed-file={folder}/munge.seed",
        )
        cluster.start("slurmctld")
        cluster.start("slurmd")
        cluster.until_idle()
        yield cluster
    finally:
        with contextlib.suppress(AssertionError, subprocess.SubprocessError):
            subprocess.run(
                ("scancel", "--user=root"), env=cluster.environment, timeout=20, check=False
            )
        for daemon in ("slurmd", "slurmctld", "munged"):
            with contextlib.suppress(FileNotFoundError, ValueError):
                cluster.kill(daemon)
        _end_steps(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _configure(folder: Path) -> None:
    folder.chmod(0o755)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    with socket.socket() as one, socket.socket() as two:
        for each in (one, two):
            each.bind(("127.0.0.1", 0))
        ports = one.getsockname()[1], two.getsockname()[1]
    has_cgroups = Path("/sys/fs/cgroup/freezer").is_dir() and os.access("/sys/fs/cgroup", os.W_OK)
    (folder / "slurm.conf").write_text(
        _CONFIGURATION.format(
            host=HOST,
            port=ports[0],
            node_port=ports[1],
            folder=folder,
            tracking="cgroup" if has_cgroups else "linuxproc",
        )
    )
    (folder / "cgroup.conf").write_text(_CGROUPS)


def _end_steps(folder: Path) -> None:
    """Kill the processes that hold jobs of this cluster, which outlive slurmd."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("slurmstepd") and str(folder) in str(process.environ()):
                process.kill()
