"""What kind of device somebody signs in on, as far as it says itself: enough to know one's own from another's."""

from enum import StrEnum


class Device(StrEnum):
    IPHONE = "iphone"
    IPAD = "ipad"
    ANDROID_PHONE = "android_phone"
    ANDROID_TABLET = "android_tablet"
    WINDOWS = "windows"
    MAC = "mac"
    CHROMEBOOK = "chromebook"
    LINUX = "linux"
    OTHER = "other"


SAYS: tuple[tuple[tuple[str, ...], Device], ...] = (
    (("iphone", "ipod"), Device.IPHONE),
    (("ipad",), Device.IPAD),
    (("windows",), Device.WINDOWS),
    (("macintosh",), Device.MAC),
    (("cros",), Device.CHROMEBOOK),
    (("linux", "x11"), Device.LINUX),
)
"""The first that a User-Agent holds; Android also says Linux, and is looked at before."""


def device_of(user_agent: str | None) -> Device:
    said = (user_agent or "").lower()
    if "android" in said:
        return Device.ANDROID_PHONE if "mobile" in said else Device.ANDROID_TABLET
    return next((device for words, device in SAYS if any(word in said for word in words)), Device.OTHER)
