"""Word tables for the generated pages: a sentence is one choice per column, so its meaning is loose and its grammar right."""

# Columns in the order of the sentence. English pages are the good ones, so their table is the largest.
ENGLISH = (
    ("The gardener", "My neighbour", "The old ferryman", "A young teacher", "The baker", "Our librarian", "The engineer", "A clockmaker",
     "The captain", "The beekeeper", "Her grandmother", "The stonemason", "An apprentice", "The postman", "A traveller", "The miller"),
    ("often describes", "remembers", "wants to have", "is proud of", "drew a plan of", "has learned about", "asked about", "keeps a record of",
     "was surprised by", "is writing about", "never forgets", "talks with friends about", "will soon repair", "explains", "wonders about"),
    ("the harbour", "the narrow bridge", "that old map", "the stone mill", "the two rivers", "a box of tools", "the swallows", "these apples",
     "the broken roof", "warm bread", "the tower clock", "a heavy load", "the village school", "the first snow", "an empty boat",
     "the forest path", "a basket of eggs", "the wooden fence"),
    ("before winter", "after the flood", "at the market", "with great care", "for every visitor", "on long evenings", "to the children",
     "from the window", "in few words", "by candle light", "near the chapel", "during the storm", "without a pause", "on the way home"),
    ("and the kettle sings", "because time is short", "while it rains", "and nobody laughs", "as it should be", "until the lamp goes out",
     "though few believe it", "and that is enough", "when friends come", "but not on Sundays", "if there is time", "and all are content",
     "so the work goes on", "where it is quiet"),
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
        ("explique aux enfants", "note chaque soir", "se souvient très bien", "raconte volontiers aux visiteurs",
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
