"""`flask billing`: the orders that wait for an operator, and whether our records and the provider's say the same."""

import click

from commands.output import echo_table
from domain.lifecycle import OrderKind
from models import BillingOrder, Member, db, for_writing
from services import billing_desk, billing_provider, provider_news, reconciling
from services.installation import installed, wake


@click.group("billing")
def group() -> None:
    """Orders that the payment provider refused, and trying them again."""


@group.command("list")
def list_() -> None:
    """Each failed order: whom it concerns, what was asked, and what the provider said.

    Also the subscriptions of which it has sent word, and could not say what holds.
    """
    failed = billing_desk.failed_orders(db.session())
    if not failed:
        click.echo("no order has failed")
    else:
        _list_orders(failed)
    news = provider_news.unread(db.session())
    if news:
        again = {one.billing_ref: one.looked < one.heard for one in news}
        echo_table(
            ("REFERENCE", "ASKED AGAIN", "WHY NOT READ"),
            ((one.billing_ref, "yes" if again[one.billing_ref] else "no", one.error or "") for one in news),
        )
        click.echo("Mend the cause; `flask billing reconcile` has what is given up asked about again.")


def _list_orders(failed: list[tuple[BillingOrder, Member]]) -> None:
    rows = ((str(order.id), order.kind, member.external_id or "–", order.error or "") for order, member in failed)
    echo_table(("ORDER", "KIND", "MEMBER", "WHY"), rows)
    for kind in dict.fromkeys(order.kind for order, _ in failed):
        click.echo(f"{kind}: {billing_desk.WHAT_TO_DO[OrderKind(kind)]}")
    click.echo("Mend the cause, then `flask billing retry ORDER`; or do it by hand, then `flask billing done ORDER`.")


@group.command("retry")
@click.argument("order", type=int)
def retry(order: int) -> None:
    """Queue a failed order again, as a new request to the provider."""
    for_writing(db.session())
    billing_desk.retry(db.session(), order, installed().clock.now())
    db.session.commit()
    wake()
    click.echo(f"queued order {order}; `flask jobs run settle-billing` carries it out at once")


@group.command("done")
@click.argument("order", type=int)
@click.option("--reference", required=True, metavar="TEXT", help="Where it can be seen, such as the refund's number.")
def done(order: int, reference: str) -> None:
    """Say that a failed order was carried out at the provider by hand."""
    for_writing(db.session())
    billing_desk.mark_done(db.session(), order, reference, installed().clock.now())
    db.session.commit()
    wake()
    click.echo(f"order {order} is done: {reference}")


@group.command("resume")
def resume() -> None:
    """Send orders to BILLING_URL again, after it had said that it takes no more (410)."""
    for_writing(db.session())
    closed = billing_provider.reopen(db.session(), installed().settings)
    db.session.commit()
    wake()
    click.echo("orders are sent again" if closed else "nothing was in the way")


@group.command("forget-mode")
def forget_mode() -> None:
    """Let the next use of Stripe decide anew whether this installation is of its test or of its live mode."""
    for_writing(db.session())
    known = billing_provider.forget_mode(db.session(), installed().settings)
    db.session.commit()
    click.echo("the next use decides" if known else "nothing was on record")


@group.command("reconcile")
@click.option("--fix", is_flag=True, help="Repair what cannot be meant otherwise: stop charges, take over facts.")
def reconcile(fix: bool) -> None:
    """Compare every active, ending and ended member with the provider, and list every difference.

    Ends with 1 where a difference is left.
    """
    here = installed()
    for_writing(db.session())
    billing_provider.hold_to_mode(db.session(), here.settings, here.clock.now())
    again = provider_news.ask_again(db.session(), here.clock.now())
    db.session.commit()
    if again:
        wake()
    found = list(
        reconciling.reconcile(db.session(), here.settings, here.billing, here.clock.now(), db.session.commit, fix=fix)
    )
    if not found:
        click.echo("no difference")
        return
    echo_table(
        ("DIFFERENCE", "MEMBER", "REFERENCE", "", "WHAT"),
        (
            (
                one.kind,
                one.external_id or "–",
                one.billing_ref,
                "repaired" if one.repaired else "",
                "; ".join(filter(None, (reconciling.MEANS[one.kind], one.detail))),
            )
            for one in found
        ),
    )
    left = sum(not one.repaired for one in found)
    if len(found) > left:
        wake()
    click.echo(f"{len(found)} differences, {len(found) - left} repaired")
    if left:
        if not fix and any(one.kind in reconciling.CAN_BE_REPAIRED for one in found):
            click.echo("`flask billing reconcile --fix` repairs what cannot be meant otherwise.")
        raise click.exceptions.Exit(1)
