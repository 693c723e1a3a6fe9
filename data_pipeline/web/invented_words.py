"""Word tables for the generated pages: a sentence is one choice per column, so its meaning is loose and its grammar right."""

# Columns in the order of the sentence. English pages are the good ones, so their table is the largest.
ENGLISH = (
    ("The gardener", "My neighbour", "The old ferryman", "A young teacher", "The baker of the village", "Our librarian", "The engineer",
     "A patient clockmaker", "The captain", "The beekeeper", "Her grandmother", "The stonemason"),
    ("explains", "remembers", "has written down", "wants to know", "shows the children", "often describes", "has learned", "noticed",
     "keeps a record of", "was surprised by"),
    ("how the harbour looked", "why the bridge was built", "which tools are needed", "what the map of the valley shows",
     "where the two rivers meet", "how much water the mill uses", "when the swallows come back", "what to do with the apples",
     "how the roof was mended", "why bread rises", "how the tower clock is wound", "which stones can bear a load"),
    ("before the winter began", "in the years after the flood", "that the town council decided to keep", "with a little help from friends",
     "and writes it on a card for each visitor", "because nobody else had the time", "to everybody who has a question",
     "from the window of the small workshop", "at the end of every market day", "with great care and few words",
     "and the answer is always the same", "while the kettle comes to the boil"),
)  # fmt: skip

FOREIGN = {
    "de": (
        ("Der Gärtner", "Meine Nachbarin", "Die junge Lehrerin", "Unser Bäcker", "Der alte Fährmann", "Die Uhrmacherin"),
        ("erklärt den Kindern", "schreibt jeden Abend auf", "weiß noch ganz genau", "erzählt den Gästen gern", "möchte endlich wissen"),
        ("wie die Brücke gebaut wurde", "warum das Brot aufgeht", "wann die Schwalben zurückkommen", "welches Werkzeug man dafür braucht",
         "wo sich die beiden Flüsse treffen"),
        ("bevor der Winter beginnt", "nach dem großen Hochwasser", "und niemand widerspricht ihm", "weil sonst keiner Zeit hat",
         "während das Wasser langsam kocht"),
    ),
    "fr": (
        ("Le jardinier", "Ma voisine", "La jeune institutrice", "Notre boulanger", "Le vieux passeur", "L'horlogère"),
        ("explique aux enfants", "note chaque soir dans un cahier", "se souvient très bien", "raconte volontiers aux visiteurs",
         "voudrait enfin savoir"),
        ("comment le pont a été construit", "pourquoi le pain lève", "quand les hirondelles reviennent", "quels outils sont nécessaires",
         "où les deux rivières se rencontrent"),
        ("avant le début de l'hiver", "après la grande inondation", "et personne ne le contredit", "parce que les autres n'ont pas le temps",
         "pendant que l'eau chauffe doucement"),
    ),
    "es": (
        ("El jardinero", "Mi vecina", "La joven maestra", "Nuestro panadero", "El viejo barquero", "La relojera"),
        ("explica a los niños", "escribe todas las noches en un cuaderno", "recuerda muy bien", "cuenta con gusto a los visitantes",
         "quisiera saber por fin"),
        ("cómo se construyó el puente", "por qué crece el pan", "cuándo vuelven las golondrinas", "qué herramientas hacen falta",
         "dónde se encuentran los dos ríos"),
        ("antes de que empiece el invierno", "después de la gran inundación", "y nadie le lleva la contraria",
         "porque los demás no tienen tiempo", "mientras el agua se calienta despacio"),
    ),
}  # fmt: skip

PRODUCTS = (
    "cheap watches",
    "magic pills",
    "luxury bags",
    "fast loans",
    "casino bonus",
    "perfect teeth",
    "weight loss tea",
    "lucky tickets",
)

MENU = ("Home", "News", "Products", "Prices", "Support", "Downloads", "Partners", "Careers", "Press", "Imprint", "Privacy", "Sitemap",
        "Login", "Register", "Basket", "Wish list", "Events", "Archive", "Newsletter", "Contact", "Terms", "Help", "Search", "Offers")  # fmt: skip

NAMES = ("alma", "bruno", "carla", "dario", "edda", "fritz", "greta", "hugo", "irma", "jonas", "klara", "ludwig", "marta", "nils")
