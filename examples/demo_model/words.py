"""The words of the questions; each is one piece of the tokenizer, in questions and in answers."""

from __future__ import annotations

NAMES = (
    "Ada Alan Alice Amir Ana Anna Ben Bob Carla Carlos Clara Dan David Diego Elena Emil Emma Eva Felix Finn "
    "Grace Hana Hugo Ida Igor Ines Ivan Jack Jane Jonas Julia Kai Karl Kate Lars Laura Leo Lily Lucas Lucy "
    "Maria Mark Marta Max Mia Nadia Nina Noah Nora Olga Omar Oscar Paul Peter Rosa Sam Sara Tom Vera Zoe"
).split()

CITIES = (
    "Amsterdam Athens Berlin Bern Boston Cairo Chicago Copenhagen Dakar Delhi Denver Dublin Geneva Hamburg "
    "Hanoi Havana Helsinki Istanbul Kyoto Lagos Lima Lisbon London Madrid Miami Milan Mumbai Munich Nairobi "
    "Oslo Paris Prague Quito Rome Seoul Sydney Tokyo Vienna Warsaw Zurich"
).split()

WORDS = (
    "ant apple apricot banana bear bee berry boat book bread bridge butter camel carrot castle cat cherry "
    "cloud coconut cow crab deer desk dog dolphin donkey duck eagle elephant fig fish flower forest fox frog "
    "garden giraffe goat grape hammer hat horse island jacket kite kiwi lamp lemon lion mango melon monkey "
    "moon mouse mushroom needle olive onion orange owl panda peach pear pencil piano plum rabbit river rocket "
    "salt sheep spoon star table tiger tomato violin whale wolf zebra"
).split()

FUNCTIONS = (
    "area amount balance blend change combine compare compute cost dose fare gain growth income measure "
    "payment profit rating reward score spread tally tax volume"
).split()

ARGUMENTS = (
    "width height length depth price total speed time first second left right base rate size weight "
    "units points hours days x y m n"
).split()
