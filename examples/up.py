"""Both services in the foreground, for development. Run by ``make up``; Ctrl-C stops them.

They listen on this machine only, because they require no tokens: HOST=0.0.0.0 opens them. PORT
and CLIENT_PORT select other ports than 5000 and 9000.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

DATA = Path("data")
SERVER_PORT = os.environ.get("PORT") or "5000"
CLIENT_PORT = os.environ.get("CLIENT_PORT") or "9000"

START_S = 15.0
"""Seconds that the server waits for the client to listen before it starts anyway."""

Service = subprocess.Popen[bytes]


def start(name: str, settings: dict[str, str]) -> Service:
    """Start a service. Settings that are not given here come from the shell.

    It runs in a separate session, so that Ctrl-C reaches only this program, which stops the
    services in order.
    """
    bin_folder = Path(sys.executable).parent
    environment = {"HOST": "127.0.0.1", **os.environ, **settings}
    environment["PATH"] = f"{bin_folder}:{environment.get('PATH', os.defpath)}"
    return subprocess.Popen(  # noqa: S603 (our own commands)
        [bin_folder / name], env=environment, start_new_session=True
    )


def until_it_listens(service: Service, port: str) -> None:
    """Wait until a service listens or has ended; the server would warn of an absent client."""
    until = time.monotonic() + START_S
    while service.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", int(port)), 1).close()
        except (
            OSError,
            ValueError,
            OverflowError,
        ):  # the last two: a port that the service will refuse
            time.sleep(0.05)
        else:
            return


def end(services: Iterable[Service]) -> None:
    """Stop the services in this order. A second Ctrl-C stops all of them immediately."""
    try:
        for service in services:
            service.terminate()
            service.wait()
    except (KeyboardInterrupt, SystemExit):
        for service in services:
            service.terminate()  # the second signal ends its grace time
        for service in services:
            service.wait()


def main() -> int:
    """Run until Ctrl-C, or until one of the two ends."""
    client_url = f"http://127.0.0.1:{CLIENT_PORT}"
    (DATA / "server").mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    # The client first: at its end it returns its jobs to a server that still listens, which
    # costs them no attempt.
    services: list[Service] = []
    try:
        client = start("jo-client", {"PORT": CLIENT_PORT, "DATA_PATH": str(DATA / "client")})
        services.append(client)
        until_it_listens(client, CLIENT_PORT)
        if client.poll() is not None:
            return 1
        server = start(
            "jo-server",
            {
                "PORT": SERVER_PORT,
                "DATA_PATH": str(DATA / "server"),
                "DB_PATH": str(DATA / "server" / "db.sqlite"),
                "SERVICE_EXAMPLE_UPLOAD_URL": f"{client_url}/submit",
                "SERVICE_EXAMPLE_DOWNLOAD_URL": f"{client_url}/retrieve",
            },
        )
        services.append(server)
        sys.stdout.write(
            f"jo-server http://localhost:{SERVER_PORT}, service 'example'\n"
            f"  dashboard http://localhost:{SERVER_PORT}/dashboard/\n"
            f"  API       http://localhost:{SERVER_PORT}/swagger-ui/\n"
            f"jo-client {client_url}; files in {DATA.absolute()}; Ctrl-C ends both\n"
        )
        sys.stdout.flush()
        # Returns when one of them has ended, and leaves its status to Popen.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        end(services)


if __name__ == "__main__":
    sys.exit(main())
