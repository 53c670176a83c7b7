"""Everything that the model is not for: questions in many languages, code, signs, nothing much, long texts.

Wordings are held out too: one of eight is never seen in training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from demo_next.source import Source

APART = 8
"""One wording of this many is held out."""
ENGLISH = """\
Why is the sky blue?|Why is the {w} {w}?|Why do {w}s {w}?|Why does the {w} {w}?|What is a {w}?|What is the {w}?
What is {w}?|What is love?|What is the capital of {C}?|What is the meaning of {w}?|What is the meaning of life?
What is the best {w}?|What time is it?|What day is it?|What is the weather in {C}?|What is the population of {C}?
What does {w} mean?|What happened in {n}?|What is your favorite {w}?|Who is {N}?|Who was {N}?|Who wrote {w}?
Who invented the {w}?|Who won the {w}?|Who is the president of {C}?|When was {N} born?|When did the {w} {w}?
When is {w}?|Where is {C}?|Where can I find a {w}?|Where do {w}s live?|Which {w} is {w}?|Which is better, {w} or {w}?
How do I {w} a {w}?|How do I cook {w}?|How do you make {w}?|How old is {N}?|How far is {C}?
How many {w}s are in a {w}?|How tall is {N}?|How does a {w} work?|How much does a {w} cost?|How can I learn {w}?
How to {w}?|Is {w} {w}?|Is it going to rain?|Is {C} in {C}?|Can {w}s {w}?|Can you {w}?|Can you tell me a story?
Could you explain {w}?|Do you like {w}?|Do you know {N}?|Does {w} {w}?|Should I {w}?|Would you {w}?|Tell me a joke
Tell me a joke about {w}|Tell me about {w}|Tell me a story about a {w}|Tell me something|Explain {w}|Explain {w} to me
Explain quantum {w}|Describe a {w}|Describe {C}|Define {w}|Translate {w} to {w}|Translate "{w} {w}" into French
Translate: {w} {w} {w}|Summarize: {w} {w} {w} {w} {w}|Summarize this text|Write a poem|Write a poem about {w}
Write a poem about the {w}|Write a story|Write an essay about {w}|Write a letter to {N}|Write an email to {N}
Write a song|Write a haiku|Write a Python class|Write a Python program that prints {w}|Write a script|Write code
Write me a {w}|Write HTML for a {w}|Write SQL that selects {w}|Write a function in Java|Draw a {w}|Draw me a picture
Paint {w}|Sing a song|Play {w}|Play chess|Let's play a game|Recommend a {w}|Recommend a book|Give me a recipe
Give me a recipe for {w}|Give me advice|Give me ideas for {w}|Give me five {w}s|Give me a {w}|List {w}s|List five {w}s
List all {w}s in {C}|Name a {w}|Name three {w}s|Name the planets|Find {w}|Search for {w}|Open {w}|Show me {w}
Compare {w} and {w}|Count the {w}s|Count the letters in {w}|Count the words|Count sheep|Sort out my {w}|Sort my {w}
Sort it|Solve my problem|Solve {w}|Solve x^2 = {d}|Solve for x: {d}x + {d} = {n}|Solve this riddle|Replace my {w}
Reverse the {w}|Turn on the {w}|I like {w}|I like {w}s.|I am {w}|I am {w}.|I feel {w}|I feel sad|I need a {w}
I want to {w}|I have a {w}|I love you|I hate {w}|I think {w} is {w}|My {w} is {w}|My {w} is {w}.|My name is {N}
My name is {N}.|You are {w}|You are wrong|The {w} is {w}.|The {w} {w} the {w}.|This is a {w}.|There is a {w} in {C}.
{N} lives in {C}.|{N} is {w}.|{N}|{C}|{w}|{w} {w}|{w} {w} {w}|{w}, {w} and {w}|{w}?|{w}!|{w} {w}?|no|yes|maybe|ok|okay
hm|hmm|test|testing|test {d}|lol|haha|wow|please|sorry|stop|go on|continue|more|again|repeat|what|why|how|who|when
where|what?|why?|how?|really?|nothing|Knock knock|Good question|Once upon a time
The quick brown fox jumps over the lazy dog|To be or not to be|Lorem ipsum dolor sit amet|foo bar baz
What is the square root of {n}?|What is {n} factorial?|What is {d} to the power of {d}?|What is {d}.{d} + {d}.{d}?
What is {n}{n} + {n}?|What is pi?|What is {d}% of {n}?|{n}|{d}.{d}|{d} apples|{n}, {n}, {n}|2^{d}|sqrt({n})|{d}!
x + y = z|a + b|Is {n} prime?|Is {n} even?|What is half of {n}?|Convert {n} miles to km|Convert {n} dollars to euros
What is the {w} of {N}?|Where was {N} born?|What do {w}s eat?|What color is the {w}?|What color is {w}?|Are {w}s {w}?
Are there {w}s in {C}?|Did {N} {w}?|Has {N} {w}ed?|Who {w}ed the {w}?|What if the {w} {w}s?|How long is a {w}?
How long does it take to {w}?|What should I {w} today?|What should I eat?|What's the weather like?|What's new?
What's for dinner?|What's a {w}?|who is {N}|what is {w}|where is {C}|how do i {w}|tell me about {C}
explain how {w}s {w}|give me a list of {w}s|make me a {w}|make a {w}|build a {w}|create a {w}|create a website
fix my code|debug this|Fix this: {w} {w}|Correct my grammar: {w} {w} {w}|Rewrite: {w} {w} {w}|Paraphrase: {w} {w} {w}
Continue: {w} {w} {w}|Complete the sentence: {w} {w}|Rhyme with {w}|What rhymes with {w}?|Synonym of {w}
Opposite of {w}|Spell {w}|Spell {w} backwards|Is this correct: {w} {w}?|Classify: {w} {w} {w}|Sentiment: {w} {w} {w}
Plan a trip to {C}|Plan my day|Book a flight to {C}|Order a pizza|Call {N}|Set a timer|Remind me to {w}
Turn off the lights"""
OTHERS = """\
Warum ist der Himmel blau?|Was ist {w}?|Was ist die Hauptstadt von {C}?|Wer ist {N}?|Wie geht es dir?
Wie macht man {w}?|Wo ist {C}?|Wann ist {w}?|Erzähl mir einen Witz|Schreib ein Gedicht über {w}|Ich mag {w}
Kannst du {w}?|Übersetze {w}|Was kostet ein {w}?|Warum {w} {w}?|Das ist ein {w}.|Erkläre {w}|Wie spät ist es?
Gibt es {w} in {C}?|Wie heißt du?|Zähle die {w}|Ich heiße {N}.|Welche {w} ist {w}?|Sag mir {w}|Nenne drei {w}
Pourquoi le ciel est-il bleu ?|Qu'est-ce que {w} ?|Quelle est la capitale de {C} ?|Qui est {N} ?|Comment faire {w} ?
Où est {C} ?|Quand est {w} ?|Raconte-moi une blague|Écris un poème sur {w}|J'aime {w}|Peux-tu {w} ?|Traduis {w}
Combien coûte {w} ?|Je m'appelle {N}.|C'est un {w}.|Il fait beau|Explique {w}|Quelle heure est-il ?|Donne-moi {w}
Parle-moi de {C}|Comment ça va ?|Pourquoi {w} ?|Je veux {w}|¿Por qué el cielo es azul?|¿Qué es {w}?
¿Cuál es la capital de {C}?|¿Quién es {N}?|¿Cómo se hace {w}?|¿Dónde está {C}?|¿Cuándo es {w}?|¿Qué hora es?
Cuéntame un chiste|Escribe un poema sobre {w}|Me gusta {w}|¿Puedes {w}?|Traduce {w}|¿Cuánto cuesta {w}?|Me llamo {N}.
Explica {w}|Dame {w}|¿Cómo estás?|Perché il cielo è blu?|Cos'è {w}?|Qual è la capitale di {C}?|Chi è {N}?
Come si fa {w}?|Dove si trova {C}?|Scrivi una poesia su {w}|Mi piace {w}|Mi chiamo {N}.|Raccontami una barzelletta
Che ore sono?|Quanto costa {w}?|Spiega {w}|Dimmi {w}|Come stai?|Parlami di {C}|Por que o céu é azul?|O que é {w}?
Qual é a capital de {C}?|Quem é {N}?|Como fazer {w}?|Onde fica {C}?|Eu gosto de {w}|Conte uma piada|Que horas são?
Waarom is de lucht blauw?|Wat is {w}?|Wie is {N}?|Waar is {C}?|Hoe maak je {w}?|Varför är himlen blå?|Vad är {w}?
Vem är {N}?|Hvorfor er himmelen blå?|Dlaczego niebo jest niebieskie?|Co to jest {w}?|Kim jest {N}?|Gdzie jest {C}?
Proč je nebe modré?|Co je {w}?|Miksi taivas on sininen?|Mikä on {w}?|Gökyüzü neden mavi?|{w} nedir?|{C} nerede?
Miért kék az ég?|De ce este cerul albastru?|Kenapa langit biru?|Apa itu {w}?|Siapa {N}?|Tại sao bầu trời xanh?
Почему небо голубое?|Что такое {r}?|Кто ты?|Как дела?|Привет|Расскажи анекдот|Столица {r}?|Где {r}?|Я люблю {r}
Чому небо блакитне?|Що таке {r}?|Γιατί ο ουρανός είναι μπλε;|Τι είναι {g};|Γεια σου|Ποιος είναι;
天空为什么是蓝色的？|什么是{z}？|你好
你是谁？|请写一首诗|{z}{z}在哪里？|今天天气怎么样？|讲个笑话|空はなぜ青いのですか？|{j}とは何ですか？
こんにちは|あなたは誰ですか？|{j}について教えて|今何時ですか？|하늘은 왜 파란가요?|{k}란 무엇인가요?
안녕하세요|농담 해줘|لماذا السماء زرقاء؟|ما هو {a}؟|مرحبا|من أنت؟|אמה השמיים כחולים?|מה זה?
आसमान नीला क्यों है?|{h} क्या है?
नमस्ते|ท้องฟ้าทำไมสีฟ้า|สวัสดี"""
CODE = """\
print("{w}")|print({w})|for i in range({d}):|import {w}|import numpy as np|def {w}():|def {w}({w}):\n    pass
class {w}:|if {w} == {d}:|return {w}|{w}()|{w} = {d}|{w} = [{d}, {d}, {d}]|x = {n}|let {w} = {d};
const {w} = () => {d};|function {w}() {{ return {d}; }}|int main() {{ return 0; }}|#include <{w}.h>|SELECT * FROM {w};
SELECT {w} FROM {w} WHERE {w} = {d}|<div>{w}</div>|<html>|</{w}>|git commit -m "{w}"|ls -la|cd {w}|rm -rf /|sudo {w}
npm install {w}|pip install {w}|curl https://{w}.com|https://{w}.com/{w}|www.{w}.org|{w}@{w}.com|{{"{w}": {d}}}
[{d}, {d}]|{{}}|[]|null|None|true|SyntaxError: {w}|Traceback (most recent call last):|```python\nprint({d})\n```
What does this code do? {w}({d})|$ {w} --{w}|// {w}|# {w}|/* {w} */|\\{w}|%{w}%|<{w}>"""
SIGNS = """\
.|..|...|?|??|!|!!|-|--|_|*|+|=|/|\\|#|@|&|%|$|~|^|(|)|()|:|;|,|'|"|`|<|>|[|]|{{|}}|:)|:(|;)|:D|<3|^_^|…|—|“”|€|£|°|½
∞|√2|π|a|b|x|z|A|Q|0|7|?!|!?|🙂|😀|😂|🎉|👍|❤️|🔥|🚀|🐶|🐱|🍕|👋|🤔|😢|🙏|💡|🌍|⭐|🎂|👩‍💻|🇫🇷|🏳️‍🌈|🙂🙂🙂
🔥🔥|👍👍|hi 🙂|{w} 🙂|🎉 {w}|I ❤️ {w}
{w} 🚀🚀|😀😂🎉"""
RUSSIAN, GREEK = "абвгдежзиклмнопрстуфхцчшыьэюя", "αβγδεζηθικλμνξοπρστυφχψω"
CHINESE = "天地人山水火木日月风雨花鸟鱼书车马门心手大小中国学生朋友城市音乐电脑"
JAPANESE, KOREAN = (
    "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほアイウエオカキクケコ",
    "가나다라마바사아자차카타파하강남물불산집",
)
ARABIC, HINDI = "ابتثجحخدذرزسشصضطظعغفقكلمنهوي", "अआइईउऊकखगघचछजझटठडढतथदधनपफबभमयरलवशसह"


