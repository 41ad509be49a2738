"""RQ's own URLs, as its users know them: curl lines, scripts, and other instances rely on them."""
