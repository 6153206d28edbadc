"""Signatures of Standard Webhooks: by the vectors its libraries publish, and by what they refuse."""

from datetime import UTC, datetime, timedelta

import pytest

from domain import webhooks

MESSAGE = "msg_p5jXN8AQM9LWM0D4loKWxJek"
BODY = b'{"test": 2432232314}'
SECRET = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STAMP = "1614265330"
PUBLISHED = "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
OTHER = "Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
AT = datetime.fromtimestamp(int(STAMP), UTC)


def is_signed(signatures: str, *, message: str = MESSAGE, stamp: str = STAMP, late: float = 0) -> bool:
    return webhooks.is_signed([SECRET], message, stamp, signatures, BODY, AT + timedelta(seconds=late))


@pytest.mark.parametrize("secret", [SECRET, f"whsec_{SECRET}"])
def test_the_published_vector_is_signed_as_published(secret: str) -> None:
    assert webhooks.signature(secret, MESSAGE, STAMP, BODY) == PUBLISHED
    assert webhooks.signed([secret], MESSAGE, BODY, AT) == {
        "webhook-id": MESSAGE,
        "webhook-timestamp": STAMP,
        "webhook-signature": f"v1,{PUBLISHED}",
    }


@pytest.mark.parametrize(
    "signatures",
    [f"v1,{PUBLISHED}", f"v1,{OTHER} v2,{OTHER} v1,{PUBLISHED} v1,{OTHER}"],
)
def test_the_published_payload_is_valid_with_one_signature_and_among_several(signatures: str) -> None:
    assert is_signed(signatures)


@pytest.mark.parametrize(
    "refused",
    [
        {"signatures": "v1,dawfeoifkpqwoekfpqoekf"},
        {"signatures": "v1,g0hM9"},
        {"signatures": "v1,"},
        {"signatures": ""},
        {"signatures": f"v2,{PUBLISHED}"},
        {"message": ""},
        {"stamp": ""},
        {"stamp": "hello"},
        {"late": 301},
        {"late": -301},
    ],
)
def test_what_the_published_tests_refuse_is_refused(refused: dict[str, object]) -> None:
    assert not is_signed(**{"signatures": f"v1,{PUBLISHED}", **refused})  # type: ignore[arg-type]


def test_while_a_secret_is_replaced_receivers_may_know_either() -> None:
    new = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
    headers = webhooks.signed([SECRET, new], MESSAGE, BODY, AT)
    for known in (SECRET, new):
        assert webhooks.is_signed([known], MESSAGE, STAMP, headers["webhook-signature"], BODY, AT)
