"""Wiring: settings, extensions, ports, pages and commands are put together here, and nothing else happens here."""

from time import sleep

from flask import Flask
from flask_babel import Babel
from flask_migrate import Migrate
from flask_wtf import CSRFProtect

import blueprints.account
import blueprints.api
import blueprints.auth
import blueprints.banner
import blueprints.checkin
import blueprints.comeback
import blueprints.embedding
import blueprints.ending
import blueprints.errors
import blueprints.evidence
import blueprints.headers
import blueprints.health
import blueprints.hooks
import blueprints.language
import blueprints.look
import blueprints.masking
import blueprints.programme
import blueprints.tolerance
import commands
from adapters.billing.local import LocalBilling
from adapters.billing.webhook import WebhookBilling
from adapters.clock import ShiftedClock, SystemClock
from adapters.dns import SystemDns
from adapters.mail.imap import ImapMailbox
from adapters.mail.smtp import SmtpMailer
from adapters.webhooks.http import HttpSender
from domain.ports import Billing, WebhookSender
from jobs import scheduler
from models import db
from models.base import tune
from services.installation import Installation, Ports
from settings import ROOT, Settings, SettingsError, load

PAGES = (
    blueprints.auth,
    blueprints.account,
    blueprints.checkin,
    blueprints.comeback,
    blueprints.ending,
    blueprints.evidence,
    blueprints.programme,
    blueprints.look,
    blueprints.health,
    blueprints.hooks,
    blueprints.api,
    blueprints.embedding,
)


def create_app(settings: Settings | None = None, ports: Ports | None = None) -> Flask:
    """The application. Without arguments it reads the environment, as ``flask`` and a WSGI server call it.

    ``ports`` replaces some or all of the outside world: what it leaves None is the real thing.
    """
    if settings is None:
        try:
            settings = load()
        except SettingsError as error:
            return commands.unconfigured(error)
    app = Flask(__name__, instance_path=str(settings.instance_path.resolve()))
    app.config.from_mapping(settings.flask_config())
    # What a failed statement was given may be an address or a name: errors, and so logs, tell the statement only.
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"hide_parameters": True}
    if not settings.database_url.startswith("sqlite"):
        # The connection that was used last has most prepared, and at hand what it knows of the tables.
        app.config["SQLALCHEMY_ENGINE_OPTIONS"] |= {"pool_pre_ping": True, "pool_use_lifo": True}
    db.init_app(app)
    Migrate(app, db, directory=str(ROOT / "migrations"))
    Babel(
        app,
        locale_selector=blueprints.language.choose,
        default_translation_directories=";".join(settings.translation_folders),
    )
    app.session_interface = blueprints.headers.SessionsOfPages()
    csrf = CSRFProtect(app)
    blueprints.auth.login_manager.init_app(app)
    with app.app_context():
        tune(db.engine)

    given = ports or Ports()
    sender = given.webhooks or HttpSender(settings.networks)
    with app.app_context():
        app.extensions["dormouse"] = Installation(
            settings,
            clock=given.clock
            or (ShiftedClock(settings.instance_path / "demo-clock") if settings.demo else SystemClock()),
            mailer=given.mailer or SmtpMailer(app),
            billing=given.billing or _billing(settings, sender),
            webhooks=sender,
            dns=given.dns or SystemDns(),
            mailbox=given.mailbox or (_mailbox(settings) if settings.bounce_imap_server else None),
        )

    for page in PAGES:
        app.register_blueprint(page.blueprint)
    # Signed by whoever calls, or with a key of theirs; there is no browser whose session could be abused.
    csrf.exempt(blueprints.hooks.blueprint)
    csrf.exempt(blueprints.api.blueprint)
    # Its Origin is looked at, and the assertion is a secret of the service.
    csrf.exempt(blueprints.auth.from_service)
    if settings.demo:
        from blueprints import demo
        from jobs import travelling

        app.register_blueprint(demo.blueprint)
        travelling.init_app(app)
    for part in (
        blueprints.banner,
        blueprints.embedding,
        blueprints.errors,
        blueprints.headers,
        blueprints.language,
        blueprints.look,
        blueprints.masking,
        blueprints.tolerance,
    ):
        part.init_app(app)
    commands.init_app(app)
    scheduler.start_where_pages_are_served(app)
    return app


def _mailbox(settings: Settings) -> ImapMailbox:
    return ImapMailbox(
        settings.bounce_imap_server,
        settings.bounce_imap_port,
        settings.bounce_imap_username,
        settings.bounce_imap_password,
        starttls=settings.bounce_imap_starttls,
        folder=settings.bounce_imap_folder,
        aside=settings.bounce_imap_aside,
    )


def _billing(settings: Settings, sender: WebhookSender) -> Billing:
    """The provider that BILLING names."""
    if settings.billing == "stripe":
        # Its SDK takes twenty megabytes that whoever bills otherwise need not hold.
        from adapters.billing.stripe.client import StripeBilling

        return StripeBilling(
            settings.stripe_key,
            live=settings.stripe_live,
            webhook_secrets=settings.stripe_webhook_secret,
            come_back_at=f"{settings.public_url.rstrip('/')}/account",
            base=settings.stripe_api,
            pause=sleep,
        )
    if settings.billing == "webhook":
        return WebhookBilling(sender, settings.billing_url or "", settings.billing_secret)
    return LocalBilling(db.engine, settings.zone)
