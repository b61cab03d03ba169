"""minnow: the small language model that comes with Shoal.

    minnow.gguf          the trained model, as any engine that reads GGUF loads it
    chat_template.jinja  how a conversation becomes text, in training and in serving
    exam.json, exam.py   the published list of questions and how answers are graded
    lessons/             what it was taught, as a seeded generator of conversations
    train.py             `python -m gallery.minnow.train` makes the model again

Importing this package loads nothing heavy: PyTorch and friends are imported by the
training modules alone.
"""
