"""Trains several runs as the rows of one stacked model: initialization, dropout and rates change no tensor's shape.

Each row is an ordinary `fit` in every other respect: it has its own run folder, its own validations, checkpoints and
test, written by the code that any run is written by. Only its optimizer steps are made together with those of others.

    fusing.py     whether a recipe can be a row, and which rows can share a stack
    rows.py       a run that waits for its steps: one thread each, of which one goes at a time
    seating.py    seats rows, collects what they ask for, and hands it to stacks
    stack.py      weights and optimizer state of K rows, one step of all
    template.py   the net that a stack calls with each row's weights
    recurrent.py  recurrent layers of K nets at once
    optimizers.py the update of K rows at once
    draws.py      masks of K rows at once, those that each would draw alone

Importing this package imports neither Ray nor torch.
"""
