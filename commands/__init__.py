"""The flask commands."""

from flask import Flask

from settings import SettingsError


def init_app(app: Flask) -> None:
    pass


def unconfigured(error: SettingsError) -> Flask:
    raise error
