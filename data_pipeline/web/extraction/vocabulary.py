"""What the scanner knows by name: elements, attributes, words of class names, words of texts, entities. All are looked up by hash.

The words are short lists of our own in five languages; what they are worth is learnt (`benchmarks/extraction_train.py`).
"""

from functools import cache
from html.entities import html5

import numpy as np

# An element's kind: how its tags act on the stack of open elements and on blocks.
INLINE, BLOCK, VOID, RAW, HIDDEN = 0, 1, 2, 3, 4

INLINE_NAMES = (
    "a abbr acronym b bdi bdo big cite code del dfn em font i ins kbd label mark q s samp small span strike strong sub sup time tt u var"
)
BLOCK_NAMES = (
    "address article aside blockquote body button caption center dd details dialog dir div dl dt fieldset figcaption figure footer form "
    "h1 h2 h3 h4 h5 h6 header hgroup html legend li main menu nav ol p pre section summary table tbody td tfoot th thead tr ul"
)
VOID_NAMES = "area base br col embed hr img input link meta param source track wbr"
RAW_NAMES = "script style noscript iframe textarea title noframes xmp"
HIDDEN_NAMES = "head svg template math select object audio video canvas datalist map rt rp"
KINDS = ((INLINE_NAMES, INLINE), (BLOCK_NAMES, BLOCK), (VOID_NAMES, VOID), (RAW_NAMES, RAW), (HIDDEN_NAMES, HIDDEN))

TAGS = {name: code for code, name in enumerate((name for names, _ in KINDS for name in names.split()), 1)}
TAG_KIND = np.zeros(128, np.uint8)
for _names, _kind in KINDS:
    for _name in _names.split():
        TAG_KIND[TAGS[_name]] = _kind

# Where a block stands: one bit per kind of open element around it.
CONTEXTS = {
    "article": 0, "main": 1, "nav": 2, "aside": 3, "footer": 4, "header": 5, "form": 6, "table": 7, "ul": 8, "ol": 8, "dl": 8, "li": 9,
    "figure": 10, "figcaption": 11, "blockquote": 12, "pre": 13, "a": 14, "h1": 15, "h2": 15, "h3": 15, "h4": 15, "h5": 15, "h6": 15,
    "section": 16, "button": 17, "label": 17, "td": 18, "th": 18, "strong": 19, "b": 19, "address": 20, "caption": 21, "dd": 9, "dt": 9,
    "menu": 8, "dir": 8, "em": 22, "i": 22, "small": 23, "time": 24, "cite": 25, "q": 25, "code": 26, "tt": 26, "kbd": 26, "samp": 26,
    "dialog": 27, "summary": 28, "details": 28, "fieldset": 6, "legend": 6,
}  # fmt: skip
HIDDEN_BIT, ARIA_BIT = 40, 41
TAG_CONTEXT = np.zeros(128, np.int64)
for _name, _bit in CONTEXTS.items():
    TAG_CONTEXT[TAGS[_name]] = 1 << _bit
ROLES = {"navigation": "nav", "main": "main", "banner": "header", "contentinfo": "footer", "complementary": "aside", "dialog": "dialog"}

ATTRIBUTES = {"class": 1, "id": 1, "itemprop": 1, "data-component": 1, "role": 2, "hidden": 3, "style": 4, "href": 5, "aria-hidden": 6}

