"""What a key of the API may do (docs/integration.md)."""

from enum import StrEnum


class Scope(StrEnum):
    MEMBERS_READ = "members:read"
    MEMBERS_WRITE = "members:write"
    ACTIVITY_WRITE = "activity:write"
    LIBRARY_READ = "library:read"
    LIBRARY_WRITE = "library:write"
    NOTICE_READ = "notice:read"
    BILLING_WRITE = "billing:write"
