"""A few real words besides those of the demo model, so that made-up spellings are not all that training sees."""

from __future__ import annotations

from demo_model import words

WORDS = (
    *words.WORDS,
    *(
        "red green blue yellow small big old new good bad hot cold fast slow happy quiet the and with from over under "
        "run walk sing read write play sleep jump swim fly house tree road door window water fire wind snow rain sun "
        "paper stone glass wood iron gold silver music picture letter number morning evening night winter summer"
    ).split(),
)

JOBS = (
    "actor artist author baker barber builder butcher carpenter chef clerk cook dancer dentist doctor driver editor "
    "engineer farmer firefighter gardener judge lawyer librarian mechanic miner musician nurse painter pilot plumber "
    "poet programmer sailor scientist singer soldier tailor teacher waiter writer"
).split()
