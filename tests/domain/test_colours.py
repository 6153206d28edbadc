"""Two colours become two palettes in which everything can be read."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from domain import colours

ANY = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")


def test_contrast_is_that_of_wcag() -> None:
    assert colours.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert colours.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert colours.contrast("#0b5d7a", "#0b5d7a") == 1


@given(ANY, ANY)
@hypothesis_settings(max_examples=60)
def test_whatever_the_colour_the_palettes_made_of_it_can_be_read(colour: str, highlight: str) -> None:
    assert colours.weak(colours.light(colours.darkened(colour, highlight), highlight)) == []
    assert colours.weak(colours.dark(colours.lightened(colour, highlight), highlight)) == []


def test_a_colour_that_cannot_be_read_is_found() -> None:
    assert ("accent", "bg") in [pair[:2] for pair in colours.weak(colours.light("#ffcc00", "#ffcc00"))]
    assert colours.weak(colours.light("#0b5d7a", "#d79b3f")) == []
