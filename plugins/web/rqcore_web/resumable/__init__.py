"""Uploads that go on where they were cut off: see `rqcore_web.resumable.shelf`."""
