"""Tools as clients describe them, and ways to ask for each.

Half are the tools every example uses (weather, clock, search, …) under their many names;
half are made up from a verb and a noun, so that minnow has to read the schema rather than
remember the tool.
"""

import random
from collections.abc import Callable
from typing import Any

from gallery.minnow.lessons.capitals import CAPITALS
from gallery.minnow.lessons.scene import Offer
from gallery.minnow.lessons.wording import fill
from gallery.minnow.lessons.words import COMMON, code, made_up, person, phrase
from gallery.minnow.template import Tool

Arguments = dict[str, Any]
Ask = Callable[[random.Random], tuple[str, Arguments]]

WEATHER = (
    "What is the weather in {city}?", "What's the weather like in {city}?", "Weather in {city}?",
    "How is the weather in {city}?", "Tell me the weather in {city}.", "Is it raining in {city}?",
    "What is the weather like in {city} today?", "What's the weather in {city} right now?",
    "Get the weather for {city}.", "Check the weather in {city}.", "How warm is it in {city}?",
    "What is the temperature in {city}?", "I need the weather for {city}.",
    "Will it rain in {city} today?", "Do you know how the weather is in {city}?",
    "Can you check the weather in {city}?", "Could you tell me the weather in {city}?",
    "I am in {city}. What is the weather?",
    "I live in {city}. How is the weather in {city}?",
    "Is it sunny in {city}? Find the weather for {city}.",
    "I want to visit {city}. Is it raining in {city}?",
    "How is {city}? I mean the weather in {city}.", "Find out what the weather is in {city}.",
    "Is it cold in {city}?", "Show me the weather for {city}.",
    "Please look up the weather in {city}.",
)  # fmt: skip
WEATHER_UNIT = (
    "What is the weather in {city} in {unit}?", "How warm is it in {city} in {unit}?",
    "Give me the temperature in {city} in {unit}.", "Weather in {city}, in {unit}, please.",
    "What is the temperature in {city}? Use {unit}.",
)  # fmt: skip
CLOCK = (
    "What time is it in {city}?", "Tell me the time in {city}.", "What's the time in {city}?",
    "Current time in {city}?", "What is the current time in {city}?", "How late is it in {city}?",
    "Get the time for {city}.", "Can you tell me the time in {city}?",
    "Could you check the time in {city}?", "Show me the current time in {city}.",
    "I need the time in {city}.", "Do you know what time it is in {city}?",
)  # fmt: skip
SUM = (
    "Add {a} and {b}.", "What is {a} plus {b}?", "What is {a} + {b}?", "Use the tool to add {a} and {b}.",
    "Calculate {a} + {b}.", "Add {a} and {b} with the tool.", "How much is {a} plus {b}?",
    "What is the sum of {a} and {b}?", "Please add {a} and {b}.", "Can you add {a} and {b}?",
    "I need the sum of {a} and {b}.", "Use the tool: what is {a} plus {b}?", "Sum {a} and {b}.",
)  # fmt: skip
PRODUCT = (
    "Multiply {a} by {b}.", "What is {a} times {b}?", "What is {a} * {b}?", "Multiply {a} and {b}.",
    "Calculate {a} times {b}.", "What is the product of {a} and {b}?",
    "How much is {a} times {b}?", "Can you multiply {a} by {b}?", "Please multiply {a} and {b}.",
    "I need {a} times {b}.",
)  # fmt: skip
EXPRESSION = (
    "Calculate {expression}.", "What is {expression}?", "Compute {expression}", "Evaluate {expression}.",
    "How much is {expression}?", "Work out {expression}.", "{expression} = ?",
)  # fmt: skip
SEARCH = (
    "Search for {query}.", "Search the web for {query}.", "Look up {query}.", "Find {query}.",
    "Please search for {query}.", "Can you search for {query}?", "Search: {query}", "Google {query}.",
    "Find information about {query}.", "Look for {query}.", "I want to know more about {query}.",
    "Could you look for {query}?", "Do a web search for {query}.", "Search online for {query}.",
    'Search for "{query}".',
)  # fmt: skip
MESSAGE = (
    'Send {person} the message "{text}".', 'Send "{text}" to {person}.', "Tell {person}: {text}",
    "Send a message to {person}: {text}", 'Write to {person}: "{text}"', "Message {person}: {text}",
    'Please send {person} this: "{text}"', "Send {person} a message saying {text}",
    'Can you send "{text}" to {person}?', 'Could you tell {person} "{text}"?',
)  # fmt: skip
READ = (
    "Read the file {path}.", "Open {path}.", "Show me {path}.", "What is in {path}?",
    "Read {path}.", "Show the contents of {path}.", "Please read {path}", "Print the file {path}.",
    "Can you read {path}?", "Could you open {path}?", "I want to see {path}.",
)  # fmt: skip
TIMER = (
    "Set a timer for {minutes} minutes.", "Start a timer of {minutes} minutes.",
    "Remind me in {minutes} minutes.", "Set a {minutes} minute timer.",
    "Please set a timer for {minutes} minutes.", "Timer for {minutes} minutes, please.",
    "Can you set a timer for {minutes} minutes?", "I need a timer of {minutes} minutes.",
)  # fmt: skip
DATE = (
    "What is the date today?", "What day is it?", "What's today's date?", "Tell me the date.",
    "What date is it?", "Which day is today?", "Get the current date.",
)  # fmt: skip
WISHED = (
    "{verb} {noun} {value}.", "Please {verb} {noun} {value}.", "{verb} the {noun} {value}.",
    "Can you {verb} {noun} {value}?", "I want to {verb} {noun} {value}.",
    "Could you {verb} {noun} {value}?",
    "{verb} {noun} number {value}.", "I need you to {verb} the {noun} {value}.",
    "Could you please {verb} the {noun} {value}?", "You can {verb} {noun} {value} now.",
    "I must {verb} the {noun} {value}.", "Will you please {verb} the {noun} {value}?",
    "{verb} my {noun} {value}.", "I want to {verb} the {noun} {value}.",
    "Let us {verb} the {noun} {value}.", "Would you {verb} {noun} {value}?",
    "{verb} {noun} with {param} {value}.", "Please {verb} the {noun} with {param} {value}.",
)  # fmt: skip
BY_NAME = (
    "Call {tool} with {param} {value}.", "Use {tool} with {param}={value}.", "Use {tool} for {value}.",
    "Call {tool} with {param} set to {value}.", "Use the {tool} tool with {param} {value}.",
    "Please call {tool} with {value}.", "Run {tool} on {value}.",
    "I want you to call {tool} with {param} {value}.",
    "Now call {tool} with {param} {value}.", "Use the {tool} function for {value}.",
    "Call the function {tool} with {param} {value}.", "Use the tool {tool} with {param} {value}.",
)  # fmt: skip

