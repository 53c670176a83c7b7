"""Options as data: fields that describe themselves, commands made of them, keywords and the reference page."""

from __future__ import annotations

import re
import runpy
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import pytest
from typer.testing import CliRunner

from mlx_diffgemma.cli.options import Chosen, CommonOptions
from mlx_diffgemma.cli.program import add_command, make_app
from mlx_diffgemma.constraint.spec import Choices, JsonSchema, Regex
from mlx_diffgemma.errors import ConstraintError, OptionError
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.generation_options import GenerationOptions, UnconstrainedOptions, configured, current_names
from mlx_diffgemma.option import Range, at_least, check_options, option, option_fields
from mlx_diffgemma.presets import FAST, FASTEST, PresetOptions

DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True, kw_only=True)
class Fruit:
    """Options to try things on."""

    name: str = option(MISSING, "What it is called.", "Fruit")
    count: int = option(3, "How many.", "Fruit", flags=("-c",), allowed=at_least(1))
    weight: float | None = option(None, "Of one.", "Fruit", allowed=Range("light", lambda value: value < 9), none=0)
    ripe: bool = option(False, "Whether it can be eaten.", "Taste")
    sweet: bool = option(True, "Whether it needs no sugar.", "Taste")
    colour: Literal["red", "green"] | None = option(None, "What it looks like.", "Taste")
    tags: tuple[str, ...] | None = option(None, "Words.", "Taste")
    notes: tuple[str, ...] = option((), "Sentences.", "Taste", flags=("--note",), default_text="none", repeated=True)

    def __post_init__(self) -> None:
        check_options(self)


def run(*arguments: str, partial: bool = False) -> tuple[int, str, list[Any]]:
    """Exit code, output, and what the command got, of a program with these options."""
    app, got = make_app(), []

    if partial:

        def taste(*, fruit: Annotated[dict[str, Any], Chosen(Fruit, without=("name",))], common: CommonOptions) -> None:
            """Taste."""
            got.extend([fruit, common])

    else:

        def taste(*, fruit: Fruit, common: CommonOptions) -> None:
            """Taste."""
            got.extend([fruit, common])

    taste.__annotations__ = get_type_hints(taste, {**globals()}, {"Fruit": Fruit}, include_extras=True)
    add_command(app, "taste --name apple")(taste)
    result = CliRunner().invoke(app, [*arguments])
    return result.exit_code, result.output, got


def test_a_dataclass_becomes_the_options_of_a_command() -> None:
    code, _, [fruit, common] = run("--name", "apple", "-c", "2", "--weight", "0", "--ripe", "--no-sweet", "-q")
    assert code == 0
    assert fruit == Fruit(name="apple", count=2, weight=None, ripe=True, sweet=False)
    assert (common.quiet, common.debug) == (True, False)
    assert run("--name", "fig", "--tags", "a, b")[2][0] == Fruit(name="fig", tags=("a", "b"))
    noted = Fruit(name="fig", notes=("a, b", " c\n"))
    assert run("--name", "fig", "--note", "a, b", "--note", " c\n")[2][0] == noted
    assert run("--count", "2")[0] == 2
    assert run("--name", "fig", "--count", "many")[0] == 2


def test_a_chosen_mapping_holds_only_what_was_given() -> None:
    assert run(partial=True)[2][0] == {}
    assert run("--weight", "0", "--no-ripe", "--tags", "a,b", "--note", "c,d", partial=True)[2][0] == {
        "weight": None,
        "ripe": False,
        "tags": ("a", "b"),
        "notes": ("c,d",),
    }
    assert run("--name", "x", partial=True)[0] == 2


def test_an_error_of_an_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, output, got = run("--name", "fig", "--count", "0")
    assert (code, got) == (1, [])
    assert output == "error: --count 0 must be at least 1\n"


def test_help_has_a_heading_per_panel_and_ends_with_the_examples() -> None:
    code, output, _ = run("-h")
    assert code == 0
    headings = [line for line in output.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Fruit:", "Taste:", "Output:", "Other:", "Examples:"]
    assert output.splitlines()[-1] == "  taste --name apple"
    assert "--colour <red|green>" in output
    assert "What it is called. [required]" in output
    assert "How many. [default: 3]" in output
    assert "--sweet / --no-sweet" in output
    assert "--no-ripe" not in output
    assert "completion" not in output


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": 5}, "name=5 must be text"),
        ({"count": 1.5}, "count=1.5 must be a whole number"),
        ({"count": True}, "count=True must be a whole number"),
        ({"count": 0}, "count=0 must be at least 1"),
        ({"weight": "a"}, "weight='a' must be a number, or None"),
        ({"weight": 10}, "weight=10 must be light, or None"),
        ({"ripe": 1}, "ripe=1 must be True or False"),
        ({"colour": "blue"}, "colour='blue' must be red or green, or None"),
    ],
)
def test_a_value_of_a_wrong_type_or_out_of_range_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}$"):
        Fruit(**{"name": "apple", **values})


