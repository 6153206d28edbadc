"""Ending a membership without signing in: one page with one button, and a confirmation to keep."""

from blueprints.ending.views import blueprint

__all__ = ["blueprint"]
