"""Second turns: a question that refers to the answer before, and one that does not."""

from __future__ import annotations

from collections.abc import Callable

from demo_next import arithmetic, counting, edits, functions, records, sorting, talk
from demo_next.question import Question
from demo_next.source import Source

ADD = [
    "plus {}",
    "and plus {}",
    "add {}",
    "now add {}",
    "and {} more",
    "Plus {}?",
    "and plus {}?",
    "plus {}?",
    "What about plus {}?",
]
SUBTRACT = [
    "minus {}",
    "and minus {}",
    "subtract {}",
    "now subtract {}",
    "and {} less",
    "Minus {}?",
    "and minus {}?",
    "minus {}?",
]
OTHER_WAY = [
    "sort them the other way", "Sort them the other way", "the other way", "the other way round",
    "The other way around", "reverse them",
    "and in reverse order", "now in reverse", "in reverse order, please", "Reverse the order", "and descending?",
    "the other way, please",
]  # fmt: skip
UPPER = [
    "make it upper case", "Make it upper case", "in upper case", "now in upper case", "and in upper case?",
    "upper case, please",
    "Upper case", "in capitals", "make them upper case", "the same in upper case",
]  # fmt: skip
DOWN = [
    "now down",
    "and down?",
    "now backwards",
    "and backwards?",
    "the other way",
    "Now count down",
    "in reverse order",
    "and back?",
]
ADD_KEY = [
    "add the {key} {value}",
    "and the {key} is {value}",
    "add {key}: {value}",
    "with the {key} {value}",
    "Add the {key} {value}.",
]
CHANGE_AGE = ["make the age {}", "change the age to {}", "the age is {}", "Make the age {}.", "set the age to {}"]
RENAME = ["call it {}", "rename it to {}", "name it {}", "Call it {}.", "call the function {}"]
AND_NOW = ["and {}?", "And {}?", "now {}", "what about {}?", "What about {}?", "and {}"]


def second_turn(source: Source) -> Question:
    """Return a question that only the turn before makes clear."""
    return source.rng.choices(list(WAYS), list(WAYS.values()))[0](source)


def after(first: Question, prompt: str, answer: str) -> Question:
    """Return a second turn after a first question and its answer."""
    return Question(
        kind="second turn", prompt=prompt, answer=answer, before=(*first.before, first.prompt, first.answer)
    )


def more_or_less(source: Source) -> Question:
    """Return a sum, then something added to its result or subtracted from it."""
    first = arithmetic.sums(source)
    value = int(first.answer.split()[-1])
    other = source.number(99)
    adds = source.chance(0.5)
    content = f"{value} {'+' if adds else '-'} {other}"
    answer = f"{content} = {value + other if adds else value - other}"
    return after(first, source.pick(ADD if adds else SUBTRACT).format(other), answer)


def another_sum(source: Source) -> Question:
    """Return a sum, then another."""
    second = arithmetic.sums(source)
    left, sign, right, _, _ = second.answer.split()
    prompt = source.pick(AND_NOW).format(arithmetic.written(source, int(left), sign, int(right)))
    return after(arithmetic.sums(source), prompt, second.answer)


def sorted_the_other_way(source: Source) -> Question:
    """Return a list to be sorted, then in reverse order."""
    first = sorting.sort(source)
    return after(first, source.pick(OTHER_WAY), ", ".join(reversed(first.answer.split(", "))))


def in_capitals(source: Source) -> Question:
    """Return an answer of words, then the same in upper case."""
    first = source.pick((sorting.sort, edits.reversed_words, edits.replaced_word, edits.one_line))(source)
    return after(first, source.pick(UPPER), first.answer.upper())


def counted_down(source: Source) -> Question:
    """Return a short count, then the same count down."""
    first = counting.counting(source, source.rng.randint(2, 14))
    return after(first, source.pick(DOWN), " ".join(reversed(first.answer.split())))


def record_changed(source: Source) -> Question:
    """Return a record, then another value in it or another key."""
    sentence, fields = records.classic(source)
    first = Question(kind="json", prompt=source.pick(records.ASK).format(sentence), answer=records.written(fields))
    if source.chance(0.4) and any(field.key == "age" for field in fields):
        age = records.aged(source)
        changed = [age if field.key == "age" else field for field in fields]
        return after(first, source.pick(CHANGE_AGE).format(age.text), records.written(changed))
    key = source.pick(("job", "email", "team", "color", "price", "country"))
    field = records.valued(source, key)
    return after(first, source.pick(ADD_KEY).format(key=key, value=field.text), records.written([*fields, field]))


def renamed(source: Source) -> Question:
    """Return a function, then the same with another name."""
    first = functions.function(source)
    name = source.identifier()
    old = first.answer[4 : first.answer.index("(")]
    return after(first, source.pick(RENAME).format(name), first.answer.replace(f"def {old}(", f"def {name}(", 1))


def something_new(source: Source) -> Question:
    """Return a question that has nothing to do with the one before."""
    kinds: tuple[Callable[[Source], Question], ...] = (
        arithmetic.sums, sorting.sort, records.record, functions.function, edits.edit, talk.chat, talk.anything_else,
    )  # fmt: skip
    first, second = source.pick(kinds)(source), source.pick(kinds)(source)
    return after(first, second.prompt, second.answer)


WAYS: dict[Callable[[Source], Question], int] = {
    more_or_less: 22,
    another_sum: 10,
    sorted_the_other_way: 18,
    in_capitals: 15,
    counted_down: 6,
    record_changed: 9,
    renamed: 5,
    something_new: 15,
}
"""How often each way is asked for, in percent."""
