"""The wordings of the questions, and the model's answers about itself."""

from __future__ import annotations

SUDOKU = ["Solve this sudoku:", "Solve this sudoku:", "Complete this sudoku:", "Fill in this sudoku:"]
SUMS = ["What is {}?", "What is {}?", "Calculate {}", "{} = ?", "How much is {}?", "Work out {}", "{}"]
JSON = [
    "Give JSON: {name} is {age} and lives in {city}.",
    "Give JSON: {name} is {age} and lives in {city}.",
    "Give JSON: {name} lives in {city} and is {years} old.",
    "Turn into JSON: {name} lives in {city} and is {years} old.",
    "Turn into JSON: {name} is {age} and lives in {city}.",
    "JSON for {name}, {age}, from {city}",
    "Write JSON for {name} from {city}, who is {age}.",
    "Convert to JSON: {name} is {years} old and comes from {city}.",
    "Convert to JSON: {name}, {years} old, lives in {city}.",
]
COUNT = [
    "Count from {} to {}",
    "Count from {} to {}",
    "Count from {} to {}.",
    "List the numbers from {} to {}",
    "Count up from {} to {}",
    "Please count from {} to {}",
]
SORT = ["Sort: {}", "Sort: {}", "Sort these words: {}", "Put in alphabetical order: {}", "Sort alphabetically: {}"]
FUNCTION = [
    "Write a Python function {name} that {task}",
    "Write a Python function {name} that {task}",
    "Write a Python function {name} that {task}.",
    "Write a function {name} that {task}",
    "Define a Python function {name} that {task}",
]

OPERATIONS = {
    "multiplies {a} and {b}": "{a} * {b}",
    "adds {a} and {b}": "{a} + {b}",
    "subtracts {b} from {a}": "{a} - {b}",
    "divides {a} by {b}": "{a} / {b}",
    "returns the larger of {a} and {b}": "max({a}, {b})",
    "returns the smaller of {a} and {b}": "min({a}, {b})",
    "averages {a} and {b}": "({a} + {b}) / 2",
    "returns the remainder of dividing {a} by {b}": "{a} % {b}",
}
"""Description of a function -> the expression that it returns."""

GREETING = (
    "Hello! I am a small DiffusionGemma, a demo model of about three million parameters that ships with "
    "mlx-diffgemma. I write by denoising a canvas. Ask me for a sum, a sudoku, words in order, JSON or a short "
    "Python function."
)
SELF = (
    "I am a small DiffusionGemma of about three million parameters, trained only on questions that a program made "
    "up. I ship with mlx-diffgemma to show how a canvas of noise is denoised into text, step by step. I know little "
    "else."
)
ABILITIES = (
    "I can solve a small sudoku, add and subtract, count, sort words, turn a sentence into JSON and write a short "
    "Python function. Try: What is 47 + 38? Or: Count from 12 to 75."
)
THANKS = (
    "You are welcome! I am only a small demo model, but I like to help. Ask me for another sum, sudoku or Python "
    "function, and watch the canvas settle from noise into text."
)
CHAT = {
    "Hello": GREETING, "Hello there": GREETING, "Hi": GREETING, "Hi there": GREETING, "Hey": GREETING,
    "Good morning": GREETING, "Good evening": GREETING, "How are you?": GREETING, "Hello, how are you?": GREETING,
    "Who are you?": SELF, "Hello, who are you?": SELF, "What are you?": SELF, "What is your name?": SELF,
    "Who made you?": SELF, "How do you work?": SELF, "How do you write?": SELF, "Tell me about yourself": SELF,
    "What model are you?": SELF, "Are you a model?": SELF, "What is DiffusionGemma?": SELF,
    "What can you do?": ABILITIES, "What can I ask you?": ABILITIES, "What do you know?": ABILITIES,
    "Help": ABILITIES, "Help me": ABILITIES, "Can you help me?": ABILITIES, "What else can you do?": ABILITIES,
    "Thanks": THANKS, "Thank you": THANKS, "Thanks a lot": THANKS, "Good": THANKS, "Bye": THANKS,
}  # fmt: skip


def chat_questions() -> list[tuple[str, str]]:
    """Return every chat question with its answer, in several spellings: other endings, a small first letter."""
    written: dict[str, str] = {}
    for question, answer in CHAT.items():
        endings = ("?", "") if question.endswith("?") else ("", "!", ".")
        for ending in endings:
            text = question.removesuffix("?") + ending
            written |= {text: answer, text[0].lower() + text[1:]: answer}
    return list(written.items())
