"""What this process was put together from: its settings and its ports. app.py makes it, everybody else asks for it."""

from collections.abc import Callable
from dataclasses import dataclass

from flask import current_app

from domain.ports import Billing, Clock, Dns, Mailbox, Mailer, WebhookSender
from settings import Settings


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports to use instead of the real ones, as tests do; None leaves the real one."""

    clock: Clock | None = None
    mailer: Mailer | None = None
    billing: Billing | None = None
    webhooks: WebhookSender | None = None
    mailbox: Mailbox | None = None
    dns: Dns | None = None


@dataclass(frozen=True, slots=True)
class Installation:
    settings: Settings
    clock: Clock
    mailer: Mailer
    billing: Billing
    webhooks: WebhookSender
    dns: Dns
    mailbox: Mailbox | None = None
    """Where bounces come to; None where none is configured."""


def installed() -> Installation:
    """The installation of the present application context."""
    installation: Installation = current_app.extensions["dormouse"]
    return installation


def wake() -> None:
    """Have what was just committed carried out at once instead of with the next tick.

    Whoever runs the queue jobs in this process puts a callable into ``extensions["dormouse_wake"]``; it returns at
    once. Where none runs here, the tick of another process finds the work.
    """
    woken: Callable[[], None] | None = current_app.extensions.get("dormouse_wake")
    if woken is not None:
        woken()
