"""Both services in the foreground, for development. Run by ``make up``; Ctrl-C ends them.

They are reached from this machine only, because they believe everybody: HOST=0.0.0.0 opens them.
PORT and CLIENT_PORT choose other ports than 5000 and 9000.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

DATA = Path("data")
SERVER_PORT = os.environ.get("PORT") or "5000"
CLIENT_PORT = os.environ.get("CLIENT_PORT") or "9000"


def start(name: str, settings: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start a service. All settings but those that are made here come from the shell."""
    bin_folder = Path(sys.executable).parent
    environment = {"HOST": "127.0.0.1", **os.environ, **settings}
    environment["PATH"] = f"{bin_folder}:{environment.get('PATH', os.defpath)}"
    return subprocess.Popen(  # noqa: S603 (our own commands)
        [bin_folder / name], env=environment, start_new_session=True
    )


def main() -> int:
    """Run until Ctrl-C, or until one of the two ends."""
    client_url = f"http://127.0.0.1:{CLIENT_PORT}"
    (DATA / "server").mkdir(parents=True, exist_ok=True)
    processes = [
        start("jo-client", {"PORT": CLIENT_PORT, "DATA_PATH": str(DATA / "client")}),
        start(
            "jo-server",
            {
                "PORT": SERVER_PORT,
                "DATA_PATH": str(DATA / "server"),
                "DB_PATH": str(DATA / "server" / "db.sqlite"),
                "SERVICE_EXAMPLE_UPLOAD_URL": f"{client_url}/submit",
                "SERVICE_EXAMPLE_DOWNLOAD_URL": f"{client_url}/retrieve",
            },
        ),
    ]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    sys.stdout.write(
        f"jo-server http://localhost:{SERVER_PORT}, service 'example'\n"
        f"  dashboard http://localhost:{SERVER_PORT}/dashboard/\n"
        f"  API       http://localhost:{SERVER_PORT}/swagger-ui/\n"
        f"jo-client {client_url}; files in {DATA.absolute()}; Ctrl-C ends both\n"
    )
    sys.stdout.flush()
    try:
        # Returns when one of them has ended, and leaves its status to Popen.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
