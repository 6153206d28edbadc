"""Proof of an end: for the member, to read, print and take along; for everybody, the key that it is signed with."""

from blueprints.evidence.views import blueprint

__all__ = ["blueprint"]
