"""Whom to trust over TLS."""

import ssl
from functools import cache


@cache
def trusted() -> ssl.SSLContext:
    """The machine's authorities. To read them takes 20 ms, so all connections of a process share what was read."""
    return ssl.create_default_context()
