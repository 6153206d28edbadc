"""A real SMTP server on this machine that keeps what it is sent, one file a mail, and passes nothing on."""

from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


class _AnyPort(Controller):
    """A controller on the port the system gives; the original would connect to port 0 to see whether it is up."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


class Catcher:
    """``with Catcher(folder) as catcher``: accepts every mail at ``catcher.port`` and writes it as ``000001.eml``."""

    host = "127.0.0.1"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._count = max((int(file.stem) for file in folder.glob("*.eml")), default=0)
        self._controller = _AnyPort(self, hostname=self.host, port=0)

    @property
    def port(self) -> int:
        return int(self._controller.port)

    def __enter__(self) -> "Catcher":
        self._controller.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._controller.stop()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        # Handlers run one after the other in the server's own loop, so counting needs no lock. The file gets its name
        # when it is whole: the mailbox page never shows half a mail.
        self._count += 1
        assert isinstance(envelope.content, bytes)
        draft = self._folder / f".{self._count:06}"
        to = ", ".join(envelope.rcpt_tos)
        draft.write_bytes(
            f"X-Envelope-From: {envelope.mail_from}\r\nX-Envelope-To: {to}\r\n".encode() + envelope.content
        )
        draft.replace(self._folder / f"{self._count:06}.eml")
        return "250 OK: kept"
