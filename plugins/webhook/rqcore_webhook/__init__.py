"""Webhooks of rqcore: what happens to messages, told to URLs, signed, and never lost."""
