"""The built-in suites.

    full              six prompts for a model of the release's size
    demo              seven questions for the demo model in the package, one of each kind that it knows
    demo-accuracy     600 questions, 100 of each kind
    demo-infill       260 texts with gaps: values, numbers, function bodies, sudokus
    demo-constrained  240 questions, free and with a constraint, also under options that make free answers fail

The first two are below; a check there accepts a right answer in any wording and hardly ever a wrong one. The others are
files in the folder `suites`, written by examples/demo_model/suites.py. The demo model's training held out every
question except for the greeting.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlx_diffgemma.benchmark import SuiteName
from mlx_diffgemma.benchmark.checks import Check, ExactCheck, JsonCheck, RegexCheck, schema_check
from mlx_diffgemma.benchmark.suite import Case, Suite, read_suite

SMALL_CANVAS = 64
"""A model with shorter canvases is too small for the suite full; the suite demo is its default."""

PRESENT = """\
The ferry Aurelia leaves the quay at Port Ellis at 6:40 every morning, and Mara Voss stands at its wheel. She is the \
third captain of the line and the first who is born on the island. The crossing to Sand Bay is eleven miles long and \
takes fifty minutes when the sea is calm. On most days it is not. In winter the wind comes from the north, the waves \
are as tall as the rail, and the passengers are glad when the breakwater comes into sight.

There are 214 seats on board and a deck for 36 cars. On weekdays the first boat carries nurses, carpenters, two \
teachers and a crowd of sleepy pupils, because the island has no secondary school. Old Mr. Albrecht, who sells \
tickets from a wooden booth, knows all of them by name. He is seventy-eight and has no plans to stop. When somebody \
forgets a purse, he writes the sum into a grey notebook, and at the end of the month the notebook is always settled.

At eight the Aurelia is in Sand Bay, where the mail comes aboard: six sacks on Mondays, three on other days. The \
mate, a quiet man called Iven, checks every sack against a list and locks them in the forward cabin. Then the crates \
of vegetables are loaded, then the newspapers, then the bread. The bread is last because it is still warm, and \
nobody wants it under the cabbages. By 8:25 the ropes are off and the boat is on its way back.

The engine is older than the captain. It is a diesel of 1,240 horsepower, built in 1961, and its sound is so even \
that babies fall asleep to it. Joost, the engineer, keeps it in a state that makes inspectors smile. He oils, he \
listens, he writes numbers on a slate. Twice a year he takes the whole machine apart, lays its pieces on white \
sheets in the winter shed, and puts it together again without a screw left over. The company wants to replace it \
with two electric motors. Joost says nothing about that, but he keeps a photograph of the engine in his wallet.

In the afternoon the crew has three hours of rest. Mara walks up to the lighthouse, which is empty now, and eats her \
bread on its steps. From there she sees the whole strait: the fishing boats, the buoys, the long grey tankers on the \
horizon. She counts the sails and notes the weather in a small red book. There are 19 such books on the shelf in her \
kitchen, one for every year of her service. At half past three she goes down again, for the last boat is the one \
that matters most. It brings everyone home. The pupils are awake now and loud, the nurses are tired, the carpenters \
smell of pine. When the lamps of Port Ellis appear, the noise stops for a moment, as it does every evening, and then \
somebody laughs and the ropes fly to the quay."""
"""About 500 words, all of them in the present tense."""

CODE_WITH_GAP = '''\
"""Free time slots of a meeting room."""

OPENING, CLOSING = 8 * 60, 18 * 60


def minutes(clock):
    """Minutes since midnight: "09:30" -> 570."""
    hours, rest = clock.split(":")
    return int(hours) * 60 + int(rest)


def merge(bookings):
    """Join bookings that overlap or touch: [(1, 4), (3, 6), (8, 9)] -> [(1, 6), (8, 9)]."""
    merged = []
    for start, end in sorted(bookings):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], <GAP>)
        else:
            merged.append((start, end))
    return merged


def free(bookings):
    """The stretches between OPENING and CLOSING in which nobody has booked the room."""
    slots, begin = [], OPENING
    for start, end in merge(bookings):
        if start > begin:
            slots.append((begin, start))
        begin = max(begin, end)
    return slots + [(begin, CLOSING)] if begin < CLOSING else slots'''

MAIL = """\
Hello, this is Ines Carvalho from the Almond Street bakery. For next Thursday I need 12 bags of rye flour at 18.50 \
euros a bag and 3 buckets of honey at 42 euros each. The old order of 20 boxes of yeast is cancelled, please do not \
send it. We are at 17 Almond Street, Lisbon. Thank you!"""

PASSAGE = """\
The Kestrel Bridge was proposed in 1868, when the ferry at Harrow's Bend could no longer carry the wagons of the two \
paper mills. The county refused to pay for it three times. Work began in 1874, after a widow named Adela Brandt, who \
owned the larger mill, offered half of the money on the condition that no toll would ever be taken. Her engineer \
chose wrought iron over stone because the river bed was soft on the eastern side. A flood carried off the \
scaffolding in the spring of 1876, and two workers died. The bridge was opened in October 1879, five years late by \
its first plan and one year late by its last.

