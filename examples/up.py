"""Run both services in the foreground, for development. Run by ``make up``; Ctrl-C stops them.

The services require no authentication, so they listen on the loopback interface only. HOST=0.0.0.0
makes them reachable from other machines. PORT (5000) and CLIENT_PORT (9000) choose the ports.
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

START_S = 60.0
"""Maximum wait for the client to listen; the server is started after that in any case."""

Service = subprocess.Popen[bytes]


def start(name: str, settings: dict[str, str]) -> Service:
    """Start a service with ``settings`` in addition to the environment of the shell.

    The service runs in a new session, so that Ctrl-C reaches only this program, which stops the
    services in order.
    """
    bin_folder = Path(sys.executable).parent
    environment = {"HOST": "127.0.0.1", **os.environ, **settings}
    environment["PATH"] = f"{bin_folder}:{environment.get('PATH', os.defpath)}"
    return subprocess.Popen(  # noqa: S603 (our own commands)
        [bin_folder / name], env=environment, start_new_session=True
    )


def wait_until_listening(service: Service, port: str) -> None:
    """Wait until a service listens or has exited. A server warns of clients that do not listen."""
    until = time.monotonic() + START_S
    while service.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", int(port)), 1).close()
        except (OSError, ValueError, OverflowError):  # the last two: invalid port
            time.sleep(0.05)
        else:
            return


def stop(services: Iterable[Service]) -> None:
    """Stop the services one after the other. A second Ctrl-C stops all of them immediately."""
    try:
        for service in services:
            service.terminate()
            service.wait()
    except (KeyboardInterrupt, SystemExit):
        for service in services:
            service.terminate()  # a second SIGTERM shortens the shutdown
        for service in services:
            service.wait()


def main() -> int:
    """Run both services until Ctrl-C, or until one of them exits."""
    client_url = f"http://127.0.0.1:{CLIENT_PORT}"
    (DATA / "server").mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    # The client is stopped first: it returns its jobs to a server that still listens, and such jobs
    # lose no attempt.
    services: list[Service] = []
    try:
        client = start("jo-client", {"PORT": CLIENT_PORT, "DATA_PATH": str(DATA / "client")})
        services.append(client)
        wait_until_listening(client, CLIENT_PORT)
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
            f"jo-client {client_url}; files in {DATA.absolute()}; Ctrl-C stops both\n"
        )
        sys.stdout.flush()
        # Returns when one of them has exited; WNOWAIT leaves the exit status to Popen.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        stop(services)


if __name__ == "__main__":
    sys.exit(main())