def test_every_field_of_a_generation_is_an_option_and_a_keyword() -> None:
    said = {"regex", "json_schema", "choices"}
    fields = set(GenerationConfig.__dataclass_fields__)
    # The constraint is said by three options of its own.
    assert set(option_fields(GenerationConfig)) == fields - {"constraint"} | said
    keywords = set(GenerationOptions.__annotations__) | set(UnconstrainedOptions.__annotations__)
    presets = set(option_fields(PresetOptions))
    assert keywords == fields | said | presets
    assert keywords - set(UnconstrainedOptions.__annotations__) == said | {"constraint"}
    wider = {"stop_tokens", "stop"}
    ours, theirs = get_type_hints(GenerationConfig), get_type_hints(GenerationOptions)
    assert {name: ours[name] for name in fields - wider} == {name: theirs[name] for name in fields - wider}


def test_options_are_put_over_a_config() -> None:
    base = GenerationConfig(constraint=Regex("a"), seed=3)
    assert configured(base, {}) is base
    assert configured(base, {"seed": 4, "canvas_length": None}) == replace(base, seed=4)
    assert configured(base, {"choices": ["a", "b"]}) == replace(base, constraint=Choices(("a", "b")))
    assert configured(base, {"regex": None}) == base
    assert configured(base, {"stop_tokens": [4]}).stop_tokens == (4,)
    free = GenerationConfig()
    assert configured(free, {"stop": "END"}) == configured(free, {"stop": ["END"]}) == replace(free, stop=("END",))
    schema = {"type": "integer"}
    assert configured(base, {"json_schema": schema}) == replace(base, constraint=JsonSchema(schema))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sead": 1}, "'sead' is not an option: did you mean 'seed'?"),
        ({"choices": "a"}, "choices='a' must be a list of texts"),
        ({"regex": "a", "choices": ["a"]}, "regex and choices cannot both be kept"),
        ({"thinking": "yes"}, "thinking='yes' must be True or False"),
        ({"stop_tokens": 5}, "stop_tokens=5 must be a tuple of token ids"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        configured(GenerationConfig(), options)
    with pytest.raises(ConstraintError, match="the schema none cannot be read"):
        configured(GenerationConfig(), {"json_schema": "none"})


def test_a_preset_is_put_under_the_other_options() -> None:
    base = GenerationConfig(seed=3, max_steps=9, trim=True)
    assert configured(base, {"fast": True}) == replace(base, **FAST)
    assert configured(base, {"fastest": True, "min_steps": 2}) == replace(base, **{**FASTEST, "min_steps": 2})
    slow = configured(base, {"fast": True, "mean_entropy": None, "fastest": False})
    assert slow == replace(base, **{**FAST, "mean_entropy": None})
    assert configured(base, {"exact": True, "seed": 4}) == replace(base, seed=4).exact()
    assert configured(base, {"fast": False}) == base
    help_text = option_fields(PresetOptions)["fast"].option.help
    assert "--max-steps 24 --mean-entropy 0.05 --min-steps 8 --first-canvas 64;" in help_text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fast": True, "exact": True}, "exact=True and fast=True exclude each other: choose one"),
        ({"fast": True, "mode": "causal"}, "fast=True has no effect with mode=causal: leave it out"),
        ({"fast": 1}, "fast=1 must be True or False"),
        ({"fasttest": True}, "'fasttest' is not an option: did you mean 'fastest'?"),
    ],
)
def test_presets_that_cannot_be_used_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        configured(GenerationConfig(), options)


def test_earlier_names_are_known() -> None:
    assert current_names({"stability": 2, "confidence": 0.1, "seed": 1}) == {
        "stability_threshold": 2,
        "confidence_threshold": 0.1,
        "seed": 1,
    }


def test_the_reference_page_is_up_to_date() -> None:
    page = runpy.run_path(str(DOCS / "make_options.py"))["page"]()
    assert (DOCS / "options.md").read_text(encoding="utf-8") == page, "run python docs/make_options.py"
