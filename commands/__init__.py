"""The flask commands. Each module is imported only when its command is used: `flask db upgrade` needs none of them."""

import sys
from importlib import import_module

import click
from flask import Flask, current_app
from flask.cli import AppGroup, FlaskGroup

from commands.failures import as_one_line
from settings import SettingsError

COMMANDS = {
    "members": "commands.members:group",
    "activity": "commands.activity:group",
    "library": "commands.library:group",
    "campaign": "commands.campaign:group",
    "billing": "commands.billing:group",
    "events": "commands.events:group",
    "evidence": "commands.evidence:group",
    "jobs": "commands.jobs:group",
    "mail": "commands.mail:group",
    "scheduler": "commands.scheduler:command",
    "operator": "commands.operator:group",
    "api-key": "commands.api_key:group",
    "backup": "commands.backup:backup",
    "restore": "commands.backup:restore",
    "doctor": "commands.doctor:command",
    "demo": "commands.demo:command",
}

KEYLESS = "dormouse.keyless"
"""In the root context's ``meta``: settings that lack nothing but SECRET_KEY, for a command that does not need it."""

CANNOT_START = 3
"""The exit code by which a worker tells gunicorn that starting it again will not help."""


def init_app(app: Flask) -> None:
    """Offer the commands, and let whichever command is running report its failures in one line."""
    app.cli = LazyCommands(app, COMMANDS)
    context = click.get_current_context(silent=True)
    if context is not None:
        _report_in_one_line(app, context)


def unconfigured(error: SettingsError) -> Flask:
    """What there is when the settings cannot be used: `flask doctor`, and one clear line for everything else."""
    context = click.get_current_context(silent=True)
    if context is None:
        click.echo(f"Error: {error}", err=True)
        sys.exit(CANNOT_START)
    if not isinstance(context.command, FlaskGroup):
        raise click.ClickException(str(error))
    # The group asks for the application before it looks at the name of the command.
    app = Flask("unconfigured")
    app.cli = LazyCommands(app, COMMANDS, error)
    return app


class LazyCommands(AppGroup):
    """A group that knows its commands by name and imports the one that is asked for, with an application context."""

    def __init__(self, app: Flask, modules: dict[str, str], error: SettingsError | None = None) -> None:
        super().__init__(app.name, commands=app.cli.commands)
        self._app = app
        self._modules = modules
        self._error = error

    def list_commands(self, context: click.Context) -> list[str]:
        if self._error is not None:
            click.echo(f"Error: {self._error}\n", err=True)
            return ["doctor"]
        return sorted({*super().list_commands(context), *self._modules})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if self._error is not None and self._error.keyless is not None and name == "demo":
            # It has a key of its own, and something else to say about a database that is configured.
            context.find_root().meta[KEYLESS] = self._error.keyless
        elif self._error is not None and name != "doctor":
            raise click.ClickException(str(self._error))
        command = super().get_command(context, name)
        if command is None and name in self._modules:
            module, attribute = self._modules[name].split(":")
            command = getattr(import_module(module), attribute)
        if not current_app:
            context.with_resource(self._app.app_context())
        _report_in_one_line(self._app, context)
        return command


def _report_in_one_line(app: Flask, context: click.Context) -> None:
    root = context.find_root()
    if not root.meta.setdefault("dormouse.reports", False):
        root.meta["dormouse.reports"] = True
        root.with_resource(as_one_line(app))
