"""What gunicorn serves for benchmarks/pages.py: our application, and a bare Flask page with one query."""

import os
from pathlib import Path
from threading import local
from typing import Any

from flask import Flask, render_template_string

from benchmarks.databases import Database

PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Your membership</title></head>
<body>
<h1>Your membership</h1>
<dl>{% for name, value in facts %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
</body>
</html>
"""


def database() -> Database:
    return Database(os.environ["BENCH_DATABASE"], Path(os.environ["BENCH_FOLDER"]))


def ours() -> Flask:
    return database().app()


def bare() -> Flask:
    return bare_page(database())


def bare_page(served: Database) -> Flask:
    """One row by its primary key over the bare driver, and a small template: the least a page can be."""
    app, of_thread = Flask(__name__), local()
    mark = "?" if served.dialect == "sqlite" else "%s"
    query = f"SELECT external_id, email, name, plan, joined_at, last_used_at FROM member WHERE id = {mark}"

    def connection() -> Any:
        if not hasattr(of_thread, "connection"):
            of_thread.connection = served.connect()
        return of_thread.connection

    @app.get("/member/<int:member_id>")
    def member(member_id: int) -> str:
        row = connection().execute(query, (member_id,)).fetchone()
        names = ("number", "address", "name", "plan", "since", "last used")
        return render_template_string(PAGE, facts=list(zip(names, row, strict=True)))

    return app
