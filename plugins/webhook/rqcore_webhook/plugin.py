"""What the kernel loads by the entry point ``rqcore: webhook``."""
