"""A mail server that accepts everything and forgets it, each reply so many milliseconds after its command.

    python -m benchmarks.sink PORT MILLISECONDS

The delay is that of a line: commands that come together (PIPELINING) are answered together, as late as one alone.
smtp-sink, where it is installed, is faster without a delay, and has delays of whole seconds only.
"""

import asyncio
import sys


class Sink(asyncio.Protocol):
    delay = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._line, self._rest, self._in_text = transport, b"", False
        self._line.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._rest += data
        replies = b""
        while self._rest:
            if self._in_text:
                _, dot, rest = self._rest.partition(b"\r\n.\r\n")
                if not dot:
                    # What may be the beginning of the final dot is kept.
                    self._rest = self._rest[-4:]
                    break
                self._rest, self._in_text = rest, False
                replies += b"250 2.0.0 Ok\r\n"
                continue
            command, end, rest = self._rest.partition(b"\r\n")
            if not end:
                break
            self._rest = rest
            replies += self._reply(command[:4].upper())
            if self._in_text:
                self._rest = b"\r\n" + self._rest
        if replies:
            asyncio.get_running_loop().call_later(self.delay, self._line.write, replies)

    def _reply(self, command: bytes) -> bytes:
        if command == b"EHLO":
            return b"250-sink\r\n250-PIPELINING\r\n250 SIZE 20000000\r\n"
        if command == b"DATA":
            self._in_text = True
            return b"354 go ahead\r\n"
        return b"221 bye\r\n" if command == b"QUIT" else b"250 2.0.0 Ok\r\n"


async def serve(port: int, milliseconds: float) -> None:
    Sink.delay = milliseconds / 1000
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port, backlog=200)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