# Words of class names and identifiers, in groups; a word of five letters or more also counts as the beginning of a longer one.
CLASS_GROUPS = (
    "comment comments disqus respond reply replies kommentar kommentare commentaire comentario commentlist discussion",
    "sidebar sidebars aside rail widget widgets sidecol seitenleiste marginal",
    "share sharing social socials addthis sharebar facebook twitter teilen pinterest whatsapp sharedaddy shariff jp",
    "related similar recommended recommend recommendation recommendations more yarpp outbrain taboola verwandt crosslinks",
    "cookie cookies consent gdpr privacy notice datenschutz",
    "breadcrumb breadcrumbs crumb crumbs pathway brotkrumen youarehere",
    "author byline autor writer vcard auteur authorbox contributor",
    "date published timestamp datum updated fecha pubdate datetime",
    "nav navigation menu navbar topnav menus submenu navi megamenu dropdown",
    "footer foot bottom copyright colophon",
    "header masthead top topbar kopf",
    "content contents inhalt contenido contenu maincontent",
    "article artikel post story entry hentry blogpost beitrag articulo",
    "body text articlebody fulltext copytext richtext storybody prose paragraph absatz texto texte",
    "main primary haupt",
    "ad ads advert advertisement advertising adsense sponsor sponsored promo promotion anzeige werbung publicidad banner adslot gpt",
    "newsletter subscribe subscription signup abo mailchimp optin suscripcion",
    "login register account signin user paywall",
    "search suche buscar recherche searchform",
    "tag tags category categories kategorie kategorien topics keywords label labels schlagworte",
    "caption figcaption credit credits bildunterschrift imagecaption copyrightinfo",
    "image photo gallery img figure thumbnail thumb slideshow slider carousel bild foto",
    "meta info postmeta details metadata entrymeta infos",
    "title headline heading titel titulo subtitle subheadline kicker dachzeile",
    "teaser teasers card cards preview tile tiles promobox teaserbox",
    "excerpt archive feed loop listing list items grid",
    "modal popup overlay dialog lightbox tooltip toast alert",
    "form field input button buttons btn submit contact kontakt",
    "lead intro summary lede standfirst dek vorspann abstract introduction",
    "toc inhaltsverzeichnis",
    "cart shop product price basket warenkorb checkout",
    "quote blockquote pullquote zitat",
    "code highlight syntax snippet",
    "print tools toolbar actions utility",
    "hidden sr visually offscreen skip screen invisible hide",
    "pagination pager paging prev previous next older newer",
    "rating ratings vote votes like likes stars",
    "video player media embed audio podcast",
    "disclaimer legal terms imprint impressum",
    "popular trending latest recent top10 mostread meistgelesen aktuell",
    "bio about profile biography",
    "infobox factbox box sidebox kasten",
    "wiki mw reference references reflist footnotes footnote fussnoten",
    "question answer answers topic thread message messages forum",
)

# Words of texts that tell menus, notices and invitations from prose.
TEXT_GROUPS = (
    "copyright ©  rights reserved rechte vorbehalten derechos reservados droits réservés",
    "cookie cookies datenschutz privacy gdpr dsgvo privacidad confidentialité",
    "newsletter subscribe abonnieren suscríbete abonnez subscription abonnement inscrivez",
    "share teilen compartir partager tweet facebook twitter pinterest whatsapp linkedin google instagram telegram email",
    "comment comments kommentar kommentare comentarios comentario commentaires commentaire reply antworten responder répondre",
    "posted published veröffentlicht publicado publié updated aktualisiert erstellt geschrieben eingestellt written filed",
    "login register anmelden registrieren registrarse connexion signin einloggen log account konto password passwort",
    "related similar verwandte ähnliche relacionados relacionadas recommended empfohlen liés lire lea",
    "tags tag schlagwörter schlagworte etiquetas categories category kategorie kategorien categorías themen topics stichworte",
    "advertisement anzeige werbung publicidad publicité sponsored",
    "photo foto fotos image bild quelle source credit getty reuters dpa afp imago symbolbild photograph",
    "menu home startseite inicio accueil impressum imprint kontakt contact contacto sitemap agb terms über about",
    "search suche suchen buscar rechercher",
    "next previous older newer weiter zurück nächster vorheriger siguiente anterior suivant précédent back",
    "more mehr más plus weiterlesen continue leer here hier click klicken",
    "by von por par author autor autorin",
    "january february march april june july august september october november december januar februar märz mai juni juli oktober dezember "
    "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre janvier février mars avril juin juillet août "
    "septembre octobre novembre décembre jan feb mar apr jun jul aug sep oct nov dec",
    "download pdf print drucken imprimir imprimer rss feed",
    "please bitte your ihre ihr deine dein tu su votre you sie",
    "min minutes minuten read lesezeit ago hours stunden views aufrufe uhr",
    "javascript browser enable",
    "cart shop price kaufen buy warenkorb € versand order bestellen preis",
    "lea lire lesen leer read lees leia czytaj leggi también auch aussi also",
    "subscriber subscribers member members membership mitglied mitglieder miembro miembros abonnent "
    "abonnenten abonné donate spenden spende donar",
    "follow folgen folge folgt siga síguenos suivez únete canal join channel feed",
    "advertise werben inserieren permission reprint reprinted republish republished nachdruck "
    "vervielfältigung reproduction prohibida trademark",
    "moderated moderation guidelines civil abusive offensive netiquette opinions views expressed",
    "warning error notice javascript undefined null",
    "filed under categorized bookmark permalink trackback trackbacks pingback pingbacks",
    "press presse pressemitteilung agentur redaktion editor editors correspondent reporter journalist journalistin redakteur redakteurin",
)

