"""Who may connect, who it is, and whether a request is safe: what every request passes first."""
