"""Shoal's own commands: which one does what, and what each one does."""

import random
from dataclasses import dataclass

from gallery.minnow.lessons.scene import Scene, exchange
from gallery.minnow.lessons.wording import casual, fill
from gallery.minnow.lessons.words import COMMON, code, made_up
from gallery.minnow.template import Message


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, what it does, and what people want when they need it."""

    line: str
    does: str
    wishes: tuple[str, ...]

    @property
    def short(self) -> str:
        """The command as somebody asking about it would type it."""
        return " ".join(part for part in self.line.split() if not part.isupper())


COMMANDS = (
    Command("shoal up", "starts a node on this machine", (
        "start a node", "start Shoal", "bring up a node", "launch a node", "run a node",
        "start Shoal on this machine", "run Shoal", "get a node running", "start the server",
        "bring Shoal up", "make this machine a node", "start the node", "begin with Shoal")),
    Command("shoal demo", "starts a small mesh on this machine to try things out", (
        "try Shoal on one machine", "start the demo", "see a demo", "run the demo",
        "try a mesh on one machine", "start a demo mesh", "try Shoal out", "show a demo",
        "play with a small mesh", "get a demonstration", "demo Shoal")),
    Command("shoal status", "shows the nodes of the mesh and the models they hold", (
        "see the status", "show the nodes", "see which nodes there are", "list the nodes",
        "see the state of the mesh", "check the status", "look at the mesh", "see the mesh",
        "find out which nodes are there", "list the nodes of the mesh", "show the status",
        "see which machines are in the mesh")),
    Command("shoal status --watch", "keeps showing the status as it changes", (
        "watch the status", "keep watching the mesh", "follow the status",
        "see the status change", "watch the mesh live", "watch the nodes",
        "keep the status on the screen", "follow what the mesh does", "see the status live",
        "watch the status all the time")),
    Command("shoal chat", "opens a chat with a model in the terminal", (
        "chat with a model", "talk to a model", "open a chat", "chat in the terminal",
        "have a conversation with a model", "start a chat", "chat", "talk to the mesh",
        "ask a model something in the terminal")),
    Command("shoal models list", "lists the models the mesh knows", (
        "list the models", "see the models", "show all models", "see which models there are",
        "find out which models I can use", "list models", "see the available models",
        "show the models", "get a list of models")),
    Command("shoal models load NAME", "loads a model", (
        "load a model", "get a model loaded", "load another model", "load a larger model",
        "put a model on the GPU", "bring a model into memory", "make a model ready")),
    Command("shoal models unload NAME", "unloads a model and frees its memory", (
        "unload a model", "free the memory of a model", "remove a model from memory",
        "get rid of a loaded model", "take a model off the GPU", "unload one of the models",
        "stop a model")),
    Command("shoal token new", "makes a new token for a mesh", (
        "make a new token", "create a token", "get a new token", "generate a token",
        "make a token for a mesh", "create a new mesh token", "get a fresh token",
        "create a secret for a new mesh")),
    Command("shoal token show", "shows the token of this mesh", (
        "see the token", "show the token", "find the token", "look up the token",
        "see the token of this mesh", "display the token", "read the token again",
        "find out my token", "print the token")),
    Command("shoal doctor", "checks this machine and says what is wrong", (
        "find out what is wrong", "check this machine", "diagnose a problem",
        "check my installation", "find problems", "see why it does not work",
        "troubleshoot Shoal", "check that all is well", "debug my setup", "find the problem")),
    Command("shoal up --peer ADDRESS", "connects to a node whose address you know", (
        "connect to a known node", "join a node by its address", "give the address of a peer",
        "connect to a peer", "reach a node on another network", "join another node",
        "add a peer", "connect to another machine", "name a peer")),
    Command("shoal up --token TOKEN", "joins the mesh that has this token", (
        "join a mesh with its token", "use a token", "join an existing mesh",
        "start a node with a token", "give a node the token", "enter a mesh with a token",
        "join my mesh", "pass a token", "join a mesh")),
    Command("shoal up --open", "runs without a token", (
        "run without a token", "start without a token", "run an open mesh",
        "leave the token out", "start an open mesh", "go without a token",
        "make the mesh open", "let anyone join", "start a node without a token")),
    Command("shoal up --port PORT", "chooses the port of the API", (
        "choose the port", "change the port", "set the port", "use another port",
        "pick a port", "listen on another port", "run on a different port",
        "set the API port", "start a node on another port")),
)  # fmt: skip

WISHING = (
    "How do I {wish}?", "how do I {wish}", "How can I {wish}?", "Which command lets me {wish}?",
    "What is the command to {wish}?", "What command do I use to {wish}?", "I want to {wish}.",
    "Show me how to {wish}.", "Tell me how to {wish}.", "What do I type to {wish}?",
    "How would I {wish}?", "What should I run to {wish}?", "How to {wish}?", "how to {wish}",
    "With Shoal, how do I {wish}?", "In Shoal, how can I {wish}?", "I need to {wish}. How?",
    "Which Shoal command do I need to {wish}?", "What do I have to do to {wish}?",
    "How do you {wish}?", "Can you tell me how to {wish}?", "How does one {wish}?",
    "Which shoal command can {wish}?", "I would like to {wish}.", "Command to {wish}?",
    "What would I run to {wish}?", "Could you show me how to {wish}?", "Can I {wish}?",
    "Does Shoal have a way to {wish}?", "What lets me {wish}?", "I wonder how to {wish}.",
    "My goal is to {wish}.", "Help me {wish}.", "Is it possible to {wish}?",
    "Please explain how to {wish}.", "What is the way to {wish}?",
    "If I want to {wish}, what do I run?", "How should I {wish}?", "How could I {wish}?",
    "Is there something to {wish}?", "I am trying to {wish}.",
)  # fmt: skip

MEANING = (
    "What does `{line}` do?", "What does {line} do?", "what does {line} do", "What is `{line}`?",
    "What is {line} for?", "What is `{line}` for?", "Explain `{line}`.", "Explain {line}.",
    "What happens when I run `{line}`?", "Tell me about {line}.", "Describe `{line}`.",
    "What is the command {line} for?", "Why would I run {line}?", "What does the command {line} do?",
    "When do I need {line}?", "What happens if I type {line}?", "Can you explain `{line}`?",
    "Please explain what {line} does.", "Tell me what `{line}` does.",
    "I read about `{line}`. What is it?", "What would `{line}` do?",
    "Do you know what {line} does?", "What is {line}?",
)  # fmt: skip

FLAG = (
    "What does {flag} do?", "What is `{flag}` for?", "What does the flag {flag} mean?",
    "What does `{flag}` do?", "Explain {flag}.", "What is the {flag} flag?",
    "What is the {flag} option for?", "What does the option {flag} do?", "When do I need {flag}?",
)  # fmt: skip

LOAD = (
    "How do I load the model {name}?", "How do I load {name}?", "How can I load {name}?",
    "I want to load {name}.", "What is the command to load {name}?", "Which command loads {name}?",
    "Show me how to load {name}.", "What do I type to load the model {name}?",
)  # fmt: skip
UNLOAD = tuple(phrasing.replace("load", "unload") for phrasing in LOAD)
PORT = (
    "How do I start a node on port {port}?", "How do I use port {port}?", "How do I run on port {port}?",
    "How can I listen on port {port}?", "I want to use port {port}.", "How do I set the port to {port}?",
    "What is the command to use port {port}?",
)  # fmt: skip
ALL = (
    "List Shoal's commands.", "Which commands are there?", "What commands does Shoal have?",
    "What are Shoal's commands?", "Which commands does Shoal have?", "Show me all commands.",
    "List all commands.", "What commands are there?", "List the shoal commands.",
)  # fmt: skip
ALL_REPLY = (
    "The commands are `shoal up`, `shoal demo`, `shoal status`, `shoal chat`, `shoal models`, "
    "`shoal token` and `shoal doctor`."
)

PHRASINGS = (
    *(template.format(wish=w) for c in COMMANDS for w in c.wishes for template in WISHING),
    *MEANING, *FLAG, *LOAD, *UNLOAD, *PORT, *ALL,
)  # fmt: skip


def commands(scene: Scene) -> list[Message]:
    """A question about a command, from the wish or from the name."""
    rng = scene.rng
    kind = rng.random()
    if kind < 0.1:
        return _with_a_value(rng)
    if kind < 0.13:
        return exchange(casual(rng, fill(rng, ALL)), ALL_REPLY)
    command = rng.choice(COMMANDS)
    if kind < 0.7:
        question = fill(rng, WISHING, wish=rng.choice(command.wishes))
        return exchange(casual(rng, question), how(command.line))
    flag = command.short.split()[-1]
    if flag.startswith("--") and rng.random() < 0.5:
        return exchange(casual(rng, fill(rng, FLAG, flag=flag)), meaning(command))
    said = command.line if rng.random() < 0.2 else command.short
    return exchange(casual(rng, fill(rng, MEANING, line=said)), meaning(command))


def how(line: str) -> str:
    """The answer to a wish."""
    return f"Run `{line}`."


def meaning(command: Command) -> str:
    """The answer to "what does it do"."""
    return f"`{command.line}` {command.does}."


def _with_a_value(rng: random.Random) -> list[Message]:
    kind = rng.randrange(3)
    if kind == 2:
        port = rng.choice((8080, 8000, 9000, 80, 1234, rng.randint(1, 65535)))
        return exchange(fill(rng, PORT, port=port), how(f"shoal up --port {port}"))
    word = rng.choice((made_up(rng), rng.choice(COMMON), "minnow", code(rng)))
    name = word if rng.random() < 0.6 else f"{word}-{rng.randint(1, 80)}b"
    templates, verb = ((LOAD, "load"), (UNLOAD, "unload"))[kind]
    return exchange(fill(rng, templates, name=name), how(f"shoal models {verb} {name}"))
