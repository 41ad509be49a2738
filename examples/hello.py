#!/usr/bin/env python3
"""A queue script in Python: what it prints is the log, what it writes to descriptor 3 is for RQ."""

import os

name = os.environ["RQ_PARAM1"] or "stranger"
with open(3, "w", buffering=1) as rq:
    for step in range(1, 4):
        print(f"step {step} of 3", flush=True)
        rq.write(f"run step {step} of 3\n")
    print(f"Hello, {name}. My files are in {os.path.abspath('../attach')}", flush=True)
    rq.write(f"done said hello to {name}\n")