STOP_WORDS = (
    "the of and to in a is that for it as was with on be at by this have from or had not are but what all were when we there can an your "
    "which their if do will each about how up out them then she many some so these would other into has "
    "more her two like him see time could "
    "no make than been its who now people my made over did down only way find use may he you they i his me our us just because "
    "der die das und in zu den ist nicht von mit sich des auf für im dem ein eine als auch es an werden aus er hat dass sie nach wird bei "
    "einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis mehr durch "
    "man sein wurde ich wir wenn kann hier "
    "alle diese dieser schon dann weil unter uns mich was doch immer sehr eines "
    "le la les de des un une et est en que qui dans pour pas sur au avec ce il plus par je ne se son "
    "sont mais nous vous ou comme elle cette "
    "aux du leur été ses ont tout fait être aussi "
    "el los las del que y se lo por con para una su al es como más pero sus fue este ha sí porque esta son entre está cuando muy sin sobre "
    "también me hasta hay donde quien desde todo nos durante "
    "il di che è per non sono della con si una del da le anche come più ma gli nel alla dei nella questo "
    "o e do da em um para com não uma os no se na por mais as dos como mas foi ao ele das tem à seu sua ou "
    "het een van en dat op te zijn voor met niet aan er om ook als bij maar naar "
    "og er det som på til av med har ikke jeg att för är inte den om och "
    "i w na z do się nie jest to że jak po co od za ale przez был и в не на что с по это как из у за от так его но"
)


# What a hash stands for: the kinds of words begin with different values, so that one table holds them all.
TAG, ATTRIBUTE, CLASS_WORD, ROLE, TEXT_WORD, ENTITY = (
    0xCBF29CE484222325 ^ kind for kind in (0, 1 << 40, 2 << 40, 3 << 40, 4 << 40, 5 << 40)
)
PRIME, STOP_BIT = 0x100000001B3, 62


def fnv(word: bytes, start: int) -> int:
    """FNV-1a of 64 bits, which the scanner computes byte by byte."""
    value = start
    for byte in word:
        value = ((value ^ byte) * PRIME) & 0xFFFFFFFFFFFFFFFF
    return value


def grouped(groups: tuple[str, ...]) -> dict[str, int]:
    """Each word's groups as bits: word -> 1 << group, summed."""
    bits: dict[str, int] = {}
    for group, words in enumerate(groups):
        for word in words.split():
            bits[word] = bits.get(word, 0) | 1 << group
    return bits


@cache
def table() -> tuple[np.ndarray, np.ndarray]:
    """One open-addressing table of two arrays of a power of two: hashes (uint64, 0 is free) and values (int64)."""
    text_words = grouped(TEXT_GROUPS)
    for word in STOP_WORDS.split():
        text_words[word] = text_words.get(word, 0) | 1 << STOP_BIT
    roles = {role: CONTEXTS[name] + 1 for role, name in ROLES.items()}
    entities = {name.removesuffix(";"): ord(text) for name, text in html5.items() if len(text) == 1}
    kinds = (
        (TAG, TAGS),
        (ATTRIBUTE, ATTRIBUTES),
        (CLASS_WORD, grouped(CLASS_GROUPS)),
        (ROLE, roles),
        (TEXT_WORD, text_words),
        (ENTITY, entities),
    )
    hashed = {fnv(word.encode(), start): value for start, words in kinds for word, value in words.items()}
    size = 1 << (3 * len(hashed)).bit_length()
    keys, values = np.zeros(size, np.uint64), np.zeros(size, np.int64)
    for key, value in hashed.items():
        place = key & (size - 1)
        while keys[place]:
            place = (place + 1) & (size - 1)
        keys[place], values[place] = key, value
    return keys, values
