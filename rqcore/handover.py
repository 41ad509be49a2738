"""Handing a message to another queue of this instance, in two phases, safe to be run again."""
