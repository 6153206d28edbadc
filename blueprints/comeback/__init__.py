"""The page on which a member comes back: what is waiting, what it costs, and one button that orders.

Looking changes nothing and uses no link up. What is ordered is what the page quoted: the form carries it, and where it
no longer holds the page comes anew and nothing is ordered.
"""

from blueprints.comeback.views import blueprint

__all__ = ["blueprint"]