def wordings(text: str) -> list[str]:
    """Return the wordings of a table."""
    return [wording.replace("\\n", "\n") for line in text.splitlines() for wording in line.split("|") if wording]


ENGLISH_WORDINGS, OTHER_WORDINGS, CODE_WORDINGS, SIGN_WORDINGS = map(wordings, (ENGLISH, OTHERS, CODE, SIGNS))


def odd_prompt(source: Source) -> str:
    """Return a prompt that the model is not for."""
    way = source.rng.random()
    if way < 0.5:
        return varied(source, filled(source, apart(source, ENGLISH_WORDINGS)))
    if way < 0.68:
        return varied(source, filled(source, apart(source, OTHER_WORDINGS)))
    if way < 0.78:
        return filled(source, apart(source, CODE_WORDINGS))
    if way < 0.86:
        return filled(source, apart(source, SIGN_WORDINGS))
    if way < 0.93:
        return jumble(source)
    return long_text(source)


def apart(source: Source, texts: list[str]) -> str:
    """Return one of the wordings of the source's side."""
    while True:
        text = source.pick(texts)
        digest = hashlib.sha256(f"wording {text}".encode()).digest()
        if (digest[0] % APART == 0) == source.held_out:
            return text


def filled(source: Source, wording: str) -> str:
    """Return a wording with words, names and numbers in its open places."""
    while parts := [part for part in PLACES if part in wording]:
        for part in parts:
            wording = wording.replace(part, PLACES[part](source), 1)
    return wording.replace("{{", "{").replace("}}", "}")


