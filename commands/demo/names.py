"""Words for the sample: plausible names of people, and titles that nobody ever filmed."""


def _words(text: str, separator: str = " ") -> tuple[str, ...]:
    return tuple(text.split(separator))


FIRST = {
    "de": _words(
        "Anna Ben Carla David Elif Finn Greta Hannes Ida Jonas Katrin Lars Mia Nils Olga Paul Rosa Stefan Tim Ursula "
        "Vera Wolfgang Yusuf Zoe Amelie Bernd Claudia Dirk Emma Franz Gisela Heike Ingo Jana Kemal Lena Markus Nadine "
        "Oskar Petra Ralf Sabine Thomas Ulrike Volker Wiebke"
    ),
    "en": _words(
        "Alice Brian Chloe Daniel Ellen Frank Grace Harry Isla Jack Kate Liam Megan Noah Olive Peter Quinn Ruth Sam "
        "Tara Umar Violet Will Yasmin Zack Amber Blake Connor Dawn Ethan Fiona George Holly Ivan Jenna Kyle Lucy Mark "
        "Nora Owen Priya Rachel Simon Tessa"
    ),
}
LAST = {
    "de": _words(
        "Ahrens Bauer Conrad Dietz Ebert Fuchs Günther Hartmann Ilgner Jäger Kaya Lindner Möller Neumann Otto Peters "
        "Richter Schäfer Thiel Ulrich Vogel Weiß Yılmaz Zimmermann Albrecht Böhm Engel Franke Graf Heinrich Kühn Lang "
        "Maier Nowak Pohl Roth Sommer Voigt Winter"
    ),
    "en": _words(
        "Adams Barker Clarke Dawson Evans Foster Green Hughes Irving Jones Khan Lewis Morgan Norris Owens Parker Quinn "
        "Reed Shaw Turner Underwood Vaughan Walsh Young Archer Bennett Cole Doyle Ellis Fisher Grant Holt Kelly Lowe "
        "Marsh Nash Patel Rowe Stone Webb"
    ),
}
TITLES = {
    "de": _words(
        "Der Leuchtturmgärtner|Sieben Koffer nach Wismar|Frau Petersen zählt rückwärts|Das Moor hat Zeit|"
        "Kommissarin Holunder|Die Bäckerei am Ende der Linie 9|Nebelkrähen|Zwei Zimmer, Küche, Mond|Der halbe Bahnhof|"
        "Inselpost|Onkel Rudis Zeitmaschine|Schneewalzer|Die Stille der Rolltreppen|Hafenkante 12|Papierboote im März|"
        "Die Uhrmacherin von Stade|Ein Dorf ohne Türen|Kleine Fische, große Nacht|Der Apfeldieb kehrt heim|Zugvogelamt",
        "|",
    ),
    "en": _words(
        "The Lighthouse Gardener|Seven Suitcases to Whitby|Mrs Pemberton Counts Backwards|The Marsh Can Wait|"
        "Inspector Elderflower|The Bakery at the End of Line 9|Hooded Crows|Two Rooms, Kitchen, Moon|Half a Station|"
        "Island Post|Uncle Rudy and the Tuesday Machine|Snow Waltz|A Silence of Escalators|Harbour Edge 12|"
        "Paper Boats in March|The Clockmaker of Staithes|A Village Without Doors|Small Fish, Long Night|"
        "The Apple Thief Goes Home|Bureau of Migratory Birds",
        "|",
    ),
}
PROFILES = {"de": ("Kinder", "Wohnzimmer", "Oma"), "en": ("Kids", "Living room", "Grandma")}
LISTS = {
    "de": (("favourites", "Favoriten"), ("watch_list", "Merkliste"), ("history", "Zuletzt gesehen")),
    "en": (("favourites", "Favourites"), ("watch_list", "Watch list"), ("history", "Recently watched")),
}
SETTINGS = {
    "de": (
        ("Untertitel", ("aus", "Deutsch", "Englisch")),
        ("Nächste Folge von selbst", ("ja", "nein")),
        ("Bildqualität", ("automatisch", "hoch")),
    ),
    "en": (
        ("Subtitles", ("off", "German", "English")),
        ("Next episode by itself", ("yes", "no")),
        ("Picture quality", ("automatic", "high")),
    ),
}
