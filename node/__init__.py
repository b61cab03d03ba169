"""One running node: the only package that knows all the others and wires them together."""
