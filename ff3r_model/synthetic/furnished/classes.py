"""Classes of furniture: which word a catalogue's name falls under."""

from __future__ import annotations

import re

SHELL = ("wall", "floor", "ceiling")
_RULES = (
    # The first that matches the English name decides.
    ("person", r"^(man|woman|boy|girl|male|female)\b|\b(man|woman|boy|girl|people|person)$"),
    (
        "toy",
        r"toy|teddy|doll|puppet|lego|(rocking|wooden) horse|carrito|rubik|biplane|car model|card game|chess|puzzle",
    ),
    ("animal", r"^(cat|dog|horse|deer)\b(?! house)|bulldog|siamese"),
    ("dishwasher", r"dishwasher"),
    ("washing machine", r"washing machine|dryer machine|^washer"),
    ("refrigerator", r"fridge|refrigerator|freezer"),
    ("range hood", r"\bhood\b"),
    ("microwave", r"microwave"),
    ("coffee machine", r"coffee (machine|maker|brewer)|espresso machine"),
    ("toaster", r"toaster|sandwich maker"),
    ("kettle", r"kettle|teapot|boiler|coffee press"),
    ("oven", r"oven|stove|cooktop|induction|cooker"),
    ("toilet", r"^toilet(?! (paper|brush))|\bwc\b|urinal|bidet"),
    ("toilet paper", r"toilet paper|tissue"),
    ("bathtub", r"\bbath(tub)?\b|jacuzzi|\btub\b"),
    ("shower", r"shower"),
    ("sink", r"sink|washbasin|basin"),
    ("towel", r"towel"),
    ("mirror", r"mirror"),
    ("curtain", r"curtain|blind"),
    ("television", r"television|\btv\b(?! (stand|unit|table|furniture))|home cinema"),
    ("laptop", r"laptop"),
    ("keyboard", r"keyboard(?!.*piano)|^mouse"),
    ("computer", r"computer|\bpc\b|\bmac\b|playstation|dvd player"),
    ("monitor", r"monitor|screen(?! door)"),
    ("printer", r"printer|scanner|photocopier|fax"),
    ("telephone", r"phone"),
    ("loudspeaker", r"speaker|radio|stereo|hi-fi|amplifier|turntable|gramophone"),
    ("piano", r"piano"),
    ("guitar", r"guitar|violin|cello|drum"),
    ("desk lamp", r"desk lamp|table lamp|bedside lamp|reading lamp"),
    ("lamp", r"lamp|light|spot|chandelier|fluorescent|lantern|sconce|candle"),
    ("clock", r"clock|watch"),
    ("radiator", r"radiator|heater|convector"),
    ("fan", r"\bfan\b|air condition"),
    ("fireplace", r"fireplace|chimney"),
    ("stairs", r"stair|ladder"),
    ("wardrobe", r"wardrobe|closet|dressing(?! table)"),
    ("nightstand", r"nightstand|bedside|night table"),
    ("crib", r"crib|cot\b|cradle"),
    ("bunk bed", r"bunk"),
    ("bed", r"\bbed|futon|mattress"),
    ("high chair", r"high ?chair"),
    ("bar stool", r"bar (chair|stool)"),
    ("stool", r"stool|ottoman|pouf|puff|footrest"),
    ("bench", r"\bbench"),
    ("armchair", r"armchair|recliner|rocking chair|relax"),
    ("sofa", r"sofa|couch|settee|divan|chaise|loveseat"),
    ("office chair", r"office chair|swivel|desk chair"),
    ("chair", r"chair|\bseat\b"),
    ("coffee table", r"coffee table|low table|side table|end table"),
    ("tv stand", r"tv (stand|unit|table|furniture)"),
    ("desk", r"\bdesk\b|workbench|drawing table"),
    ("table", r"table(?! (tennis|fan|football))|island|\bbar\b|counter"),
    ("drawers", r"drawer|dresser|commode|chest of"),
    ("bookshelf", r"book ?(case|shel)|librar"),
    ("shelf", r"shel|rack"),
    ("cabinet", r"cabinet|cupboard|sideboard|buffet|vanity"),
    ("door", r"\bdoor"),
    ("window", r"window|shutter"),
    ("plant", r"plant|spathiphyllum|yucca|tulip|lily|bamboo|\btree\b|flower|cactus|bonsai|ficus|palm|orchid|ivy"),
    ("vase", r"vase|amphora|pottery|\bjar\b"),
    ("flower pot", r"pot\b(?!.*(coffee|tea))|planter"),
    ("book", r"book|magazine|newspaper|notepad"),
    ("bottle", r"bottle|milk|flacon|spray|shampoo"),
    ("wine glass", r"wine glass|cocktail|beer glass"),
    ("cup", r"\bcup\b|\bmug\b|tumbler|^glass|creamer"),
    ("plate", r"plate|dish|tray"),
    ("bowl", r"bowl"),
    ("cutlery", r"fork|spoon|knife|cutlery|kitchen tools|^tool$|utensil"),
    ("pan", r"\bpan\b|casserole|wok|saucepan|fryer"),
    ("food", r"bread|apple|fruit|cake|burger|hot dog|fries|steak|chicken|butter|sushi|yogurt|pizza"),
    ("scale", r"scale"),
    ("blender", r"blender|mixer|squeezer"),
    ("ball", r"ball\b"),
    ("trash can", r"trash|waste|dustbin|garbage|recycle|\bbin\b"),
    ("basket", r"basket"),
    ("bag", r"\bbag\b|backpack|handbag|purse"),
    ("suitcase", r"suitcase|luggage|trunc?k|briefcase"),
    ("shoe", r"shoe|boot|slipper|sneaker|mocassin"),
    ("clothes", r"coat|hat\b|shirt|jacket|hanger|dress\b|clothes|trousers|skirt|^suit$|^short|^cap$|helmet|glove"),
    ("ironing board", r"ironing"),
    ("iron", r"\biron\b"),
    ("vacuum cleaner", r"vacuum|broom|mop\b|shovel"),
    ("rug", r"\brug|carpet|doormat|\bmat\b|bathmat|tatami"),
    ("pillow", r"pillow|cushion"),
    ("picture", r"picture|painting|photo|poster|frame"),
    ("box", r"\bbox|crate|carton|chest"),
    ("bicycle", r"bicycle|\bbike"),
    ("sculpture", r"statue|sculpture|bust\b|figurine"),
    ("fitness machine", r"treadmill|exercise|fitness|dumbbell"),
    ("table tennis", r"table (tennis|football)|billiard|pool table"),
    ("tool", r"scissors|stapler|\bsaw\b|drill|hammer|screwdriver|grinder|pliers|tape|ruler"),
    ("pen", r"pencil|pen ?box|marker|brush|comb"),
    ("socket", r"socket|switch|outlet|\bplug\b|detector|cctv|intercom"),
)
RULES = tuple((name, re.compile(pattern)) for name, pattern in _RULES)
OTHER = "object"
CLASSES = (*SHELL, "worktop", *dict.fromkeys(name for name, _ in _RULES), OTHER)
"""Class names; a class id is an index into this tuple."""
CLASS_ID = {name: number for number, name in enumerate(CLASSES)}
OUTDOORS = ("Exterior", "Vehicles", "Staircases")
"""Categories that no room holds."""
NO_FURNITURE = re.compile(r"living room|street|park light|lamppost|porch|shipping|furnace|mower|dog house|pallet|fence")
"""Names of what stands in no room, or is a whole one."""


def classify(name: str, category: str = "", opening: bool = False) -> str:
    """The class of a thing by its English name; the category decides where the name tells nothing."""
    words = name.lower()
    found = next((each for each, pattern in RULES if pattern.search(words)), None)
    if opening and found not in ("door", "window"):
        return "window" if "window" in words else "door"
    if found is None and category == "Characters":
        return "person"
    return found or OTHER
