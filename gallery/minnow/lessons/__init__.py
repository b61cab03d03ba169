"""What minnow is taught: one module per subject, each a seeded generator of turns.

A lesson takes a `Scene` (the conversation so far) and returns the messages to add. All its
phrasings are tables of templates with `{slots}`, so that a test can show that the exam's
held-out questions are not among them.
"""
