from flask import Flask


def choose() -> str | None:
    return None


def init_app(app: Flask) -> None:
    pass
