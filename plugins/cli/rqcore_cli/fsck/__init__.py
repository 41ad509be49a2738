"""``rq fsck``: what lies in the spool, derived from the disk alone, and what is wrong with it."""
