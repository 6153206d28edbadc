"""The check-in link: what verifies, and that nothing else does (scenario 27)."""

from pathlib import Path
from string import ascii_letters, digits

import pytest
from itsdangerous import URLSafeSerializer

from domain.links import CHECK_IN_SALT
from services import check_in
from settings import Settings
from tests.conftest import make_settings

CASE = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def plain(tmp_path: Path) -> Settings:
    return make_settings("sqlite:///none.db", tmp_path)


def with_keys(settings: Settings, *keys: str) -> Settings:
    *fallbacks, key = keys
    return settings.model_copy(update={"secret_key": key, "secret_key_fallbacks": tuple(fallbacks)})


def test_a_link_says_which_case_and_which_address(plain: Settings) -> None:
    assert check_in.read(plain, check_in.token(plain, CASE, 3)) == (CASE, 3)


def test_a_link_is_signed_as_itsdangerous_signs_it(plain: Settings) -> None:
    signer = URLSafeSerializer(plain.secret_key, salt=CHECK_IN_SALT).make_signer(CHECK_IN_SALT)
    for generation in (1, 12, 123_456):
        token = check_in.token(plain, CASE, generation)
        assert signer.sign(token.partition(".")[0].encode()) == token.encode()


def test_a_link_is_one_segment_of_a_path(plain: Settings) -> None:
    assert check_in.token(plain, CASE, 1).replace("-", "").replace("_", "").replace(".", "").isalnum()


def test_scenario_27_links_survive_a_rotation_of_the_key(plain: Settings) -> None:
    old = check_in.token(with_keys(plain, "first"), CASE, 1)
    assert check_in.read(with_keys(plain, "first", "second"), old) == (CASE, 1)
    assert check_in.read(with_keys(plain, "first", "second", "third"), old) == (CASE, 1)


def test_scenario_27_a_rotated_installation_signs_with_its_newest_key(plain: Settings) -> None:
    new = check_in.token(with_keys(plain, "first", "second"), CASE, 1)
    assert check_in.read(with_keys(plain, "second"), new) == (CASE, 1)


def test_scenario_27_a_lost_key_or_another_installation_verifies_nothing(plain: Settings) -> None:
    assert check_in.read(with_keys(plain, "another"), check_in.token(plain, CASE, 1)) is None


def test_every_flipped_character_is_noticed(plain: Settings) -> None:
    token = check_in.token(plain, CASE, 1)
    for place, character in enumerate(token):
        # Of the last character some bits are dropped in decoding, so there every other one has its turn.
        for other in "AaBbz09-_." if place < len(token) - 1 else f"{ascii_letters}{digits}-_":
            if other != character:
                assert check_in.read(plain, token[:place] + other + token[place + 1 :]) is None, place


def test_every_cut_is_noticed(plain: Settings) -> None:
    token = check_in.token(plain, CASE, 1)
    assert all(check_in.read(plain, token[:length]) is None for length in range(len(token)))
    assert all(check_in.read(plain, token[start:]) is None for start in range(1, len(token)))
    assert check_in.read(plain, token + "=") is None
    assert check_in.read(plain, "ünïcode.☃") is None


def test_a_token_of_another_purpose_opens_no_page(plain: Settings) -> None:
    assert check_in.read(plain, check_in.second_step(plain, CASE, 1)) is None
    assert check_in.read(plain, str(URLSafeSerializer(plain.secrets).dumps([CASE, 1]))) is None
    assert (
        check_in.read(plain, str(URLSafeSerializer(plain.secrets, salt=f"{CHECK_IN_SALT}2").dumps([CASE, 1]))) is None
    )


def test_the_second_step_is_bound_to_case_and_address(plain: Settings) -> None:
    marker = check_in.second_step(plain, CASE, 1)
    assert check_in.is_second_step(plain, marker, CASE, 1)
    assert not check_in.is_second_step(plain, marker, CASE, 2)
    assert not check_in.is_second_step(plain, marker, CASE[::-1], 1)
    assert not check_in.is_second_step(plain, "", CASE, 1)
    assert not check_in.is_second_step(plain, check_in.token(plain, CASE, 1), CASE, 1)
