"""Facts in words, in both languages: days, money, and one sentence for every code of the rule."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import Flask

from app import create_app
from domain.dates import keep_until, next_month_end
from domain.lifecycle import HoldReason, Rule
from domain.money import Money
from domain.policy import Code
from services import wording
from tests.conftest import NOW, make_settings

BERLIN = ZoneInfo("Europe/Berlin")
DEADLINE = next_month_end(NOW, BERLIN)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """Wording asks no database, so this application's is never opened."""
    folder = tmp_path_factory.mktemp("words")
    app = create_app(make_settings(f"sqlite:///{folder}/none.db", folder))
    with app.app_context():
        yield app


@pytest.mark.usefixtures("app")
class TestWords:
    @pytest.mark.parametrize(
        ("tag", "language"),
        [("de", "de"), ("de-AT", "de"), ("DE_ch", "de"), ("en-GB", "en"), ("fr", "en"), ("", "en"), (None, "en")],
    )
    def test_a_reader_gets_their_language_or_the_services(self, tag: str | None, language: str) -> None:
        assert wording.supported(tag) == language

    def test_the_services_language_is_a_setting(self, tmp_path: Path) -> None:
        german = create_app(make_settings(f"sqlite:///{tmp_path}/none.db", tmp_path, default_locale="de"))
        with german.app_context():
            assert wording.supported("fr") == "de"

    def test_a_deadline_names_the_day_before_its_bound(self) -> None:
        assert datetime(2026, 6, 30, 22, tzinfo=UTC) == DEADLINE
        with wording.in_language("en"):
            assert wording.last_day(DEADLINE, BERLIN) == "Tuesday, 30 June 2026"
            assert wording.up_to_and_including(DEADLINE, BERLIN) == "up to and including 30 June"
            assert wording.end_of_day(DEADLINE, BERLIN) == "Tuesday, 30 June 2026, 24:00 (Central European Summer Time)"
        with wording.in_language("de"):
            assert wording.last_day(DEADLINE, BERLIN) == "Dienstag, 30. Juni 2026"
            assert wording.up_to_and_including(DEADLINE, BERLIN) == "bis einschließlich 30. Juni"

    def test_scenario_24_saved_until_30_april_not_1_may(self) -> None:
        assert wording.last_day_short(keep_until(DEADLINE, 10, BERLIN), BERLIN) == "30 April 2027"

    def test_an_instant_is_named_by_the_day_it_has_in_the_services_zone(self) -> None:
        late = datetime(2026, 6, 29, 23, 30, tzinfo=UTC)
        assert wording.long_date(late, BERLIN) == "Tuesday, 30 June 2026"
        assert wording.short_date(late.date(), BERLIN) == "29 June 2026"
        assert wording.date_and_time(late, BERLIN).startswith("Tuesday, 30 June 2026, 01:30 (")

    @pytest.mark.parametrize(
        ("minor", "currency", "english", "german"),
        [
            (1299, "EUR", "€12.99", "12,99\xa0€"),
            (9900, "JPY", "¥9,900", "9.900\xa0¥"),
            (5, "USD", "$0.05", "0,05\xa0$"),
        ],
    )
    def test_money_is_written_as_its_currency_and_language_do(
        self, minor: int, currency: str, english: str, german: str
    ) -> None:
        with wording.in_language("en"):
            assert wording.money(minor, currency) == english
        with wording.in_language("de"):
            assert wording.money(minor, currency) == german

    def test_a_price_says_how_often(self) -> None:
        assert wording.price(1299, "EUR", "month") == "€12.99 a month"
        assert wording.price(9900, "EUR", "year") == "€99.00 a year"
        assert wording.price(0, "EUR", "month") == "free of charge"
        with wording.in_language("de"):
            assert wording.price(1299, "EUR", "month") == "12,99\xa0€ im Monat"

    @pytest.mark.parametrize(
        ("interval", "since", "amount"),
        [
            ("month", "2025-03-03", 15 * 1299),
            ("month", "2026-05-04", None),
            ("year", "2024-03-03", 2 * 1299),
            ("year", "2025-06-04", None),
            ("week", "2026-05-20", 2 * 1299),
            ("quarter", "2025-03-03", 5 * 1299),
            ("fortnight", "2025-03-03", None),
            (None, "2025-03-03", None),
        ],
    )
    def test_what_was_paid_is_estimated_from_whole_periods(
        self, interval: str | None, since: str, amount: int | None
    ) -> None:
        paid = wording.paid_since(1299, "EUR", interval, datetime.fromisoformat(since + "T12:00+02:00"), NOW, BERLIN)
        assert paid == (None if amount is None else Money(amount, "EUR"))

    def test_an_estimate_is_called_one(self) -> None:
        assert wording.about(Money(19485, "EUR")) == "about €195 (an estimate)"
        with wording.in_language("de"):
            assert wording.about(Money(19485, "EUR")) == "rund 195\xa0€ (geschätzt)"

    def test_the_decision_in_the_words_of_the_contract(self) -> None:
        assert wording.decision_sentence(Code.NEVER_USED, **facts(months=20)) == (
            "Joined on 3 March 2025 and has not used it since: 20 months."
        )
        assert wording.decision_sentence_to_member(Code.NEVER_USED, service="Lumio", **facts(months=15)) == (
            "You joined on 3 March 2025 and have not used Lumio since: 15 months."
        )

    def test_a_sign_of_life_that_was_no_use_is_told_apart(self) -> None:
        kept = facts(sign_of_life_at=datetime(2025, 5, 1, tzinfo=UTC), months=13)
        assert "last sign of life on 1 May 2025: 13 months ago" in wording.decision_sentence(Code.NEVER_USED, **kept)
        assert "We last heard from you on 1 May 2025" in wording.decision_sentence_to_member(
            Code.STOPPED_USING, service="Lumio", **kept
        )

    @pytest.mark.parametrize("language", wording.LANGUAGES)
    @pytest.mark.parametrize("code", [*Code, Rule.OWN_WISH])
    def test_every_code_has_a_sentence_in_each_language_for_operators_and_members(
        self, code: Code | Rule, language: str
    ) -> None:
        with wording.in_language("en"):
            english = both(code, facts(months=1)), both(code, facts(months=0))
        with wording.in_language(language):
            sentences = both(code, facts(months=1)), both(code, facts(months=0))
        for pair in sentences:
            assert all(sentence.endswith(".") and "%(" not in sentence for sentence in pair)
        assert (sentences == english) == (language == "en")

    @pytest.mark.parametrize("code", [Code.NEVER_USED, Code.STOPPED_USING])
    def test_after_a_purge_there_are_words_without_dates(self, code: Code) -> None:
        nothing = facts(joined_at=None, last_used_at=None, sign_of_life_at=None, months=0)
        assert not any(digit in sentence for sentence in both(code, nothing) for digit in "0123456789")

    def test_a_code_nobody_knows_has_no_words(self) -> None:
        with pytest.raises(ValueError, match="no words"):
            wording.decision_sentence("tomorrow", **facts())

    @pytest.mark.parametrize("reason", HoldReason)
    def test_every_reason_to_hold_has_a_sentence_in_each_language(self, reason: HoldReason) -> None:
        figures = {
            "concerned": 1218, "paying": 2357, "percent": 51.7, "limit": 2.0, "last_percent": 0.5,
            "last_month": "2026-05", "last_event_at": "2026-05-30T10:00:00+00:00", "days": 4.0,
            "source": "plays", "complete_through": "2026-06-29T10:00:00+00:00", "refused": 60, "tried": 1000,
        }  # fmt: skip
        with wording.in_language("en"):
            english = wording.hold_sentence(reason, figures)
        with wording.in_language("de"):
            german = wording.hold_sentence(reason, figures)
        assert english
        assert german
        assert english != german
        if reason == HoldReason.TOO_MANY:
            assert english.startswith("1,218 of 2,357 paying members (51.7 %)")
            assert german.startswith("1.218 von 2.357 zahlenden Mitgliedern (51,7 %)")


def facts(**changes: Any) -> dict[str, Any]:
    joined = datetime(2025, 3, 3, 9, tzinfo=UTC)
    return {
        "joined_at": joined,
        "last_used_at": datetime(2025, 3, 20, tzinfo=UTC),
        "sign_of_life_at": joined,
        "months": 15,
        "zone": BERLIN,
        **changes,
    }


def both(code: Code | Rule, facts: dict[str, Any]) -> tuple[str, str]:
    return (
        wording.decision_sentence(code, **facts),
        wording.decision_sentence_to_member(code, service="Lumio", **facts),
    )
