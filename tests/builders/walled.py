"""`python -m tests.builders.walled REFUSED app --port 0`: a command of `python -m ml` in a process
that cannot reach another machine. What it tried is written to the file REFUSED, a line each."""

import sys
from pathlib import Path
from typing import Any

HERE = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "")


def wall(refused: Path) -> None:
    """From now on connecting, or looking a name up, fails for all but this machine."""

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect":
            address = arguments[1]
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            address = arguments
        else:
            return
        host = (
            address[0] if isinstance(address, tuple) else ""
        )  # a path is a socket of this machine
        host = host.decode() if isinstance(host, bytes) else host
        if host is not None and host not in HERE:
            with refused.open("a") as file:
                file.write(f"{event} {address}\n")
            raise OSError(f"this process may not reach {host}")

    sys.addaudithook(look)


if __name__ == "__main__":
    wall(Path(sys.argv[1]))
    from ml.__main__ import main

    sys.exit(main(sys.argv[2:]))
