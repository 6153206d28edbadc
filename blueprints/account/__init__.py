"""The signed-in pages: the membership, its data, its end by the member's own wish."""

from blueprints.account import changes
from blueprints.account.views import blueprint

__all__ = ["blueprint", "changes"]
