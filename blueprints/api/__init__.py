"""The API under /api/v1, for the service that Dormouse stands beside. docs/integration.md is its manual.

Whoever calls is known by a key in the Authorization header and by nothing else: no session is looked at, and none is
begun. What comes in goes the very way of a file (services/files), what goes out is what pages and commands show.
"""

from blueprints.api import activity, billing, document, events, library, members, notice
from blueprints.api.operations import blueprint, publish

publish(
    members.OPERATIONS,
    activity.OPERATIONS,
    library.OPERATIONS,
    notice.OPERATIONS,
    events.OPERATIONS,
    billing.OPERATIONS,
)
blueprint.add_url_rule("/openapi.json", "document", document.as_json)
blueprint.add_url_rule("", "show", document.as_page)

__all__ = ["blueprint"]
