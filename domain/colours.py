"""A service's two colours as the whole palette of its pages, in the light and in the dark theme.

What stands on what, and how much they have to differ, are the pairs of WCAG 2.2 (1.4.3 for text, 1.4.11 for the edges
of fields and buttons). Colours are "#rrggbb".
"""

TEXT, EDGE = 4.5, 3.0
STRONG = 7.0
"""What a colour that is made here for the dark theme gets: more than it needs, since nobody has looked at it."""

Palette = dict[str, str]
"""The custom properties of static/dormouse.css, without their dashes."""

ON = (
    ("text", "bg", TEXT),
    ("text", "accent-bg", TEXT),
    ("text", "glow", TEXT),
    ("text-light", "bg", TEXT),
    ("text-light", "accent-bg", TEXT),
    ("accent", "bg", TEXT),
    ("accent", "accent-bg", TEXT),
    ("accent", "glow", TEXT),
    ("accent-hover", "bg", TEXT),
    ("accent-text", "accent", TEXT),
    ("accent-text", "accent-hover", TEXT),
    ("field-border", "bg", EDGE),
)
"""What stands on what, and the least contrast of the two."""


def contrast(one: str, other: str) -> float:
    """From 1 (the same) to 21 (black on white)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def mixed(one: str, other: str, share: float) -> str:
    """``share`` of the other colour in the one."""
    return "#" + "".join(
        f"{round(a + (b - a) * share):02x}" for a, b in zip(_channels(one), _channels(other), strict=True)
    )


def light(colour: str, highlight: str) -> Palette:
    """On a page that is nearly white."""
    text = mixed("#1c1c1c", colour, 0.08)
    return {
        "bg": mixed("#ffffff", colour, 0.02),
        "accent-bg": mixed("#ffffff", colour, 0.07),
        "text": text,
        "text-light": mixed(text, "#ffffff", 0.25),
        "border": mixed("#d8d8d8", colour, 0.15),
        "accent": colour,
        "accent-hover": mixed(colour, "#000000", 0.2),
        "accent-text": _readable_on(colour),
        "field": "#ffffff",
        "field-border": mixed(text, "#ffffff", 0.4),
        "glow": mixed("#ffffff", highlight, 0.12),
        "glow-border": highlight,
    }


def dark(colour: str, highlight: str) -> Palette:
    """On a page that is nearly black; ``colour`` has to be a light one, see ``lightened``."""
    text = mixed("#eaeaea", colour, 0.08)
    ground = mixed("#171717", colour, 0.03)
    return {
        "bg": ground,
        "accent-bg": mixed("#202020", colour, 0.06),
        "text": text,
        "text-light": mixed(text, ground, 0.25),
        "border": mixed("#404040", colour, 0.12),
        "accent": colour,
        "accent-hover": mixed(colour, "#ffffff", 0.3),
        "accent-text": _readable_on(colour),
        "field": mixed("#101010", colour, 0.02),
        "field-border": mixed(text, ground, 0.4),
        "glow": mixed("#1e1e1e", highlight, 0.12),
        "glow-border": mixed(highlight, ground, 0.25),
    }


def lightened(colour: str, highlight: str | None) -> str:
    """A colour for the dark theme that can still be known as this one."""
    tried = ((one, dark(one, highlight or one)) for one in _towards(colour, "#ffffff"))
    return next(one for one, palette in tried if not weak(palette) and contrast(one, palette["glow"]) >= STRONG)


def darkened(colour: str, highlight: str | None) -> str:
    """The nearest darker colour that can be read on the light theme's pages; None: it is the highlight, too."""
    return next(one for one in _towards(colour, "#000000") if not weak(light(one, highlight or one)))


def weak(palette: Palette) -> list[tuple[str, str, float]]:
    """The pairs of which one cannot be told from the other well enough, with their contrast."""
    pairs = ((front, ground, contrast(palette[front], palette[ground]), least) for front, ground, least in ON)
    return [(front, ground, found) for front, ground, found, least in pairs if found < least]


def _towards(colour: str, end: str) -> list[str]:
    return [mixed(colour, end, step / 50) for step in range(51)]


def _readable_on(colour: str) -> str:
    return max(("#ffffff", mixed("#111111", colour, 0.05)), key=lambda text: contrast(text, colour))


def _channels(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return red, green, blue


def _luminance(colour: str) -> float:
    parts = [part / 255 for part in _channels(colour)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
