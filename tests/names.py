"""A real name server on a free port of this machine, which knows what a test tells it."""

import socket
import threading
from collections.abc import Mapping, Sequence

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from adapters.dns import SystemDns

Zone = Mapping[str, Mapping[str, Sequence[str]]]
"""``{"lumio.example": {"TXT": ['"v=spf1 -all"'], "MX": ["10 mx.lumio.example."]}}``"""


class NameServer:
    def __init__(self, zone: Zone, *, broken: bool = False, shut_in: bool = False) -> None:
        self.zone = zone if shut_in else {".": {"NS": ["a.root.example."]}, **zone}
        self._broken = broken
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def __enter__(self) -> SystemDns:
        """What asks this server."""
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return SystemDns(["127.0.0.1"], self._socket.getsockname()[1], lifetime=60)

    def __exit__(self, *exc: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, asker = self._socket.recvfrom(4096)
            if not question:
                return
            self._socket.sendto(self._answer(dns.message.from_wire(question)).to_wire(), asker)

    def _answer(self, question: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.RA
        if self._broken:
            answer.set_rcode(dns.rcode.SERVFAIL)
            return answer
        [asked] = question.question
        known = self.zone.get(asked.name.to_text(omit_final_dot=True).lower())
        if known is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
            return answer
        kind = dns.rdatatype.to_text(asked.rdtype)
        if kind in known:
            answer.answer.append(dns.rrset.from_text_list(asked.name, 300, "IN", kind, known[kind]))
        return answer