It carried wagons, then trams, then cars. In 1931 its deck was widened by two metres, and in 1958 the trams were \
given up. By then rust had eaten so far into the lower chords that lorries were banned. In 1983 the council voted to \
pull the bridge down, but a petition with 11,400 names made it change its mind the year after, and the repair was \
finished in 1990. Since then the bridge has been open to pedestrians and bicycles only. A brass plate on the western \
pier still quotes the words of the gift: free to all, for good."""

_ORDER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "customer": {"const": "Ines Carvalho"},
        "city": {"const": "Lisbon"},
        "items": {
            "type": "array",
            "minItems": 2,
            "maxItems": 2,
            "prefixItems": [
                {"type": "object", "properties": {"quantity": {"const": 12}, "price": {"const": 18.5}}},
                {"type": "object", "properties": {"quantity": {"const": 3}, "price": {"const": 42}}},
            ],
            "items": {"type": "object", "required": ["product", "quantity", "price"]},
        },
    },
    "required": ["customer", "city", "items"],
    "additionalProperties": False,
}


def default_suite(canvas_length: int) -> SuiteName:
    """Return the name of the suite for a model of this canvas length that is asked without --suite."""
    return "demo" if canvas_length < SMALL_CANVAS else "full"


def built_in_suite(name: SuiteName) -> Suite:
    """Return the built-in suite of a name.

    Raises BenchmarkError for a suite with a json_schema check if the packages of the extra [bench] are missing.
    """
    match name:
        case "full":
            return full()
        case "demo":
            return demo()
        case _:
            return replace(read_suite(Path(__file__).parent / "suites" / f"{name}.jsonl"), name=name)


def full() -> Suite:
    """Return a short chat, a rewrite of 500 words, code with a gap, JSON, an answer from a passage, a long count."""
    return Suite(
        name="full",
        cases=(
            Case(
                name="chat",
                prompt="In one sentence: why do we see lightning before we hear the thunder?",
                check=_found(r"(?is)(?=.*\blight)(?=.*\b(?:fast|slow|quick|speed))"),
                max_tokens=256,
            ),
            Case(
                name="rewrite",
                prompt=f"Rewrite this text in the past tense. Change nothing else.\n\n{PRESENT}",
                check=_found(
                    # 400 words or more, the figures and names of the text, none of five verbs in the present tense.
                    r"(?s)\A\s*(?=(?:\S+\s+){400})(?=.*\bwas\b)(?=.*\bwalked\b)(?=.*\b6:40\b)(?=.*\b214\b)"
                    r"(?=.*\b1,?240\b)(?=.*\bAlbrecht\b)(?=.*\bJoost\b)(?!.*\b(?:leaves|takes|carries|walks|sees)\b)"
                ),
                max_tokens=1024,
            ),
            Case(
                name="code",
                prompt=f"What stands in place of <GAP>? Give that expression only.\n\n```python\n{CODE_WITH_GAP}\n```",
                check=_found(
                    r"max\(\s*(?:merged\[-1\]\[1\]\s*,\s*end|end\s*,\s*merged\[-1\]\[1\])\s*\)",
                ),
                max_tokens=256,
            ),
            Case(
                name="json",
                prompt=(
                    "Write this order as a JSON object with the keys customer, city and items, a list of objects with "
                    f"product, quantity and price, in the order of the mail. Answer with the JSON only.\n\n{MAIL}"
                ),
                check=schema_check("prompt json of the suite full", _ORDER_SCHEMA),
                max_tokens=256,
            ),
            Case(
                name="passage",
                prompt=f"{PASSAGE}\n\nIn which year was it decided that the bridge would stay? Answer with the year.",
                check=_found(r"\A\D*1984\D*\Z"),
                max_tokens=256,
            ),
            Case(
                name="count",
                prompt="Count from 1 to 200. Write nothing but the numbers, separated by spaces.",
                check=_counted(1, 200),
                max_tokens=1024,
            ),
        ),
    )


def demo() -> Suite:
    """Return a question of every kind that the demo model knows."""
    return Suite(
        name="demo",
        cases=(
            _small("sudoku", "Solve this sudoku:\n1.43\n.31.\n3...\n.13.", ExactCheck(text="1243\n4312\n3421\n2134")),
            _small("sum", "What is 90 + 48?", _found(r"=\s*138\s*\Z")),
            _small(
                "json",
                "Give JSON: Vera is 56 and lives in Copenhagen.",
                JsonCheck(value={"name": "Vera", "age": 56, "city": "Copenhagen"}),
            ),
            _small("count", "Count from 174 to 190", _counted(174, 190)),
            _small("sort", "Sort: lamp, boat, rocket, apple", ExactCheck(text="apple, boat, lamp, rocket")),
            _small(
                "function",
                "Write a Python function growth that adds n and time",
                _found(r"\A\s*def growth\(n, time\):\n\s+return (?:n \+ time|time \+ n)\s*\Z"),
            ),
            _small("hello", "Hello", _found(r"(?s)\AHello! I am a small DiffusionGemma.*function\.\s*\Z")),
        ),
    )


def _small(name: str, prompt: str, check: Check) -> Case:
    # The longest right answer has 52 tokens.
    return Case(name=name, prompt=prompt, check=check, max_tokens=96)


def _found(pattern: str) -> RegexCheck:
    return RegexCheck(pattern=re.compile(pattern))


def _counted(first: int, last: int) -> RegexCheck:
    """Accept every number once and in order, with any separators and nothing else."""
    return _found(r"\A\W*" + r"\W+".join(map(str, range(first, last + 1))) + r"\W*\Z")
