"""``rq metrics``: the metrics as text, a dashboard for Grafana, rules of alerts for Prometheus.

Made by the group that `rq` hands to plugins, so that it looks and behaves like its own commands.
"""

from __future__ import annotations

import math
from importlib import resources
from typing import Any

import click

from rqcore.faces import App
from rqcore.hookspecs import InstanceInfo
from rqcore_metrics.collect import collect
from rqcore_metrics.hookspecs import Distribution, Family
from rqcore_metrics.options import read_options

_OPENMETRICS = "application/openmetrics-text; version=1.0.0"
#: The exit status of every command of `rq` that found nobody to answer.
_UNREACHABLE = 5


def register(cli: Any) -> None:
    """Add ``rq metrics`` and all below it; ``cli`` is the click group behind ``rq``."""
    group = cli.group(
        "metrics",
        short_help="Print the metrics; a dashboard and alerts for them.",
        invoke_without_command=True,
        examples="""
rq metrics                               what Prometheus reads at /metrics
rq metrics | grep queue_messages
rq metrics --json
rq metrics dashboard > rqcore.json       import it into Grafana
rq metrics alerts > rqcore.rules.yml     name it under rule_files of Prometheus
""",
    )(metrics)
    group.command("dashboard", short_help="Print a dashboard for Grafana.", examples="""
rq metrics dashboard > rqcore.json
""")(dashboard)  # fmt: skip
    group.command("alerts", short_help="Print rules of alerts for Prometheus.", examples="""
rq metrics alerts > /etc/prometheus/rqcore.rules.yml
promtool check rules /etc/prometheus/rqcore.rules.yml
""")(alerts)  # fmt: skip


@click.option("--openmetrics", is_flag=True, help="As OpenMetrics, in place of text format 0.0.4.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def metrics(ctx: click.Context, *, openmetrics: bool, as_json: bool) -> None:
    """Print the metrics of this instance, as Prometheus reads them.

    What was counted is printed whether RQ runs or not; how the queues are needs it to run. Exit status
    5 means that it does not.
    """
    if ctx.invoked_subcommand is not None:
        return
    app: App = ctx.obj
    directory = str(app.instance.directory)
    settings, _ = app.instance.load_config()
    options = read_options(directory)
    instance = InstanceInfo(directory, settings.base_url, settings.raw)
    app.hooks.configure(instance, settings.plugins)
    families = collect(app.hooks, instance, plugin_hooks=options.plugin_hooks)
    if as_json:
        click.echo(_json(families))
    else:
        from rqcore_metrics.exposition import exposition  # noqa: PLC0415 - slow to import

        text, _ = exposition(families, _OPENMETRICS if openmetrics else "")
        click.echo(text.decode(), nl=False)
    if not _runs(families):
        app.warn("RQ does not run here: this is what was counted; start it with: rq start")
        ctx.exit(_UNREACHABLE)


def _runs(families: list[Family]) -> bool:
    return any(family.name == "rqcore_up" and family.samples[0][1] == 1 for family in families)


def _json(families: list[Family]) -> str:
    import json  # noqa: PLC0415 - for this form only

    def shown(value: float | Distribution) -> object:
        if not isinstance(value, Distribution):
            return value
        buckets = [[None if math.isinf(bound) else bound, count] for bound, count in value.buckets]
        return {"buckets": buckets, "sum": value.total, "count": value.buckets[-1][1]}

    return json.dumps(
        [
            {
                "name": family.name, "kind": family.kind, "help": family.help,
                "samples": [
                    {"labels": dict(labels), "value": shown(value)}
                    for labels, value in family.samples
                ],
            }
            for family in families
        ],
        indent=2,
    )  # fmt: skip


def dashboard() -> None:
    """Print a dashboard for Grafana: import it, and choose the Prometheus that scrapes RQ."""
    click.echo(_file("rqcore.json"), nl=False)


def alerts() -> None:
    """Print rules of alerts for Prometheus; docs/metrics.md says what each means and what to do."""
    click.echo(_file("rqcore.rules.yml"), nl=False)


def _file(name: str) -> str:
    return resources.files("rqcore_metrics").joinpath("grafana", name).read_text("utf-8")
