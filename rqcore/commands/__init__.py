"""What a queue can be asked, by subject; `rqcore.requests` puts it together."""