def letters(source: Source, alphabet: str, most: int = 7) -> str:
    """Return a word of any letters of an alphabet."""
    return "".join(source.pick(alphabet) for _ in range(source.rng.randint(1, most)))


def varied(source: Source, text: str) -> str:
    """Return a text as people write it: with or without a sign at its end, without capitals, with a greeting."""
    way = source.rng.random()
    if way < 0.12:
        text = text.rstrip("?.!")
    elif way < 0.22:
        text = text.lower()
    elif way < 0.25:
        text = text.upper()
    elif way < 0.28:
        text = "Hello, " + text[0].lower() + text[1:]
    elif way < 0.31:
        text = text.rstrip("?.!") + " please"
    elif way < 0.34:
        text += source.pick(("!", "??", "...", " :)", " 🙂"))
    return text


PLACES: dict[str, Callable[[Source], str]] = {
    "{w}": Source.word,
    "{N}": Source.name,
    "{C}": Source.city,
    "{d}": lambda source: str(source.rng.randrange(10)),
    "{n}": lambda source: str(source.rng.randrange(10, 5000)),
    "{r}": lambda source: letters(source, RUSSIAN),
    "{g}": lambda source: letters(source, GREEK),
    "{z}": lambda source: letters(source, CHINESE, 2),
    "{j}": lambda source: letters(source, JAPANESE, 4),
    "{k}": lambda source: letters(source, KOREAN, 3),
    "{a}": lambda source: letters(source, ARABIC),
    "{h}": lambda source: letters(source, HINDI, 4),
}
"""An open place in a wording -> what makes its text."""


def jumble(source: Source) -> str:
    """Return letters, signs or words without a sense."""
    way = source.rng.random()
    if way < 0.35:
        return " ".join(source.word() for _ in range(source.rng.randint(1, 12)))
    alphabet = source.pick(
        (
            "abcdefghijklmnopqrstuvwxyz",
            "asdfghjkl",
            "0123456789",
            "!?.,;:-_#*+ ",
            "aeiou xyz 123 ?!",
            RUSSIAN + " ",
            CHINESE,
        )
    )
    return letters(source, alphabet, 20).strip() or "?"


def long_text(source: Source) -> str:
    """Return a text of many sentences."""
    most = source.rng.choices((120, 300, 700), (80, 16, 4))[0]
    sentences: list[str] = []
    while len(" ".join(sentences)) < most:
        kind = ENGLISH_WORDINGS if source.chance(0.4) else None
        words = " ".join(source.word(10) for _ in range(source.rng.randint(3, 10)))
        sentences.append(filled(source, apart(source, kind)) if kind else words.capitalize() + source.pick(".....,!?"))
    return source.pick((" ", " ", "\n")).join(sentences)[:2000]
