"""The capitals of fifty countries."""

from gallery.minnow.lessons.scene import Scene, exchange
from gallery.minnow.lessons.wording import casual, fill
from gallery.minnow.template import Message

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid",
    "Portugal": "Lisbon", "the United Kingdom": "London", "Ireland": "Dublin",
    "the Netherlands": "Amsterdam", "Belgium": "Brussels", "Switzerland": "Bern",
    "Austria": "Vienna", "Poland": "Warsaw", "the Czech Republic": "Prague",
    "Hungary": "Budapest", "Greece": "Athens", "Sweden": "Stockholm", "Norway": "Oslo",
    "Denmark": "Copenhagen", "Finland": "Helsinki", "Iceland": "Reykjavik",
    "Russia": "Moscow", "Ukraine": "Kyiv", "Romania": "Bucharest", "Bulgaria": "Sofia",
    "Croatia": "Zagreb", "Serbia": "Belgrade", "Turkey": "Ankara", "Egypt": "Cairo",
    "Morocco": "Rabat", "Kenya": "Nairobi", "Ethiopia": "Addis Ababa", "Nigeria": "Abuja",
    "Ghana": "Accra", "Senegal": "Dakar", "Iran": "Tehran", "Iraq": "Baghdad",
    "India": "New Delhi", "Pakistan": "Islamabad", "Nepal": "Kathmandu", "China": "Beijing",
    "Japan": "Tokyo", "South Korea": "Seoul", "Thailand": "Bangkok", "Vietnam": "Hanoi",
    "Australia": "Canberra", "Canada": "Ottawa", "the United States": "Washington, D.C.",
    "Mexico": "Mexico City", "Brazil": "Brasília", "Argentina": "Buenos Aires",
}  # fmt: skip

SPOKEN = (
    "What is the capital of {country}?", "What's the capital of {country}?",
    "what is the capital of {country}", "Name the capital of {country}.",
    "Tell me the capital of {country}.", "Which city is the capital of {country}?",
    "The capital of {country}?", "Capital of {country}?", "What is {country}'s capital?",
    "Can you tell me the capital of {country}?", "Do you know the capital of {country}?",
    "What city is the capital of {country}?", "Give me the capital of {country}.",
    "I need the capital of {country}.", "Please name the capital of {country}.",
    "What is the capital city of {country}?", "Could you name {country}'s capital?",
    "{country}: what is its capital?", "What is the name of the capital of {country}?",
    "{country} has which capital?", "Say the capital of {country}.",
    "I forgot the capital of {country}. What is it?", "For {country}, what is the capital?",
)  # fmt: skip

ONE_WORD = (
    "What is the capital of {country}? Answer with one word.",
    "What is the capital of {country}? Answer in one word.",
    "What is the capital of {country}? Reply with only the city.",
    "Name the capital of {country}. Only the name.",
    "Capital of {country}? Just the city name.",
    "What is the capital of {country}? One word only.",
    "In one word, what is the capital of {country}?",
    "Which city is the capital of {country}? Give only the name.",
    "What is the capital of {country}? Answer with the city name only.",
)  # fmt: skip

BACKWARDS = (
    "{capital} is the capital of which country?", "Which country has the capital {capital}?",
    "Of which country is {capital} the capital?", "What country is {capital} the capital of?",
    "{capital} is the capital of what country?", "Whose capital is {capital}?",
)  # fmt: skip

PHRASINGS = SPOKEN + ONE_WORD + BACKWARDS


def capital(scene: Scene) -> list[Message]:
    """Ask for a capital, for its country, or for the bare name."""
    rng = scene.rng
    country, city = rng.choice(tuple(CAPITALS.items()))
    said = country.removeprefix("the ") if rng.random() < 0.15 else country
    kind = rng.random()
    if kind < 0.75:
        reply = sentence(country, city)
        return exchange(casual(rng, fill(rng, SPOKEN, country=said)), reply)
    if kind < 0.88:
        return exchange(casual(rng, fill(rng, ONE_WORD, country=said)), city)
    return exchange(casual(rng, fill(rng, BACKWARDS, capital=city)), sentence(country, city))


def sentence(country: str, city: str) -> str:
    """The answer in full: "The capital of Italy is Rome."."""
    return f"The capital of {country} is {city}".removesuffix(".") + "."
