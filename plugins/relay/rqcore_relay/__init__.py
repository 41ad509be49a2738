"""Messages cross machines: rqcore's relay queue, as a plugin."""