PHRASINGS = (
    *WEATHER, *WEATHER_UNIT, *CLOCK, *SUM, *PRODUCT, *EXPRESSION, *SEARCH, *MESSAGE, *READ,
    *TIMER, *DATE, *WISHED, *BY_NAME,
)  # fmt: skip

PLACES = (
    *CAPITALS.values(), "New York", "San Francisco", "Boston", "Munich", "Milan", "Barcelona",
    "Sydney", "Toronto", "Chicago", "Lyon", "Hamburg", "Osaka", "Mumbai", "Los Angeles", "Seattle",
)  # fmt: skip

VERBS = (
    "get", "find", "delete", "open", "close", "look_up", "fetch", "check", "cancel", "start", "stop",
    "book", "order", "create", "show", "remove", "update", "track", "archive", "print", "buy",
)  # fmt: skip
NOUNS = (
    "order", "user", "ticket", "light", "door", "song", "recipe", "flight", "room", "invoice", "node",
    "package", "account", "stock", "document", "note", "task", "movie", "page", "record", "table",
    "customer", "device", "server", "report", "file", "job", "model", "event", "product", "train",
)  # fmt: skip


def offers(rng: random.Random, count: int) -> list[Offer]:
    """`count` tools no two of which could be meant by the same question."""
    makers = rng.sample(_MAKERS, min(count, len(_MAKERS)))
    if rng.random() < 0.5:
        makers[0] = _made_up_tool
    made = [make(rng) for make in makers]
    return list({offer.family: offer for offer in made}.values())


def _tool(rng: random.Random, name: str, description: str, properties: dict[str, Any], required: list[str]) -> Tool:
    """The schema, with its keys in one of the orders that clients send."""
    parameters: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    if rng.random() < 0.15:
        parameters["additionalProperties"] = False
    if rng.random() < 0.1:
        del parameters["required"]
    function: dict[str, Any] = {"name": name, "description": description, "parameters": parameters}
    if rng.random() < 0.15:
        del function["description"]
    if rng.random() < 0.1:
        function["strict"] = True
    if rng.random() < 0.2:
        function = dict(sorted(function.items()))
    tool: Tool = {"type": "function", "function": function}
    return dict(sorted(tool.items())) if rng.random() < 0.2 else tool


