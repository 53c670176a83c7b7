"""Sentences to be turned into JSON: who somebody is, what something costs, or any keys and values."""

from __future__ import annotations

import json
from dataclasses import dataclass

from demo_next.lists import JOBS
from demo_next.question import Question
from demo_next.source import Source

OLDEST = 120
ASK = [
    *["Give JSON: {}"] * 6, "Give JSON: {}.", "Give JSON: {}.", "give json: {}", "Give me JSON: {}",
    "Turn into JSON: {}", "Turn into JSON: {}.",
    "Convert to JSON: {}", "Convert to JSON: {}.", "JSON: {}", "json: {}", "Write JSON: {}", "Make JSON: {}",
    "Write as JSON: {}",
    "As JSON: {}", "To JSON: {}", "Return JSON: {}", "JSON for {}", "Write JSON for {}", "Give JSON for {}",
    "Give the JSON for {}",
    "Turn this into JSON: {}", "Make this JSON: {}", "Extract JSON: {}", "{} as JSON", "{}. Give JSON.",
    "Put into JSON: {}.",
    "Please give JSON: {}", "Create JSON: {}", "Format as JSON: {}",
]  # fmt: skip
AGE = [
    "is {}",
    "is {}",
    "is {} years old",
    "is {} years old",
    "aged {}",
    "{} years old",
    "who is {}",
    "age {}",
    "({})",
    ", {}",
]
CITY = [
    "lives in {}",
    "lives in {}",
    "from {}",
    "is from {}",
    "comes from {}",
    "in {}",
    "of {}",
    "living in {}",
    "who lives in {}",
    "city {}",
]
JOB = ["works as {}", "is {}", "a job as {}", "who works as {}", "job {}", ", {}"]
EMAIL = ["email {}", "has the email {}", "with email {}", "can be reached at {}", "whose email is {}"]
PHONE = ["phone {}", "has the phone number {}", "with phone {}", "whose number is {}"]
PRICE = [
    "costs {}",
    "costs {}",
    "is {} dollars",
    "costs {} euros",
    "for {}",
    "at a price of {}",
    "price {}",
    "sells for {}",
]
COUNTRY = ["country {}", "in the country {}"]
MARKS = [", ", " and ", ", and ", " "]
KEYS = (
    "id title year color size team score rating stock amount weight height width length country language status "
    "email phone price quantity author genre brand model speed level rank points date time place street code type "
    "unit total"
).split()


@dataclass(frozen=True)
class Field:
    """A key, its value as text, and whether the value is a number."""

    key: str
    text: str
    number: bool = False

    def json(self) -> str:
        """Return the field as JSON has it; a number keeps its digits."""
        return f"{json.dumps(self.key)}: {self.text if self.number else json.dumps(self.text, ensure_ascii=False)}"


def record(source: Source) -> Question:
    """Return a sentence to be turned into JSON."""
    way = source.rng.random()
    if way < 0.55:
        sentence, fields = classic(source)
    elif way < 0.75:
        sentence, fields = person(source)
    elif way < 0.85:
        sentence, fields = thing(source)
    else:
        sentence, fields = pairs(source)
    return Question(kind="json", prompt=source.pick(ASK).format(sentence), answer=written(fields))


def written(fields: list[Field]) -> str:
    """Return the fields as one JSON object."""
    return "{" + ", ".join(field.json() for field in fields) + "}"


def named(source: Source) -> Field:
    """Return a person's name."""
    return Field("name", source.name())


def aged(source: Source) -> Field:
    """Return an age."""
    return Field("age", str(source.rng.randint(1, OLDEST)), number=True)


def classic(source: Source) -> tuple[str, list[Field]]:
    """Return a name, an age and a city in one of the usual sentences."""
    name, age, city = named(source), aged(source), Field("city", source.city())
    years = f"{age.text} year{'s' * (age.text != '1')}"
    words = {"name": name.text, "age": age.text, "city": city.text, "years": years}
    phrase, keys = source.pick(SENTENCES)
    fields = {"n": name, "a": age, "c": city}
    return phrase.format(**words), [fields[key] for key in keys]


SENTENCES = [
    *[("{name} is {age} and lives in {city}", "nac")] * 4,
    ("{name} lives in {city} and is {years} old", "nca"),
    ("{name} is {years} old and lives in {city}", "nac"),
    ("{name} is {years} old and comes from {city}", "nac"),
    ("{name}, {age}, from {city}", "nac"),
    ("{name}, {age}, {city}", "nac"),
    ("{name}, {years} old, lives in {city}", "nac"),
    ("{name} from {city}, who is {age}", "nca"),
    ("{name} from {city} is {age}", "nca"),
    ("{name} ({age}) lives in {city}", "nac"),
    ("{name} ({age}, {city})", "nac"),
    ("{name} of {city} is {years} old", "nca"),
    ("my name is {name}, I am {age} and I live in {city}", "nac"),
    ("I am {name}, {age}, from {city}", "nac"),
    ("I'm {name}, I'm {years} old and I live in {city}", "nac"),
    ("a person called {name}, age {age}, living in {city}", "nac"),
    ("{age}-year-old {name} lives in {city}", "anc"),
    ("{name} lives in {city}", "nc"),
    ("{name} is {years} old", "na"),
    ("{name} is {age}", "na"),
    ("{name} is from {city}", "nc"),
    ("name {name}, age {age}, city {city}", "nac"),
]


