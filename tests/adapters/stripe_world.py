"""A Stripe to test against: localstripe, a real server, and in front of it a proxy for what it does not do.

The proxy remembers idempotency keys, knows prices, payments of invoices, Checkout and releasing schedules, lays over an
object what localstripe cannot make of it (a trial, a pause, a schedule, further items), and can be unkind: too many
requests, outages, lines that break before or after the effect.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import stripe

from adapters.billing.stripe.client import StripeBilling
from tests.faults.harness import eventually
from tests.ports import held_port

WEBHOOK_SECRET = "whsec_for_these_tests_only"
KEY = "sk_test_for_these_tests_only"
GOOD_CARD, DECLINED_CARD = "4242424242424242", "4000000000000341"
BREAKS = "breaks"
BREAKS_AFTER = "breaks after the effect"

Fault = int | str


class StripeProxy(ThreadingHTTPServer):
    """``faults`` is asked of each call, in order: a status to answer with, BREAKS, BREAKS_AFTER, or None to be kind."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, behind: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind
        self.lock = Lock()
        self.forget()

    def begin(self) -> None:
        """As new, and so is the server behind."""
        self.forget()
        _call(self.behind, "DELETE", "/_config/data")

    def forget(self) -> None:
        self.answered: dict[str, tuple[str, int, bytes]] = {}
        self.overlays: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        self.faults: Callable[[str, str], Fault | None] = lambda method, path: None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def writes(self, part: str = "") -> list[tuple[str, str]]:
        return [call for call in self.calls if call[0] != "GET" and part in call[1]]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A line that breaks is what the tests ask for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StripeProxy

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        path = urlsplit(self.path).path
        with self.server.lock:
            self.server.calls.append((self.command, path))
            fault = self.server.faults(self.command, path)
        if fault == BREAKS:
            return self._hang_up()
        if isinstance(fault, int):
            kind = "rate_limit_error" if fault == 429 else "api_error"
            return self._say(fault, json.dumps({"error": {"type": kind, "message": f"as told: {fault}"}}).encode())
        status, answer = self._once(path, body)
        if fault == BREAKS_AFTER:
            return self._hang_up()
        return self._say(status, answer)

    do_GET = do_POST = do_DELETE = _any

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _say(self, status: int, answer: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        if status >= 500 or status == 429:
            self.send_header("Stripe-Should-Retry", "false")
        self.end_headers()
        self.wfile.write(answer)

    def _once(self, path: str, body: str) -> tuple[int, bytes]:
        """Under one key the same request gets the same answer; another request is refused."""
        key = self.headers.get("Idempotency-Key")
        if self.command != "POST" or key is None:
            return self._forward(path, body)
        request = f"{path}?{body}"
        with self.server.lock:
            known = self.server.answered.get(key)
            if known is None:
                status, answer = self._forward(path, body)
                if status < 500:
                    self.server.answered[key] = (request, status, answer)
                return status, answer
        if known[0] != request:
            said = {"error": {"type": "idempotency_error", "message": "the key was used with other parameters"}}
            return 400, json.dumps(said).encode()
        return known[1:]

    def _forward(self, path: str, body: str) -> tuple[int, bytes]:
        if path.endswith("/release"):
            for overlay in self.server.overlays.values():
                overlay.pop("schedule", None)
            return 200, json.dumps({"id": path.split("/")[-2], "object": "subscription_schedule"}).encode()
        if path == "/v1/checkout/sessions":
            session = {"id": "cs_1", "object": "checkout.session", "url": "https://checkout.example.org/cs_1"}
            return 200, json.dumps(session).encode()
        query = _translated(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        data = _translated(parse_qsl(body, keep_blank_values=True))
        line = HTTPConnection("127.0.0.1", self.server.behind, timeout=60)
        headers = {"Authorization": self.headers["Authorization"], "Content-Type": "application/x-www-form-urlencoded"}
        target = f"{path}?{urlencode(query)}" if query and self.command == "GET" else path
        line.request(self.command, target, urlencode(data) if self.command == "POST" else None, headers)
        response = line.getresponse()
        answer = response.read()
        line.close()
        if response.status == 200 and dict(data).get("payment_behavior") == "error_if_incomplete":
            made = json.loads(answer)
            if made["status"] == "incomplete":
                _call(self.server.behind, "DELETE", f"/v1/subscriptions/{made['id']}")
                said = {"type": "card_error", "code": "card_declined", "message": "Your card was declined."}
                return 402, json.dumps({"error": said}).encode()
        if response.status == 200:
            answer = json.dumps(self._overlaid(json.loads(answer))).encode()
        return response.status, answer

    def _overlaid(self, found: Any) -> Any:
        if isinstance(found, dict):
            if found.get("object") == "invoice" and found.get("payment_intent"):
                payment = {"type": "payment_intent", "payment_intent": found["payment_intent"]}
                found["payments"] = {"object": "list", "data": [{"status": "paid", "payment": payment}]}
            found = {name: self._overlaid(value) for name, value in found.items()}
            found |= self.server.overlays.get(str(found.get("id")), {})
        elif isinstance(found, list):
            found = [self._overlaid(one) for one in found]
        return found


def _translated(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """localstripe has plans where Stripe has prices, and refuses what it does not know."""
    known = [
        (name.replace("[price]", "[plan]"), value)
        for name, value in pairs
        if name != "off_session" and not value.endswith(".payments")
    ]
    renumbered = []
    expanded = 0
    for name, value in known:
        if name.startswith("expand["):
            renumbered.append((f"expand[{expanded}]", value))
            expanded += 1
        elif (name, value) != ("status", "paid"):
            renumbered.append((name, value))
    return renumbered


@contextmanager
def running_stripe(folder: Path) -> Iterator[StripeProxy]:
    with held_port() as port, (folder / "localstripe.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "localstripe", "--port", str(port), "--from-scratch"],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={"TMPDIR": str(folder), "PATH": ""},
        )
        proxy = StripeProxy(port)
        Thread(target=proxy.serve_forever, daemon=True).start()
        try:
            eventually(lambda: _answers(port))
            yield proxy
        finally:
            proxy.shutdown()
            proxy.server_close()
            server.terminate()
            server.wait()


def _answers(port: int) -> bool:
    try:
        return _call(port, "GET", "/v1/plans") == 200
    except OSError:
        return False


def _call(port: int, method: str, path: str) -> int:
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as line:
        line.request(method, path, headers={"Authorization": f"Bearer {KEY}"})
        response = line.getresponse()
        response.read()
        return response.status


class StripeWorld:
    def __init__(self, proxy: StripeProxy) -> None:
        self.proxy = proxy
        self.pauses: list[float] = []
        self.billing = self.connected()
        self.api = stripe.StripeClient(
            KEY, base_addresses={"api": proxy.address}, http_client=stripe.RequestsClient(timeout=60)
        ).v1
        self.now = datetime.now(UTC)

    def connected(self, **changes: Any) -> StripeBilling:
        options: dict[str, Any] = {
            "live": False,
            "base": self.proxy.address,
            "come_back_at": "https://members.example.org/account",
            "webhook_secrets": [WEBHOOK_SECRET],
            "pause": self.pauses.append,
            **changes,
        }
        return StripeBilling(KEY, **options)

    def customer(self, card: str = GOOD_CARD, **facts: Any) -> str:
        made = self.api.customers.create({"email": "mia@example.org", "name": "Mia", **facts})
        self.use_card(made.id, card)
        return made.id

    def use_card(self, customer: str, card: str) -> None:
        method = self.api.payment_methods.create(
            {"type": "card", "card": {"number": card, "exp_month": 12, "exp_year": 2040, "cvc": "123"}}
        )
        self.api.payment_methods.attach(method.id, {"customer": customer})
        self.api.customers.update(customer, {"invoice_settings": {"default_payment_method": method.id}})

    def plan(self, price_minor: int, currency: str, interval: str) -> str:
        made = self.api.plans.create(
            {
                "amount": price_minor,
                "currency": currency.lower(),
                "interval": interval,  # type: ignore[typeddict-item]
                "nickname": "Standard",
                "product": {"name": "Standard"},
            }
        )
        return made.id

    def subscribe(
        self, *, price_minor: int = 1299, currency: str = "EUR", interval: str = "month", customer: str | None = None
    ) -> str:
        plan = self.plan(price_minor, currency, interval)
        params: Any = {"customer": customer or self.customer(), "items": [{"price": plan}]}
        return self.api.subscriptions.create(params).id

    def overlay(self, which: str, **facts: Any) -> None:
        """Have Stripe say this of an object, too."""
        self.proxy.overlays.setdefault(which, {}).update(facts)

    def customer_of(self, ref: str) -> str:
        return str(self.api.subscriptions.retrieve(ref).customer)


def event(kind: str, about: dict[str, Any], at: datetime, **facts: Any) -> tuple[bytes, dict[str, str]]:
    """A webhook as Stripe sends it: the body and its signature."""
    said = {"id": "evt_1", "object": "event", "type": kind, "livemode": False, "data": {"object": about}, **facts}
    body = json.dumps(said)
    header = stripe.WebhookSignature.generate_signature_header(body, WEBHOOK_SECRET, int(at.timestamp()))
    return body.encode(), {"Stripe-Signature": header}
