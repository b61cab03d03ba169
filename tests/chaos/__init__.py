"""The chaos run: real nodes, a steady load, faults by a seed, and every answer checked. `make chaos`."""
