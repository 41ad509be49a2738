"""rq_router: messages routed by rules, as a plugin of rqcore."""
