"""A service whose stop hangs is ended by the kernel, and says where it hangs."""

import signal
import subprocess
import sys

PROGRAM = """
import threading
from aiohttp import web
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.web.service import run_service

async def hang_in_a_thread() -> None:
    await in_thread(threading.Event().wait)

async def ready(_: web.Application) -> None:
    print("ready", flush=True)

app = web.Application()
app.on_startup.append(ready)
run_service(
    "a service",
    "1",
    app,
    "127.0.0.1",
    0,
    end_streams=lambda: None,
    drain=hang_in_a_thread,
    stop_limit_s=1.0,
)
"""


def test_trap_67_sigterm_ends_a_service_whose_thread_hangs() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == "ready\n"
        service.send_signal(signal.SIGTERM)
        _, errors = service.communicate(timeout=60)
    assert service.returncode == -signal.SIGALRM
    assert "most recent call first" in errors
