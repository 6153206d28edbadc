"""Ports for servers that are told theirs before they start."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port() -> Iterator[int]:
    """A free port of this machine that nobody else is given meanwhile.

    It is bound here, and nothing listens. On Linux a server may bind it as well, as all of them allow that; elsewhere
    it has to be let go first, and a test is unlucky where another program takes it.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = int(held.getsockname()[1])
        if sys.platform != "linux":
            held.close()
        yield port
