"""The cleaner of rqcore: old messages go by rules, logs are rotated, a disk never fills."""
