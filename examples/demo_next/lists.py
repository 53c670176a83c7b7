"""A few real names, cities and words, so that made-up spellings are not all that training sees."""

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
    "salt sheep spoon star table tiger tomato violin whale wolf zebra "
    "red green blue yellow small big old new good bad hot cold fast slow happy quiet the and with from over under "
    "run walk sing read write play sleep jump swim fly house tree road door window water fire wind snow rain sun "
    "paper stone glass wood iron gold silver music picture letter number morning evening night winter summer"
).split()

JOBS = (
    "actor artist author baker barber builder butcher carpenter chef clerk cook dancer dentist doctor driver editor "
    "engineer farmer firefighter gardener judge lawyer librarian mechanic miner musician nurse painter pilot plumber "
    "poet programmer sailor scientist singer soldier tailor teacher waiter writer"
).split()
