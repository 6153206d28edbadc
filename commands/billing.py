"""`flask billing`: the orders to the payment provider that wait for an operator."""

import click

from commands.output import echo_table
from domain.lifecycle import OrderKind
from models import db, for_writing
from services import billing
from services.installation import installed, wake


@click.group("billing")
def group() -> None:
    """Orders that the payment provider refused, and trying them again."""


@group.command("list")
def list_() -> None:
    """Each failed order: whom it concerns, what was asked, and what the provider said."""
    failed = billing.failed_orders(db.session())
    if not failed:
        click.echo("no order has failed")
        return
    rows = ((str(order.id), order.kind, member.external_id or "–", order.error or "") for order, member in failed)
    echo_table(("ORDER", "KIND", "MEMBER", "WHY"), rows)
    for kind in dict.fromkeys(order.kind for order, _ in failed):
        click.echo(f"{kind}: {billing.WHAT_TO_DO[OrderKind(kind)]}")
    click.echo("Mend the cause, then `flask billing retry ORDER`.")


@group.command("retry")
@click.argument("order", type=int)
def retry(order: int) -> None:
    """Queue a failed order again, as a new request to the provider."""
    for_writing(db.session())
    billing.retry(db.session(), order, installed().clock.now())
    db.session.commit()
    wake()
    click.echo(f"queued order {order}; `flask jobs run settle-billing` carries it out at once")
