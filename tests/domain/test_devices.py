"""What kind of device a browser says it runs on."""

import pytest

from domain.devices import Device, device_of


@pytest.mark.parametrize(
    ("said", "device"),
    [
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1", Device.IPHONE),
        ("Mozilla/5.0 (iPad; CPU OS 12_5 like Mac OS X) AppleWebKit/605.1.15", Device.IPAD),
        ("Mozilla/5.0 (Linux; Android 16; Pixel 9) Chrome/140.0 Mobile Safari/537.36", Device.ANDROID_PHONE),
        ("Mozilla/5.0 (Linux; Android 16; SM-X710) Chrome/140.0 Safari/537.36", Device.ANDROID_TABLET),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:142.0) Gecko/20100101 Firefox/142.0", Device.WINDOWS),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Safari/605.1.15", Device.MAC),
        ("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) Chrome/140.0 Safari/537.36", Device.CHROMEBOOK),
        ("Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0", Device.LINUX),
        ("curl/8.5.0", Device.OTHER),
        ("", Device.OTHER),
        (None, Device.OTHER),
    ],
)
def test_a_device_is_told_by_what_it_says_of_itself(said: str | None, device: Device) -> None:
    assert device_of(said) is device
