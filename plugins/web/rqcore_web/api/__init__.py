"""/api/v1: the REST interface for programs."""
