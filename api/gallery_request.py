"""What a request about the gallery may say. Pure."""

from api.fields import Flag, Integer, Text

SOURCE = Text(
    "source",
    about="A name of the gallery, or of a model that another node has; or hf://, ollama://, oci://, https://, file://.",
)
INSTALL_FIELDS = (
    SOURCE,
    Text("name", about="What the model is called; absent: as its source calls it."),
    Text("node", about="Name or id of the node that installs it; absent: this one."),
    Flag("everywhere", about="Install it on every node of the mesh; its origin is asked for each byte once."),
    Integer("context", 0, 10_000_000, about="Tokens of context that should fit into memory beside the weights."),
    Flag("allow_pickle", about="Also take checkpoints that can run any program when they are read."),
)
CARD = Text("card", about="The model's YAML.")
