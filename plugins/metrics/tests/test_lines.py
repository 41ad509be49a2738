"""Lines of Graphite and StatsD: names, values, differences, packets."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rqcore_metrics.hookspecs import Distribution, Family
from rqcore_metrics.lines import PACKET, Deltas, Naming, graphite

PATH = Naming("", "mq1.example.com", tags=False)
TAGS = Naming("", "mq1.example.com", tags=True)


def gauge(value: float = 3, **labels: str) -> Family:
    return Family("rqcore_queue_messages", "gauge", "", [(labels, value)])


def counter(value: float) -> Family:
    return Family("rqcore_taken_total", "counter", "", [({"queue": "test"}, value)])


def times(count: int, total: float) -> Family:
    value = Distribution([(1, count), (math.inf, count)], total)
    return Family("rqcore_run_seconds", "histogram", "", [({"queue": "test"}, value)])


@pytest.mark.parametrize(
    ("naming", "line"),
    [
        (PATH, "rqcore.mq1_example_com.queue_messages.test.que 3 1700000000"),
        (TAGS, "rqcore.queue_messages;host=mq1.example.com;queue=test;state=que 3 1700000000"),
        (Naming("a.{host}.b", "x.y", tags=False), "a.x_y.b.queue_messages.test.que 3 1700000000"),
    ],
)
def test_names_of_graphite(naming: Naming, line: str) -> None:
    families = [gauge(queue="test", state="que")]
    assert graphite(families, naming, 1_700_000_000.9).decode() == line + "\n"


def test_what_would_end_a_part_of_a_name_does_not() -> None:
    odd = "http://b.example.com:3333/ ;~#|,ü\n"
    path = graphite([gauge(peer=odd)], PATH, 1).decode()
    assert path == "rqcore.mq1_example_com.queue_messages.http___b_example_com_3333_________ 3 1\n"
    tagged = graphite([gauge(peer=odd)], TAGS, 1).decode()
    assert tagged.count("\n") == 1
    assert tagged.count(";") == 2
    assert tagged.count(" ") == 2
    assert graphite([gauge(peer="")], PATH, 1).decode().split(" ")[0].endswith("._")


def test_a_histogram_is_its_count_and_its_sum_and_an_info_is_nothing() -> None:
    info = Family("rqcore_build_info", "info", "", [({"version": "1"}, 1)])
    lines = graphite([times(4, 6.5), info], PATH, 1).decode().splitlines()
    assert [line.split(".", 2)[2] for line in lines] == [
        "run_seconds.count.test 4 1", "run_seconds.sum.test 6.5 1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1e15, "1000000000000000"), (0.000001, "0.000001"), (2.5, "2.5"), (-1.5, "-1.5")],
)
def test_numbers_have_no_exponent(value: float, text: str) -> None:
    assert graphite([gauge(value)], PATH, 1).decode().split(" ")[1] == text


def told(deltas: Deltas, *families: Family) -> tuple[list[str], Deltas]:
    packets, after = deltas.packets(families)
    return [line for packet in packets for line in packet.decode().splitlines()], after


def test_statsd_is_told_differences() -> None:
    lines, deltas = told(Deltas(PATH), counter(5), gauge(3), times(2, 10))
    assert lines == ["rqcore.mq1_example_com.queue_messages:3|g"]
    lines, deltas = told(deltas, counter(7), gauge(3), times(4, 11))
    assert lines == [
        "rqcore.mq1_example_com.taken_total.test:2|c", "rqcore.mq1_example_com.queue_messages:3|g",
        "rqcore.mq1_example_com.run_seconds.test:500|ms|@0.5",
    ]  # fmt: skip
    lines, deltas = told(deltas, counter(7), times(5, 11.25))
    assert lines == ["rqcore.mq1_example_com.run_seconds.test:250|ms"]
    lines, deltas = told(deltas, counter(1), times(5, 11.25))  # begun anew
    assert lines == ["rqcore.mq1_example_com.taken_total.test:1|c"]


def test_a_queue_that_is_new_began_at_zero() -> None:
    _, deltas = told(Deltas(PATH), times(1, 1))
    lines, _ = told(deltas, counter(4), times(1, 1))
    assert lines == ["rqcore.mq1_example_com.taken_total.test:4|c"]


def test_statsd_with_tags_and_below_zero() -> None:
    lines, deltas = told(Deltas(TAGS), counter(1), gauge(-2, queue="a,b|c"))
    assert lines == [
        "rqcore.queue_messages:0|g|#host:mq1.example.com,queue:a_b_c",
        "rqcore.queue_messages:-2|g|#host:mq1.example.com,queue:a_b_c",
    ]
    lines, _ = told(deltas, counter(2))
    assert lines == ["rqcore.taken_total:1|c|#host:mq1.example.com,queue:test"]


@given(st.lists(st.text(max_size=40), max_size=300, unique=True), st.booleans())
def test_every_line_arrives_whole_in_packets_that_are_not_too_large(
    names: list[str], tags: bool
) -> None:
    family = Family("rqcore_x", "gauge", "", [({"queue": name}, 1) for name in names])
    naming = Naming("", "mq1", tags=tags)
    packets, _ = Deltas(naming).packets([family])
    assert all(0 < len(packet) <= PACKET for packet in packets)
    lines = [line for packet in packets for line in packet.decode().split("\n")]
    assert len(lines) == len(names)
    form = r"rqcore\.x:1\|g\|#host:mq1,queue:[^|,]+" if tags else r"rqcore\.mq1\.x\.[\w-]+:1\|g"
    assert all(re.fullmatch(form, line, re.ASCII if not tags else 0) for line in lines)


def test_what_is_no_number_is_left_out_and_the_rest_is_sent() -> None:
    odd = [gauge(value) for value in (math.nan, math.inf, -math.inf)]
    families = [*odd, times(1, math.nan), gauge(7)]
    assert [line.split()[1] for line in graphite(families, PATH, 1).decode().splitlines()] == ["7"]
    packets, _ = Deltas(PATH).packets(families)
    assert [packet.decode().split(":")[1] for packet in packets] == ["7|g"]
