"""Tables of what came of all schemas with each engine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

from rich.table import Table

from constraining.judging import KEY_ORDER, Outcome, Verdict

Results: TypeAlias = Mapping[str, Sequence[Outcome]]
"""The outcomes of each engine, in the order of the schemas."""
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")
_PATH = re.compile(r"(\bat) [^\s:,]+(?=[:,]| )")
_NUMBER = re.compile(r"(?<![A-Za-z])\d+")
_WORDS = frozenset(
    "type enum const not anyOf oneOf allOf if then else properties required additionalProperties patternProperties "
    "propertyNames minProperties maxProperties dependencies dependentRequired dependentSchemas unevaluatedProperties "
    "items prefixItems additionalItems contains minContains maxContains minItems maxItems uniqueItems "
    "unevaluatedItems pattern format minLength maxLength minimum maximum exclusiveMinimum exclusiveMaximum "
    "multipleOf $ref $dynamicRef $recursiveRef $id $anchor id date time date-time duration email hostname ipv4 ipv6 "
    "uri uri-reference uuid regex json-pointer string number integer boolean object array null".split()
)
"""Quoted words that are left in a message, because they are JSON schema's own."""


def kind_of(message: str) -> str:
    """Return a message without what belongs to one schema: its paths, names and numbers."""

    def shortened(match: re.Match[str]) -> str:
        return match[0] if match[0][1:-1] in _WORDS else "…"

    line = message.strip().split("\n")[0]
    if '{"' in line:
        line = f"{line[: line.index('{')]}…"
    return _NUMBER.sub("#", _PATH.sub(r"\1 …", _QUOTED.sub(shortened, line)))[:150]


def groups_table(results: Results) -> Table:
    """Return how many schemas of each group every engine built."""
    table = _table("coverage", "schemas", *results)
    first = next(iter(results.values()))
    for group in dict.fromkeys(outcome.group for outcome in first):
        own = [[outcome for outcome in outcomes if outcome.group == group] for outcomes in results.values()]
        table.add_row(group, str(len(own[0])), *(str(_count(each, "built")) for each in own))
    return table


def totals_table(results: Results) -> Table:
    """Return coverage, building times, memory and failures of every engine. Times are those of all schemas built."""
    columns = ("built", "coverage", "refused", "too slow", "crashed", "p50 ms", "p90 ms", "max ms", "peak MB")
    table = _table("engine", *columns)
    for engine, outcomes in results.items():
        counts = [str(_count(outcomes, status)) for status in ("built", "refused", "too slow", "crashed")]
        times = sorted(1000 * outcome.built.seconds for outcome in outcomes if outcome.built.status == "built")
        quantiles = [f"{times[int(share * (len(times) - 1))]:.1f}" if times else "-" for share in (0.5, 0.9, 1.0)]
        peak = max(outcome.built.peak_memory for outcome in outcomes) >> 20
        coverage = f"{100 * int(counts[0]) / len(outcomes):.1f} %"
        table.add_row(engine, counts[0], coverage, *counts[1:], *quantiles, str(peak))
    return table


def instances_table(results: Results) -> Table:
    """Return what every engine does with the instances of the schemas that it built, and what its answers are."""
    table = _table("engine", "marked valid", "taken", "key order", "refused", "marked invalid", "taken ")
    for column in ("answers", "not valid", "key twice", "unjudged", "not checked"):
        table.add_column(column, justify="right")
    for engine, outcomes in results.items():
        verdicts = [verdict for _, verdict in verdicts_of(outcomes)]
        valid = [verdict for verdict in verdicts if verdict.valid]
        checked = [outcome.checked for outcome in outcomes if outcome.checked is not None]
        counts = (
            len(valid),
            sum(verdict.takes_written for verdict in valid),
            sum(verdict.reason == KEY_ORDER for verdict in valid),
            sum(not verdict.takes_written and not verdict.takes_reordered for verdict in valid),
            len(verdicts) - len(valid),
            sum(is_wrong(verdict) for verdict in verdicts),
            sum(each.answers for each in checked),
            sum(len(each.faults) for each in checked),
            sum(each.key_twice for each in checked),
            sum(each.unjudged for each in checked),
            sum(bool(outcome.unchecked) for outcome in outcomes),
        )
        table.add_row(engine, *map(str, counts))
    return table


def reasons_tables(results: Results, most: int = 15) -> Iterator[Table]:
    """Yield, for every engine, why schemas and valid instances were refused, the most frequent reasons first."""
    for engine, outcomes in results.items():
        refusals = Counter(
            f"{'' if outcome.built.status == 'refused' else 'crashed: '}{kind_of(outcome.built.message)}"
            for outcome in outcomes
            if outcome.built.status in ("refused", "crashed")
        )
        instances = Counter(
            verdict.reason for _, verdict in verdicts_of(outcomes) if verdict.valid and not verdict.takes_written
        )
        for title, counts in (("schemas refused", refusals), ("valid instances not taken", instances)):
            table = Table(f"{engine}: {title}", "", box=None)
            for reason, count in counts.most_common(most):
                table.add_row(reason, str(count))
            if rest := len(counts) - most if len(counts) > most else 0:
                table.add_row(
                    f"{rest} other reasons", str(sum(counts.values()) - sum(dict(counts.most_common(most)).values()))
                )
            if counts:
                yield table


def wrong(outcomes: Sequence[Outcome], doubtful: Collection[tuple[str, str]] = ()) -> Iterator[str]:
    """Yield a line for every invalid instance that is taken, and for every answer that is not valid.

    doubtful: names and texts of instances whose mark `jsonschema` disagrees with, which the lines say.
    """
    for outcome, verdict in verdicts_of(outcomes):
        if is_wrong(verdict):
            doubt = " (jsonschema takes it, too)" if (outcome.name, verdict.text) in doubtful else ""
            yield f"{outcome.name}: takes what is marked invalid{doubt}: {verdict.description}: {verdict.text:.300}"
    for outcome in outcomes:
        for text, fault in outcome.checked.faults if outcome.checked else ():
            yield f"{outcome.name}: an answer is not valid: {fault}: {text:.300}"


def is_wrong(verdict: Verdict) -> bool:
    """Whether an instance that is marked invalid is taken."""
    return not verdict.valid and (verdict.takes_written or verdict.takes_reordered)


def verdicts_of(outcomes: Sequence[Outcome]) -> Iterator[tuple[Outcome, Verdict]]:
    """Yield all verdicts, each with the outcome that it belongs to."""
    for outcome in outcomes:
        for verdict in outcome.checked.verdicts if outcome.checked else ():
            yield outcome, verdict


def disputed(outcomes: Sequence[Outcome], *, valid: bool) -> list[tuple[str, str]]:
    """Return the names and texts of the instances so marked of which the reference says the opposite."""
    return [
        (outcome.name, verdict.text)
        for outcome, verdict in verdicts_of(outcomes)
        if verdict.valid == valid and verdict.takes_written != valid
    ]


def _count(outcomes: Sequence[Outcome], status: str) -> int:
    return sum(outcome.built.status == status for outcome in outcomes)


def _table(first: str, *columns: str) -> Table:
    table = Table(first, *columns, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    return table
