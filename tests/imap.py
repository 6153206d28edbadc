"""A real IMAP server on a free port of this machine (pymap, in memory), and a mail program to look into it."""

import asyncio
import imaplib
import ssl
import threading
from argparse import Namespace
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from proxyprotocol.noop import ProxyProtocolNoop
from proxyprotocol.reader import ProxyProtocolReader
from pymap.backend.dict import Config, DictBackend, Login
from pymap.imap import IMAPServer
from pysasl.hashing import BuiltinHash

from adapters.mail.imap import ImapMailbox

CERTIFICATE = Path(__file__).parent / "adapters" / "self-signed.pem"
USER, PASSWORD = "bounces@lumio.example", "Pässword with spaces"
ARGUMENTS = {
    "host": ["127.0.0.1"], "port": "0", "debug": False, "tls": True, "passlib_cfg": None, "proxy_protocol": None,
    "inherited_sockets": None, "demo_data": False, "demo_user": USER, "demo_password": PASSWORD,
}  # fmt: skip


class Less(Config):
    """A server that does not say that it can do everything."""

    lacking: tuple[bytes, ...] = ()

    @property
    def login_capability(self) -> list[bytes]:
        return [each for each in super().login_capability if each not in self.lacking]


class ImapServer:
    """A mailbox with an empty INBOX, on a server without the extensions that it is ``lacking``."""

    host = "127.0.0.1"

    def __init__(self, *, starttls: bool = False, lacking: tuple[bytes, ...] = ()) -> None:
        self.starttls = starttls
        self._lacking = lacking
        self._lines: list[asyncio.StreamWriter] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._run(self._serve())

    def stop(self) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def mailbox(self, **changes: Any) -> ImapMailbox:
        options = {
            "folder": "INBOX",
            "aside": "Aside",
            "starttls": self.starttls,
            "tls": ssl.create_default_context(cafile=CERTIFICATE),
            "timeout": 60,
        }
        where = [changes.pop(name, value) for name, value in
                 {"host": self.host, "port": self.port, "username": USER, "password": PASSWORD}.items()]  # fmt: skip
        return ImapMailbox(*where, **{**options, **changes})

    def program(self) -> imaplib.IMAP4:
        """A mail program that is signed in."""
        if self.starttls:
            program = imaplib.IMAP4(self.host, self.port)
            program.starttls(ssl.create_default_context(cafile=CERTIFICATE))
        else:
            program = imaplib.IMAP4_SSL(
                self.host, self.port, ssl_context=ssl.create_default_context(cafile=CERTIFICATE)
            )
        program.authenticate("PLAIN", lambda _: f"\0{USER}\0{PASSWORD}".encode())
        return program

    def put(self, *mails: bytes) -> None:
        with self.program() as program:
            for mail in mails:
                status, said = program.append("INBOX", "", "", mail.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
                assert status == "OK", said

    def empty(self, folder: str) -> None:
        with self.program() as program:
            if program.select(folder)[0] == "OK":
                program.store("1:*", "+FLAGS", r"(\Deleted)")
                program.expunge()

    def subjects(self, folder: str = "INBOX", criterion: str = "UNDELETED") -> list[str]:
        """What lies in a folder, by subject."""
        with self.program() as program:
            status, _ = program.select(f'"{folder}"', readonly=True)
            if status != "OK":
                return []
            _, found = program.uid("SEARCH", criterion)
            subjects = []
            for uid in found[0].split():
                _, parts = program.uid("FETCH", uid, "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
                subjects.append(parts[0][1].decode().strip().removeprefix("Subject: "))
            return subjects

    def hang_up(self) -> None:
        """Cut the line of everybody who is connected; what lies in the mailbox stays."""
        self._run(self._hang_up())

    async def _serve(self) -> None:
        args = Namespace(**ARGUMENTS, cert=str(CERTIFICATE), key=str(CERTIFICATE))
        config = Less.from_args(args, hash_context=BuiltinHash(rounds=1), invalid_user_sleep=0)
        config.lacking = self._lacking
        config.apply_context()
        login = Login(config)
        await DictBackend._add_demo_user(config, login)
        served = ProxyProtocolReader(ProxyProtocolNoop()).get_callback(IMAPServer(login, config))
        tls = None if self.starttls else ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if tls is not None:
            tls.load_cert_chain(CERTIFICATE)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._lines.append(writer)
            await served(reader, writer)

        self._server = await asyncio.start_server(serve, self.host, 0, ssl=tls)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _hang_up(self) -> None:
        for line in self._lines:
            line.transport.abort()
        self._lines.clear()

    async def _end(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(120)
