"""Metrics of rqcore: Prometheus, Graphite and StatsD."""