def person(source: Source) -> tuple[str, list[Field]]:
    """Return a name and two or three facts in any order."""
    facts = [
        (aged(source), AGE),
        (Field("city", source.city()), CITY),
        (Field("job", job(source)), JOB),
        (Field("email", email(source)), EMAIL),
        (Field("phone", phone(source)), PHONE),
    ]
    chosen = [
        facts[n]
        for n in sorted(source.rng.sample(range(5), source.rng.randint(1, 3)), key=lambda _: source.rng.random())
    ]
    name = named(source)
    sentence = name.text
    for n, (field, phrases) in enumerate(chosen):
        phrase = source.pick(phrases)
        text = (
            with_article(field.text)
            if field.key == "job" and phrase in ("works as {}", "is {}", "a job as {}", ", {}", "who works as {}")
            else field.text
        )
        clause = phrase.format(text)
        if clause.startswith(","):
            sentence += clause
        else:
            sentence += (source.pick(MARKS[:3]) if n else source.pick([" ", " ", ", "])) + clause
    return sentence, [name, *(field for field, _ in chosen)]


def thing(source: Source) -> tuple[str, list[Field]]:
    """Return what something costs, sometimes with a number in stock."""
    name = Field("name", source.word() if source.chance(0.6) else f"{source.word()} {source.word()}")
    price = Field("price", amount(source), number=True)
    text = name.text if source.chance(0.6) else source.pick(("The ", "the ", "A ", "a ")) + name.text
    sentence = f"{text} {source.pick(PRICE).format(price.text)}"
    if source.chance(0.7):
        return sentence, [name, price]
    stock = Field("stock", str(source.number()), number=True)
    phrase = source.pick((", stock {}", " and stock {}", ", there are {} in stock", " and there are {} in stock"))
    return sentence + phrase.format(stock.text), [name, price, stock]


def pairs(source: Source) -> tuple[str, list[Field]]:
    """Return keys with their values, in one of several notations."""
    fields: dict[str, Field] = {}
    for _ in range(source.rng.randint(1, 4)):
        key = source.pick(
            ("name", "age", "city", "job", "email", "price", *source.rng.sample(KEYS, 8), source.word(), source.word())
        )
        fields[key] = valued(source, key)
    between, joined = source.pick(
        ((": ", ", "), (" ", ", "), ("=", ", "), (" = ", ", "), (" is ", ", "), ("=", " "), (": ", "; "))
    )
    if any(" " in field.text for field in fields.values()):
        joined = ", "
    return joined.join(f"{field.key}{between}{field.text}" for field in fields.values()), list(fields.values())


def valued(source: Source, key: str) -> Field:
    """Return a value of the kind that a key has."""
    texts = {"name": source.name, "city": source.city, "job": lambda: job(source), "email": lambda: email(source)}
    numbers = {"age": lambda: str(source.rng.randint(1, OLDEST)), "price": lambda: amount(source)}
    if key in texts:
        return Field(key, texts[key]())
    if key in numbers:
        return Field(key, numbers[key](), number=True)
    if source.chance(0.4):
        return Field(key, str(source.number(9999)), number=True)
    return Field(key, source.word() if source.chance(0.7) else source.name())


def job(source: Source) -> str:
    """Return a job."""
    return source.word(10, 4) if source.chance(0.5) else source.pick(JOBS)


def with_article(text: str) -> str:
    """Return a word with "a" or "an" before it."""
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def email(source: Source) -> str:
    """Return an address for mail."""
    second = source.pick(("", "", f".{source.word()}", str(source.rng.randrange(100))))
    return f"{source.word()}{second}@{source.word()}.{source.pick(('com', 'org', 'net', 'de', 'io', 'example'))}"


def phone(source: Source) -> str:
    """Return a number to call."""
    return f"{source.rng.randint(100, 999)}-{source.rng.randint(1000, 9999)}"


def amount(source: Source) -> str:
    """Return a price: whole, or with two decimals."""
    if source.chance(0.5):
        return str(source.number() + 1)
    return f"{source.number()}.{source.rng.randrange(1, 10)}{source.rng.randint(1, 9)}"
