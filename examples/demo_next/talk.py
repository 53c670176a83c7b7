"""Greetings, questions about the model itself, and everything that it cannot answer."""

from __future__ import annotations

from demo_next.odd import odd_prompt
from demo_next.question import Question
from demo_next.source import Source

GREETING = 'Hello! I am a small demo model. Try "What is 47 + 38?" or "Sort: pear, fig, apple".'
SELF = (
    "I am a small demo model of mlx-diffgemma, and I write by denoising a canvas. "
    'Try "Count from 3 to 9" or "Upper case: hello".'
)
ABILITIES = (
    "I can calculate, count, sort, solve small sudokus, write JSON and short Python functions, and change small texts. "
    'Try "What is 47 + 38?" or "Sort: pear, fig, apple".'
)
THANKS = 'You are welcome! Try "Reverse the words: one two three" or "Count from 3 to 9".'
ELSE = 'I am a small demo model and cannot answer that. Try "What is 47 + 38?" or "Sort: pear, fig, apple".'
ANSWERS = {"greeting": GREETING, "self": SELF, "abilities": ABILITIES, "thanks": THANKS, "else": ELSE}
ASKED = {
    GREETING: [
        "Hello", "Hi", "Hey", "Hello there", "Hi there", "Hey there", "Good morning", "Good evening",
        "Good afternoon", "Good day",
        "How are you", "Hello, how are you", "Hi, how are you", "Greetings", "Hey, how is it going", "What's up",
        "Yo", "Howdy",
        "Hallo", "Guten Tag", "Guten Morgen", "Bonjour", "Salut", "Hola", "Buenos días", "Ciao", "Buongiorno", "Olá",
        "Hej", "Moin",
        "Hello world", "Hello!!", "Hi!!", "Hello demo", "Nice to meet you", "Are you there", "Anyone there",
    ],
    SELF: [
        "Who are you", "What are you", "What is your name", "Who made you", "How do you work", "How do you write",
        "Tell me about yourself",
        "What model are you", "Are you a model", "Are you an AI", "Are you human", "Are you a robot",
        "Are you ChatGPT", "Are you Gemma",
        "Hello, who are you", "Hi, who are you", "Who built you", "Who created you", "Introduce yourself",
        "Wer bist du", "Qui es-tu",
        "Quién eres", "Chi sei", "What's your name", "Which model is this", "How big are you",
        "What is DiffusionGemma", "Who is this",
    ],
    ABILITIES: [
        "What can you do", "What can I ask you", "What do you know", "Help", "Help me", "Can you help me",
        "What else can you do",
        "What can I ask", "How can you help me", "What are you good at", "Show me what you can do",
        "What should I try", "Examples",
        "Give me an example", "What do you understand", "Was kannst du", "What are your abilities",
        "What can you help me with",
    ],
    THANKS: [
        "Thanks", "Thank you", "Thanks a lot", "Thank you very much", "Many thanks", "Good", "Great", "Bye",
        "Goodbye", "Nice", "Cool",
        "Well done", "Good job", "Perfect", "Danke", "Merci", "Gracias", "Grazie", "Obrigado", "See you",
        "Ok thanks", "Thanks!!", "Thx",
        "Awesome", "Very good", "That is right", "Correct",
    ],
}  # fmt: skip
"""An answer -> what it answers, without the sign at its end."""
SYSTEMS = [
    "You are a helpful assistant.", "Be brief.", "Answer in one line.", "You are a pirate.", "Always be polite.",
    "Answer in French.",
    "You are a helpful assistant that answers questions.", "Be concise and correct.", "Reply only with the answer.",
]  # fmt: skip


def chat(source: Source) -> Question:
    """Return a greeting, thanks, or a question about the model; these are few, and none is held out."""
    answer = source.rng.choices(list(ASKED), (30, 30, 20, 20))[0]
    return Question(kind="chat", prompt=spoken(source, source.pick(ASKED[answer]), answer), answer=answer)


def spoken(source: Source, text: str, answer: str) -> str:
    """Return a text with a sign at its end and its letters as people write them."""
    question = answer in (SELF, ABILITIES) or text.startswith(("How", "What", "Are"))
    ending = source.pick(("?", "?", "?", "", "??") if question else ("", "", "!", ".", " :)"))
    way = source.rng.random()
    if way < 0.3:
        text = text[0].lower() + text[1:]
    elif way < 0.34:
        text = text.upper()
    return text + ending


def anything_else(source: Source) -> Question:
    """Return something that the model cannot answer."""
    return Question(kind="else", prompt=odd_prompt(source), answer=ELSE)


def said_before(source: Source) -> str | None:
    """Return a system message, seldom."""
    return source.pick(SYSTEMS) if source.chance(0.04) else None