def _parameter(rng: random.Random, kind: str, description: str) -> dict[str, Any]:
    schema = {"type": kind, "description": description}
    if rng.random() < 0.35:
        del schema["description"]
    return dict(reversed(schema.items())) if rng.random() < 0.15 else schema


def place(rng: random.Random) -> str:
    """A city, known or made up."""
    return rng.choice(PLACES) if rng.random() < 0.6 else made_up(rng).capitalize()


def _weather(rng: random.Random) -> Offer:
    name = rng.choice((
        "get_weather", "get_current_weather", "weather", "fetch_weather", "weather_lookup",
        "getWeather", "current_weather", "get_temperature", "get_forecast",
    ))  # fmt: skip
    key = rng.choice(("city", "location", "city", "location", "place", "town", "city_name"))
    about = rng.choice(("The city", "City name", "The city and state, e.g. San Francisco, CA",
                        "Name of the city", "Where", "The location, e.g. Paris"))  # fmt: skip
    properties = {key: _parameter(rng, "string", about)}
    has_unit = rng.random() < 0.3
    if has_unit:
        properties["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    described = rng.choice((
        "Get the weather in a city.", "Get the current weather", "Current weather for a city",
        "Get the current weather in a given location", "Look up the weather.", "Weather by city",
    ))  # fmt: skip

    def ask(rng: random.Random) -> tuple[str, Arguments]:
        city = place(rng)
        if has_unit and rng.random() < 0.5:
            unit = rng.choice(("celsius", "fahrenheit"))
            said = unit if rng.random() < 0.5 else unit.capitalize()
            return fill(rng, WEATHER_UNIT, city=city, unit=said), {key: city, "unit": unit}
        return fill(rng, WEATHER, city=city), {key: city}

    return Offer("weather", _tool(rng, name, described, properties, [key]), ask)


def _clock(rng: random.Random) -> Offer:
    name = rng.choice(("get_time", "get_current_time", "current_time", "clock", "time_in"))
    key = rng.choice(("city", "location", "place", "timezone"))
    described = rng.choice(("Get the time in a city.", "Current time in a place", "Get the current time"))

    def ask(rng: random.Random) -> tuple[str, Arguments]:
        city = place(rng)
        return fill(rng, CLOCK, city=city), {key: city}

    properties = {key: _parameter(rng, "string", "Where")}
    return Offer("clock", _tool(rng, name, described, properties, [key]), ask)


def _arithmetic(rng: random.Random) -> Offer:
    name, described, phrasings = rng.choice((
        ("add", "Add two numbers.", SUM), ("add_numbers", "Adds two numbers", SUM),
        ("sum", "Sum of two numbers", SUM), ("multiply", "Multiply two numbers.", PRODUCT),
        ("product", "Multiplies two numbers", PRODUCT), ("calculator_add", "Add numbers", SUM),
    ))  # fmt: skip
    one, two = rng.choice((("a", "b"), ("x", "y"), ("first", "second"), ("a", "b")))
    kind = rng.choice(("integer", "number"))

    def ask(rng: random.Random) -> tuple[str, Arguments]:
        a, b = (rng.randint(0, 10 ** rng.randint(1, 4)) for _ in range(2))
        return fill(rng, phrasings, a=a, b=b), {one: a, two: b}

    properties = {one: _parameter(rng, kind, "One number"), two: _parameter(rng, kind, "Another")}
    return Offer("arithmetic", _tool(rng, name, described, properties, [one, two]), ask)


def _calculator(rng: random.Random) -> Offer:
    name = rng.choice(("calculator", "calculate", "evaluate", "math", "compute"))

    def ask(rng: random.Random) -> tuple[str, Arguments]:
        gap = rng.choice((" ", " ", ""))
        a, b, c = (rng.randint(1, 10 ** rng.randint(1, 3)) for _ in range(3))
        expression = f"{a}{gap}{rng.choice('+-*/')}{gap}{b}"
        if rng.random() < 0.2:
            expression = f"({expression}){gap}{rng.choice('+-*')}{gap}{c}"
        return fill(rng, EXPRESSION, expression=expression), {"expression": expression}

    properties = {"expression": _parameter(rng, "string", "What to calculate")}
    tool = _tool(rng, name, "Calculate an expression.", properties, ["expression"])
    return Offer("arithmetic", tool, ask)


def _search(rng: random.Random) -> Offer:
    name = rng.choice(("search", "web_search", "search_web", "search_docs", "google", "find_info"))
    key = rng.choice(("query", "query", "q", "text", "term"))
    described = rng.choice(("Search the web.", "Search for information", "Web search", "Finds pages"))

    def ask(rng: random.Random) -> tuple[str, Arguments]:
        words = [rng.choice(COMMON) if rng.random() < 0.6 else made_up(rng)
                 for _ in range(rng.randint(1, 5))]  # fmt: skip
        query = " ".join(words)
        return fill(rng, SEARCH, query=query), {key: query}

    properties = {key: _parameter(rng, "string", "What to search for")}
    return Offer("search", _tool(rng, name, described, properties, [key]), ask)


