"""Persistence: typed SQLAlchemy models, one family of tables a file."""

from models.api_key import ApiKey
from models.base import Base, change, db, for_writing, for_writing_if_free, glancing, insert, to_disk
from models.billing import (
    BillingNews,
    BillingOrder,
    BillingPace,
    BillingProvider,
    ImportCursor,
    LocalCall,
    LocalCharge,
    LocalSubscription,
)
from models.campaign import Campaign, Case
from models.event import Event
from models.library import ListItem, Profile, SavedList
from models.magic_link import MagicLink
from models.member import Member
from models.message import MailPace, Message
from models.outgoing import EventEndpoint, OutgoingEvent
from models.running import ClockJump, Erasure, JobRun, Operator, UsedAssertion, UseFeed
from models.sign_in import SignIn

__all__ = [
    "ApiKey",
    "Base",
    "BillingNews",
    "BillingOrder",
    "BillingPace",
    "BillingProvider",
    "Campaign",
    "Case",
    "ClockJump",
    "Erasure",
    "Event",
    "EventEndpoint",
    "ImportCursor",
    "JobRun",
    "ListItem",
    "LocalCall",
    "LocalCharge",
    "LocalSubscription",
    "MagicLink",
    "MailPace",
    "Member",
    "Message",
    "Operator",
    "OutgoingEvent",
    "Profile",
    "SavedList",
    "SignIn",
    "UseFeed",
    "UsedAssertion",
    "change",
    "db",
    "for_writing",
    "for_writing_if_free",
    "glancing",
    "insert",
    "to_disk",
]
