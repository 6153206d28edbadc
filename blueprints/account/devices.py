"""Where a member is signed in, in words."""

from dataclasses import dataclass
from datetime import datetime

from flask_babel import lazy_gettext

from domain.devices import Device

WORDS = {
    Device.IPHONE: lazy_gettext("iPhone"),
    Device.IPAD: lazy_gettext("iPad"),
    Device.ANDROID_PHONE: lazy_gettext("Android phone"),
    Device.ANDROID_TABLET: lazy_gettext("Android tablet"),
    Device.WINDOWS: lazy_gettext("Windows computer"),
    Device.MAC: lazy_gettext("Mac"),
    Device.CHROMEBOOK: lazy_gettext("Chromebook"),
    Device.LINUX: lazy_gettext("Linux computer"),
    Device.OTHER: lazy_gettext("Another device"),
}


@dataclass(frozen=True, slots=True)
class SignedIn:
    """``id`` is what ends it; ``here``: it is the device that is being looked from."""

    id: str
    words: str
    since: datetime
    here: bool


def in_words(device: str) -> str:
    return str(WORDS[Device(device)])
