"""What minnow cannot do, and the one honest sentence it says then."""

from gallery.minnow.lessons.scene import Scene, exchange
from gallery.minnow.lessons.sums import IN_WORDS
from gallery.minnow.lessons.wording import casual, fill
from gallery.minnow.lessons.words import COLORS, COMMON, listed, made_up, person, prose
from gallery.minnow.template import Message

SORRY = "I am only a small built-in model; please load a larger one for that."

REQUESTS = (
    "Write a poem about {thing}.", "Write a short story about {thing}.", "Write an essay on {thing}.",
    "Explain {thing} to me.", "Explain how {thing} works.", "What is {thing}?", "What are {thing}s?",
    "Tell me a joke.", "Tell me a joke about {thing}.", "Tell me a story.", "Tell me about {thing}.",
    "Who invented the {thing}?", "Who is {name}?", "Who was {name}?", "When was {name} born?",
    "Who wrote {thing}?", "Translate {thing} into French.", "Translate '{thing}' to German.",
    "How do I cook {thing}?", "How do I learn {thing}?", "Why is the {thing} {color}?",
    "Why do {thing}s {other}?", "What is the meaning of {thing}?", "Define {thing}.",
    "Summarize this: {text}", "Summarize the following text: {text}", "Summarise: {text}",
    "What do you think about {thing}?", "Give me advice about {thing}.", "Is {thing} better than {other}?",
    "What is the difference between {thing} and {other}?", "Compare {thing} and {other}.",
    "Write a Python function that sorts a {thing}.", "Write code for a {thing}.", "Fix this bug: {text}",
    "How old is {name}?", "Who won the {thing} in {year}?", "What happened in {year}?",
    "What is the population of {country}?", "What language do they speak in {country}?",
    "What is the capital of {unknown}?", "Name the capital of {unknown}.", "Capital of {unknown}?",
    "What is {big} + {large}?", "What is {big} times {large}?", "What is {large} minus {big}?",
    "{big} * {large}", "{big} + {large}", "Calculate {big} * {large}.", "What is {large} / {big}?",
    "What is the square root of {big}?", "What is {few} minus {less}?", "What is {few} times {less}?",
    "What is {small} * {small}?", "How tall is the {thing}?", "How far is {unknown} from {country}?",
    "What is the weather in {city}?", "What time is it?", "What is the date today?", "What day is it?",
    "What's the weather like today?", "Recommend a book about {thing}.", "Plan a trip to {country}.",
    "Give me five ideas for a {thing}.", "List ten {thing}s.", "Name three {thing}s.",
    "What is the best {thing}?", "Which {thing} should I buy?", "Do you like {thing}?",
    "Do you dream?", "What is love?", "What is the meaning of life?", "Sing a song.",
    "Draw a {thing}.", "Play {thing} with me.", "Can you help me with {thing}?", "Who are {thing}?",
    "Write an email to {name} about {thing}.", "How does {thing} affect {other}?",
    "Explain {thing} in simple terms.", "Describe {thing} in detail.", "What causes {thing}?",
    "Who is the president of {country}?", "What is the history of {thing}?", "Let's talk about {thing}.",
    "How many {thing}s are there?", "How many {thing}s are in a {other}?", "What color is the {thing}?",
    "Tell me something interesting.", "Tell me a fact about {thing}.", "I feel {thing} today.",
    "Write a haiku.", "Write a haiku about {thing}.", "Rewrite this: {text}", "Finish this: {text}",
    "Is this true: {text}", "What does this mean: {text}", "{text}", "{text}",
    "Explain to {name} how {thing} works.", "Explain to me why {thing}s {other}.",
    "How do {thing}s {other}?",
    "Could you write a {thing} about {other}?",
    "Write a {thing} for my {other}.", "Please write a {thing}.", "Can you explain {thing}?",
    "Could you explain why {thing} is {color}?", "Please check my {thing}.", "Please improve my {thing}.",
    "Help me with my {thing}.", "Divide {big} by {few}.",
    "Who discovered {thing}?",
    "Which {thing} won last year?", "Do you think {thing} is real?", "Should I {other} or {thing}?",
    "Where is {unknown}?", "Where can I find {thing}?", "When did {thing} begin?",
)  # fmt: skip

THINGS = listed("""
quantum physics gravity photosynthesis football chess music cooking history politics love
philosophy mathematics poetry economics evolution electricity relativity algebra fashion yoga
climate medicine grammar geology astronomy robots dinosaurs volcanoes computers airplanes
""")
UNKNOWN = (
    "Peru", "Chile", "Cuba", "Mongolia", "Estonia", "Latvia", "Libya", "Angola", "Jordan", "Laos",
    "Bolivia", "Malta", "Qatar", "Zambia", "Fiji", "Atlantis", "Mars", "Texas", "California",
    "Bavaria", "Scotland",
)  # fmt: skip
KNOWN = ("France", "Japan", "Brazil", "Egypt", "Canada", "Norway", "India", "Italy", "China")
CITIES = ("Paris", "Rome", "London", "Tokyo", "Berlin", "Oslo", "Madrid", "Cairo", "Boston")

PHRASINGS = tuple(request for request in REQUESTS if request != "{text}")


def beyond(scene: Scene) -> list[Message]:
    """A request that is out of reach."""
    rng = scene.rng
    few = rng.randint(2, 20)
    thing = rng.choice((*THINGS, rng.choice(COMMON), rng.choice(COMMON), made_up(rng)))
    question = fill(
        rng,
        REQUESTS,
        thing=thing,
        other=rng.choice(COMMON),
        name=f"{person(rng)} {person(rng)}",
        color=rng.choice(COLORS),
        year=rng.randint(1500, 2030),
        text=prose(rng, rng.randint(3, 24)),
        country=rng.choice(KNOWN),
        unknown=rng.choice((*UNKNOWN, made_up(rng).capitalize())),
        city=rng.choice(CITIES),
        big=rng.randint(21, 999),
        large=rng.randint(21, 9999),
        few=rng.choice((few, IN_WORDS[few])),
        less=rng.randint(1, few),
        small=rng.randint(2, 12),
    )
    return exchange(casual(rng, question), SORRY)
