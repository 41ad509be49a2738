"""Messages as files: ``rq export`` and ``rq import``; the format is described in docs/moving.md."""
