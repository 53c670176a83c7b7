"""The shapes of messages: what is read, what is joined, and what is refused with its position."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_diffgemma.errors import PromptError
from mlx_diffgemma.text.messages import Text, Thought, Turn, chat_messages, conversation

HI = {"role": "user", "content": "Hi"}


def part(text: str, kind: str = "text") -> dict[str, str]:
    return {"type": kind, "text": text}


def user(text: str) -> Turn:
    return Turn("user", (Text(text),))


@pytest.mark.parametrize(
    ("message", "turn"),
    [
        (HI, user("Hi")),
        ({"role": "user", "content": ""}, user("")),
        ({"role": "user", "content": [part("a "), part("b", "input_text")]}, Turn("user", (Text("a "), Text("b")))),
        ({"role": "user", "content": (part("a"),)}, user("a")),
        ({"role": "developer", "content": "Be brief."}, Turn("system", (Text("Be brief."),))),
        ({"role": "assistant", "content": [part("a", "output_text")]}, Turn("assistant", (Text("a"),))),
        ({"role": "assistant", "content": None}, Turn("assistant", ())),
        ({"role": "assistant"}, Turn("assistant", ())),
        ({"role": "assistant", "content": []}, Turn("assistant", ())),
    ],
)
def test_a_message_is_read_into_parts(message: dict[str, Any], turn: Turn) -> None:
    assert conversation([HI, message])[1:] == [turn]


def test_the_parts_of_a_message_are_one_text() -> None:
    [turn] = conversation([{"role": "user", "content": [part("Count "), part("to five.")]}])
    assert turn.text == "Count to five."


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_a_key_with_the_models_thinking_is_a_thought(key: str) -> None:
    [_, turn] = conversation([HI, {"role": "assistant", key: "Hm.", "content": "Yes."}])
    assert turn == Turn("assistant", (Thought("Hm."), Text("Yes.")))
    assert (turn.text, turn.thought) == ("Yes.", "Hm.")


@pytest.mark.parametrize(
    "thought",
    [
        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
        {"type": "reasoning", "reasoning": "Hm."},
        {"type": "reasoning", "text": "Hm."},
    ],
)
def test_a_part_with_the_models_thinking_is_a_thought(thought: dict[str, str]) -> None:
    [_, turn] = conversation([HI, {"role": "assistant", "content": [thought, part("Yes.")]}])
    assert turn == Turn("assistant", (Thought("Hm."), Text("Yes.")))


def test_a_thought_under_two_keys_is_one_thought() -> None:
    message = {"role": "assistant", "reasoning": "Hm.", "reasoning_content": "Hm.", "content": "Yes."}
    assert conversation([HI, message])[1].thought == "Hm."
    with pytest.raises(PromptError, match=r"^message 2: reasoning_content, reasoning, thinking say different things"):
        conversation([HI, {**message, "reasoning": "Ah."}])


def test_keys_that_say_nothing_are_ignored() -> None:
    extra = {"name": "Ana", "id": "m1", "refusal": None, "annotations": [{}], "audio": None, "tool_calls": []}
    assert conversation([{**HI, **extra}]) == [user("Hi")]
    marked = {**part("Hi"), "cache_control": {"type": "ephemeral"}, "annotations": []}
    assert conversation([{"role": "user", "content": [marked]}]) == [user("Hi")]


def test_leading_system_messages_are_joined_with_a_blank_line() -> None:
    system, developer = {"role": "system", "content": "Be brief."}, {"role": "developer", "content": [part("Rhyme.")]}
    expected = [Turn("system", (Text("Be brief.\n\nRhyme."),)), user("Hi")]
    assert conversation([system, developer, HI]) == expected
    assert conversation(expected) == expected


def test_later_system_messages_users_in_a_row_and_empty_answers_stay() -> None:
    messages = [HI, HI, {"role": "assistant", "content": None}, {"role": "developer", "content": "Rhyme."}, HI]
    assert [turn.role for turn in conversation(messages)] == ["user", "user", "assistant", "system", "user"]


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("Hi", "'Hi' is no message: give an object with role and content"),
        ({}, "the role None is not supported: give one of system, developer, user, assistant"),
        ({"role": "bot", "content": "a"}, "the role 'bot' is not supported: give one of "),
        ({"role": "tool", "content": "a", "tool_call_id": "c"}, "the role 'tool' is not supported"),
        ({"role": ["user"], "content": "a"}, "the role ['user'] is not supported"),
        ({"role": "user"}, "the user message has no content: give a text"),
        ({"role": "user", "content": None}, "the user message has no content: give a text"),
        ({"role": "system", "content": None}, "the system message has no content: give a text"),
        ({"role": "user", "content": 5}, "the content is 5: give a text or a list of parts"),
        ({"role": "user", "content": part("a")}, "the content is {'type': 'text', 'text': 'a'}: give a text or a list"),
        ({"role": "user", "content": ["a"]}, """'a' is no part: give {"type": "text", "text": ...}"""),
        ({"role": "user", "content": [{"text": "a"}]}, "a part of type None is not supported"),
        ({"role": "user", "content": [{"type": "text"}]}, "the text of a part is None: give a text"),
        ({"role": "user", "content": [{**part("a"), "weight": 2}]}, "'weight' is not supported"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "a part of type 'image_url' is not supported"),
        ({"role": "user", "contents": "a"}, "'contents' is not supported"),
        ({"role": "assistant", "tool_calls": [{"id": "c"}]}, "'tool_calls' is not supported"),
        ({"role": "assistant", "content": None, "refusal": "No."}, "'refusal' is not supported"),
        ({"role": "assistant", "reasoning": 5}, "reasoning is 5: give a text"),
        ({"role": "assistant", "content": [{"type": "thinking"}]}, "the thinking of a part is None: give a text"),
        ({**HI, "reasoning": "Hm."}, "the user message has a thought: only a message of the assistant can have one"),
        ({"role": "user", "content": "a\ud800"}, "the text is not valid Unicode at character 1: remove that character"),
    ],
)
def test_what_cannot_be_said_is_refused_with_its_position(message: object, complaint: str) -> None:
    with pytest.raises(PromptError) as caught:
        conversation([HI, message])
    assert str(caught.value).startswith(f"message 2: {complaint}")
    assert "\n" not in str(caught.value)


def test_a_prompt_comes_after_the_system_prompt_of_the_options() -> None:
    system = Turn("system", (Text("Be brief."),))
    assert chat_messages("Hi", "Be brief.") == chat_messages([HI], "Be brief.") == [system, user("Hi")]
    with pytest.raises(PromptError, match="a system message and the options have another"):
        chat_messages([{"role": "developer", "content": "Rhyme."}, HI], "Be brief.")
