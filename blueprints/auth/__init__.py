"""Signing in by a link that is mailed, and out again."""

from blueprints.auth.service import from_service
from blueprints.auth.session import login_manager, sign_in_as
from blueprints.auth.views import blueprint

__all__ = ["blueprint", "from_service", "login_manager", "sign_in_as"]
