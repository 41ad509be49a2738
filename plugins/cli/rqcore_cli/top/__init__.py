"""``rq top``: the queues live, over the whole screen.

`model` is what is known, by what `feed` hears; `draw` makes lines of it; `screen` is the terminal, which
is left as it was found; `loop` binds them.  Rich is not used here: its live display draws from a thread
of its own and knows nothing of Ctrl-Z.
"""
