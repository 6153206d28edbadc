"""Everything on record of a member, to take along: as JSON for machines, and as one page for people."""

import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from flask import Response, render_template
from flask_babel import lazy_gettext

LABELS = {
    "external_id": lazy_gettext("Customer number"),
    "email": lazy_gettext("E-mail address"),
    "name": lazy_gettext("Name"),
    "locale": lazy_gettext("Language"),
    "status": lazy_gettext("State"),
    "plan": lazy_gettext("Plan"),
    "price_minor": lazy_gettext("Price in the smallest unit of the currency"),
    "currency": lazy_gettext("Currency"),
    "billing_interval": lazy_gettext("Billed every"),
    "subscription_status": lazy_gettext("Subscription"),
    "paid_through": lazy_gettext("Paid through"),
    "joined_at": lazy_gettext("Member since"),
    "last_used_at": lazy_gettext("Last used"),
    "last_sign_of_life_at": lazy_gettext("We last heard from you"),
    "lapsed_at": lazy_gettext("Ended"),
    "keep_until": lazy_gettext("Saved until"),
    "exempt_reason": lazy_gettext("Why we do not ask you"),
    "reason": lazy_gettext("Reason"),
    "case": lazy_gettext("Our question"),
    "messages": lazy_gettext("Our mails to you"),
    "billing_orders": lazy_gettext("What we told the payment provider"),
    "events": lazy_gettext("What happened so far"),
    "library": lazy_gettext("Your profiles and lists"),
    "profiles": lazy_gettext("Profiles"),
    "settings": lazy_gettext("Settings"),
    "lists": lazy_gettext("Lists"),
    "items": lazy_gettext("Titles"),
    "title": lazy_gettext("Title"),
    "added_at": lazy_gettext("Added"),
}


def zipped(evidence: Mapping[str, Any]) -> Response:
    """The download: ``membership.json`` and ``membership.html``."""
    content = BytesIO()
    with ZipFile(content, "w", ZIP_DEFLATED) as archive:
        # With a fixed date the same facts give the same file.
        for name, text in (
            ("membership.json", json.dumps(evidence, ensure_ascii=False, indent=2, default=str)),
            ("membership.html", render_template("account/data.html", evidence=evidence, labels=LABELS)),
        ):
            archive.writestr(ZipInfo(name), text, compress_type=ZIP_DEFLATED)
    response = Response(content.getvalue(), mimetype="application/zip")
    response.headers["Content-Disposition"] = 'attachment; filename="membership.zip"'
    return response