def _message(rng: random.Random) -> Offer:
    name = rng.choice(("send_message", "send_email", "notify", "send_sms", "write_message"))
    to = rng.choice(("to", "recipient", "person", "name"))
    text = rng.choice(("text", "message", "body", "content"))

    def ask(rng: random.Random) -> tuple[str, Arguments]:
        who, said = person(rng), phrase(rng, 7).replace('"', "").replace("\\", "")
        return fill(rng, MESSAGE, person=who, text=said), {to: who, text: said}

    properties = {
        to: _parameter(rng, "string", "Who gets it"),
        text: _parameter(rng, "string", "What to say"),
    }
    return Offer("message", _tool(rng, name, "Send a message.", properties, [to, text]), ask)


def _read(rng: random.Random) -> Offer:
    name = rng.choice(("read_file", "open_file", "cat", "get_file", "show_file"))
    key = rng.choice(("path", "file", "filename", "file_path"))

    def ask(rng: random.Random) -> tuple[str, Arguments]:
        folders = [rng.choice((rng.choice(COMMON), made_up(rng))) for _ in range(rng.randint(0, 2))]
        base = rng.choice((rng.choice(COMMON), made_up(rng)))
        file = base + rng.choice((".txt", ".md", ".py", ".json", ".toml", ""))
        path = rng.choice(("", "/", "/", "./")) + "/".join([*folders, file])
        return fill(rng, READ, path=path), {key: path}

    properties = {key: _parameter(rng, "string", "The path of the file")}
    return Offer("read", _tool(rng, name, "Read a file.", properties, [key]), ask)


def _timer(rng: random.Random) -> Offer:
    name = rng.choice(("set_timer", "start_timer", "timer", "remind"))
    key = rng.choice(("minutes", "duration", "time"))

    def ask(rng: random.Random) -> tuple[str, Arguments]:
        minutes = rng.randint(1, 120)
        return fill(rng, TIMER, minutes=minutes), {key: minutes}

    properties = {key: _parameter(rng, "integer", "How many minutes")}
    return Offer("timer", _tool(rng, name, "Set a timer.", properties, [key]), ask)


def _date(rng: random.Random) -> Offer:
    name = rng.choice(("get_date", "today", "current_date", "get_current_date"))
    return Offer(
        "date",
        _tool(rng, name, "Get today's date.", {}, []),
        lambda rng: (fill(rng, DATE), {}),
    )


def _made_up_tool(rng: random.Random) -> Offer:
    verb = rng.choice(VERBS) if rng.random() < 0.75 else made_up(rng)
    noun = rng.choice(NOUNS) if rng.random() < 0.6 else made_up(rng)
    camel = verb.replace("_", "") + noun.capitalize()
    name = camel if rng.random() < 0.12 else f"{verb}_{noun}"
    key = rng.choice((f"{noun}_id", "id", "name", "number", "code", noun, noun, f"{noun}_name", "value"))
    kind = rng.choice(("string", "string", "integer"))
    spoken = verb.replace("_", " ")

    def value(rng: random.Random) -> Any:
        if kind == "integer":
            return rng.randint(0, 10 ** rng.randint(1, 5))
        return rng.choice((person, made_up, code, lambda r: r.choice(COMMON)))(rng)

    def ask(rng: random.Random) -> tuple[str, Arguments]:
        given = value(rng)
        if rng.random() < 0.45:
            question = fill(rng, BY_NAME, tool=name, param=key, value=given)
        else:
            param = key.replace("_", " ") if rng.random() < 0.6 else key
            question = fill(rng, WISHED, verb=spoken, noun=noun, param=param, value=given)
        return question[0].upper() + question[1:], {key: given}

    properties = {key: _parameter(rng, kind, f"The {noun}")}
    described = f"{spoken.capitalize()} a {noun}."
    return Offer(f"{verb} {noun}", _tool(rng, name, described, properties, [key]), ask)


_MAKERS = [
    _weather, _weather, _clock, _clock, _arithmetic, _arithmetic, _arithmetic, _calculator, _search,
    _search, _message, _message, _message, _read, _read, _timer, _timer, _date,
    _made_up_tool, _made_up_tool, _made_up_tool, _made_up_tool, _made_up_tool,
]  # fmt: skip
