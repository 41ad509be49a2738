"""rqcore.config and rqcore.schema: every value is either understood or explained."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqcore.config import (
    INSTANCE_KEYS,
    OLD_COALESCE_KEYS,
    QUEUE_KEYS,
    SCHEDULE_KEYS,
    ConfigError,
    InstanceConfig,
    Problem,
    QueueConfig,
    ScheduleLine,
    decode_json,
    is_host_name,
    parse_instance,
    parse_queue,
)
from rqcore.message import full_id, parse_full_id, queue_name_problem

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def objects(keys: Iterable[str]) -> st.SearchStrategy[dict[str, object]]:
    """Objects that have some of these keys, with any value, and perhaps strange keys too."""
    spelled = st.sampled_from(["yes", "no", 1, 0, "1", "", [], {}, [1, "2"], "x", "/", "\0"])
    return st.fixed_dictionaries({}, optional=dict.fromkeys(keys, JSON | spelled)).flatmap(
        lambda known: st.dictionaries(st.text(), JSON, max_size=2).map(lambda odd: odd | known)
    )


def is_json(value: object) -> bool:
    """Whether it is free of NaN and infinity, which JSON does not know."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def instance(**keys: object) -> tuple[InstanceConfig, list[Problem]]:
    return parse_instance({"host": "mq1.example.com"} | keys, "config.json")


def queue(**keys: object) -> tuple[QueueConfig, list[Problem]]:
    return parse_queue({"script": "./run"} | keys, "config.json", "test")


def keys_of(problems: Iterable[Problem]) -> list[str]:
    return [problem.key for problem in problems]


def refused_instance(**keys: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        instance(**keys)
    return keys_of(caught.value.problems)


def refused_queue(**keys: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        queue(**keys)
    return keys_of(caught.value.problems)


# -- any input ---------------------------------------------------------------------------------


def assert_explained(error: ConfigError) -> None:
    assert error.problems
    for problem in (*error.problems, *error.warnings):
        assert problem.reason
        assert problem.remedy
        assert str(problem).isprintable()
        assert str(problem) in str(error)
        assert hash(problem) == hash(problem)


@given(JSON | objects(INSTANCE_KEYS))
def test_any_value_is_an_instance_or_a_config_error(raw: object) -> None:
    try:
        config, warnings = parse_instance(raw, "c.json")
    except ConfigError as error:
        assert_explained(error)
    else:
        assert config.raw == raw
        assert 1 <= config.port <= 65535
        assert config.relative_root.startswith("/")
        assert config.relative_root.endswith("/")
        assert parse_full_id(full_id(config.base_url, "q", "20260101.0000.00.000.1")) is not None
        assert all(str(warning).isprintable() for warning in warnings)


@given(JSON | objects([*QUEUE_KEYS, *OLD_COALESCE_KEYS]))
def test_any_value_is_a_queue_or_a_config_error(raw: object) -> None:
    try:
        config, warnings = parse_queue(raw, "c.json", "test")
    except ConfigError as error:
        assert_explained(error)
    else:
        assert 1 <= config.num_workers <= 128
        assert set(config.coalesce_params + config.blocking_params) <= {1, 2, 3, 4}
        # What the operating system will be given can be given to it.
        for text in [config.script, config.exec_prefix or "", *config.env_vars.values()]:
            assert b"\0" not in text.encode("utf-8", "surrogateescape")
        assert not any(name.startswith("RQ_") for name in config.env_vars)
        assert all(str(warning).isprintable() for warning in warnings)


@given(st.lists(JSON | objects(SCHEDULE_KEYS), max_size=4).filter(is_json))
def test_any_schedule_keeps_the_queue(entries: list[object]) -> None:
    config, warnings = queue(schedule=entries)
    skipped = [w for w in warnings if "skipped" in w.remedy]
    assert len(config.schedule) + len({w.key[:11] for w in skipped}) == len(entries)


@given(st.text())
def test_any_queue_name_is_taken_or_refused(name: str) -> None:
    if queue_name_problem(name) is None:
        assert parse_queue({"script": "./run"}, "c.json", name)[0].name == name
        return
    with pytest.raises(ConfigError) as caught:
        parse_queue({"script": "./run"}, "c.json", name)
    assert keys_of(caught.value.problems) == ["name"]


def test_a_name_of_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ConfigError, match="surrogate"):
        parse_queue({"script": "./run"}, "c.json", "\ud800")


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_json_or_a_config_error(data: bytes) -> None:
    try:
        raw, warnings = decode_json(data, "c.json")
    except ConfigError as error:
        assert_explained(error)
    else:
        assert data.strip()
        assert warnings == [] or isinstance(raw, dict | list) or data.startswith(b"\xef")


# -- the text of a file ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b" \n\t", "is empty"),
        (b"\xef\xbb\xbf\n", "is empty"),
        (b'{"a": 1', "line 1, column 8"),
        (b'{\n  "a": 1,\n}', "remove the comma"),
        (b"[1,]", "remove the comma"),
        (b'{"a": 1, // one\n "b": 2}', "no comments"),
        (b"# config\n{}", "no comments"),
        (b"{'a': 1}", "double quotes"),
        (b'{"a": 1}\n{"b": 2}', "line 2, column 1"),
        (b'{"a": "\n"}', "Invalid control character at line 1, column 8"),
        (b"\xff\xfe{\0}\0", "UTF-16"),
        (b'{"a":\0}', "NUL byte at offset 5"),
        (b"\0" * 4096, "NUL byte at offset 0"),
        (b" " * (10 << 20), "longer than 1048576 bytes"),
        (b"[" * 100_000, "nests deeper"),
        (b"9" * 10_000, "thousands of digits"),
    ],
)
def test_what_is_not_json_is_explained(data: bytes, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode_json(data, "/rq/config/config.json")
    assert str(caught.value).startswith("/rq/config/config.json: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_forgiven() -> None:
    raw, warnings = decode_json(b'\xef\xbb\xbf{"a": 1}', "c.json")
    assert raw == {"a": 1}
    assert "byte order mark" in str(warnings[0])


def test_a_key_that_stands_twice_is_told() -> None:
    raw, warnings = decode_json(b'{"port": 1, "x": {"port": 3}, "port": 2}', "c.json")
    assert raw == {"port": 2, "x": {"port": 3}}
    assert keys_of(warnings) == ["port"]


def test_bytes_that_are_not_utf8_survive() -> None:
    raw, _ = decode_json(b'{"script": "./caf\xe9"}', "c.json")
    config, _ = parse_queue(raw, "c.json", "test")
    assert config.script.encode("utf-8", "surrogateescape") == b"./caf\xe9"


@pytest.mark.parametrize(
    "raw",
    [
        {"host": "h", "plugins": {"web": {"x": float("nan")}}},
        {"host": "h", "x": [float("inf")]},
        {"host": "h", 1: 2},
    ],
)
def test_what_json_cannot_carry_is_refused(raw: object) -> None:
    with pytest.raises(ConfigError):
        parse_instance(raw, "c.json")


def test_deep_nesting_is_refused_wherever_it_comes_from() -> None:
    deep: object = 1
    for _ in range(50_000):
        deep = [deep]
    assert refused_instance(x=deep) == ["x"]
    assert refused_queue(x=deep) == ["x"]


@pytest.mark.parametrize("raw", [None, [], "text", 1, True, [{"host": "h"}]])
def test_the_top_must_be_an_object(raw: object) -> None:
    with pytest.raises(ConfigError, match="one JSON object"):
        parse_instance(raw, "c.json")
    with pytest.raises(ConfigError, match="one JSON object"):
        parse_queue(raw, "c.json", "test")


# -- problems as people see them ---------------------------------------------------------------


def test_a_problem_is_one_line() -> None:
    problem = Problem("a\nb", "k\te\ud800y", "v\n" * 99, "must be short", "shorten it")
    assert str(problem).isprintable()
    assert str(problem).startswith('a\\nb: "k\\te\\ud800y" must be short, found "v\\n')
    assert len(str(problem)) < 160


def test_all_problems_come_at_once_and_warnings_with_them() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_instance({"hsot": "mq1", "port": 0, "addr": "*", "plugins": []}, "c.json")
    assert keys_of(caught.value.problems) == ["host", "port", "addr", "plugins"]
    assert str(caught.value).splitlines() == [
        'c.json: "host" is missing; set it to the machine\'s full, unique name',
        'c.json: "port" must be a whole number from 1 to 65535, found 0; for instance 3333',
        'c.json: "addr" is no address, found "*"; give an IP address; 0.0.0.0 stands for all',
        'c.json: "plugins" must be an object, not a list; write { }',
        'also: c.json: "hsot" is not a key that rqcore knows; did you mean "host"?',
    ]


def test_a_value_of_the_wrong_kind_is_told_once() -> None:
    assert refused_instance(basic_auth=[]) == ["basic_auth"]
    assert refused_instance(basic_auth={"users": ["a"]}) == ["basic_auth.users"]
    assert refused_queue(schedule={}) == ["schedule"]
    assert refused_queue(env_vars=[]) == ["env_vars"]


# -- the main config ---------------------------------------------------------------------------


def test_the_defaults_of_an_instance() -> None:
    config, warnings = instance()
    assert warnings == []
    assert config == InstanceConfig(
        host="mq1.example.com",
        env="development",
        port=3333,
        addr="127.0.0.1",
        tmpdir="",
        allow_new_queue=False,
        relative_root="/",
        basic_auth={},
        allowed_ips=(),
        hostnames=(),
        stop_grace=10,
        kill_grace=5,
        store="directory",
        plugins={},
        plugins_disabled=(),
        raw={"host": "mq1.example.com"},
    )
    assert config.base_url == "http://mq1.example.com:3333/"
    assert {config: 1}[config] == 1


def test_null_is_the_same_as_nothing() -> None:
    nothing = dict.fromkeys(INSTANCE_KEYS[1:])
    config, warnings = instance(**nothing)
    assert dataclasses.replace(config, raw={}) == dataclasses.replace(instance()[0], raw={})
    assert warnings == []


def test_every_key_of_an_instance_has_an_effect() -> None:
    keys: dict[str, object] = {
        "host": "h",
        "env": "stage",
        "port": "80",
        "addr": "::1",
        "tmpdir": "/tmp",
        "allow_new_queue": "yes",
        "relative_root": "rq",
        "basic_auth": {"users": {"a": "b"}},
        "allowed_ips": ["10.1.2.3", "fe80::/10"],
        "hostnames": ["http://alias:1", "https://b/rq"],
        "log_format": "json",
        "stop_grace": "0.5",
        "kill_grace": 0,
        "store": "memory",
        "plugins": {"web": {"a": 1}, "relay": None},
        "plugins_disabled": ["router"],
    }
    config, warnings = instance(**keys)
    assert warnings == []
    assert set(keys) == set(INSTANCE_KEYS)
    for key in keys:
        assert getattr(config, key) != getattr(instance()[0], key), key
    assert config.base_url == "http://h:80/rq/"
    assert config.basic_auth == {"realm": "RQ", "users": {"a": "b"}}
    assert config.hostnames == ("http://alias:1/", "https://b/rq/")
    assert (config.stop_grace, config.kill_grace) == (0.5, 0)
    assert config.plugins == {"web": {"a": 1}, "relay": {}}


@pytest.mark.parametrize(
    ("root", "base"),
    [("", "/"), ("/", "/"), ("//", "/"), ("rq", "/rq/"), ("/a//b", "/a/b/"), ("/rq/", "/rq/")],
)
def test_the_root_begins_and_ends_with_a_slash(root: str, base: str) -> None:
    assert instance(relative_root=root)[0].relative_root == base


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("host", ""),
        ("host", 5),
        ("host", "http://mq1"),
        ("host", "mq1:3333"),
        ("host", "a b"),
        ("host", "10.0.0.0/8"),
        ("env", ["test"]),
        ("port", 0),
        ("port", 65536),
        ("port", "http"),
        ("port", ""),
        ("port", True),
        ("port", 33.5),
        ("port", "٣"),
        ("port", 10**400),
        ("addr", "*"),
        ("addr", ""),
        ("tmpdir", "a\0b"),
        ("tmpdir", 5),
        ("allow_new_queue", ["yes"]),
        ("relative_root", "/../x"),
        ("relative_root", "/a?b"),
        ("relative_root", "http://h/"),
        ("basic_auth", {}),
        ("basic_auth", {"users": {}}),
        ("allowed_ips", []),
        ("allowed_ips", ""),
        ("allowed_ips", "10.0.0.1"),
        ("allowed_ips", ["10.0.0"]),
        ("hostnames", ["mq1"]),
        ("hostnames", ["http://"]),
        ("stop_grace", -1),
        ("stop_grace", "soon"),
        ("stop_grace", 86401),
        ("stop_grace", True),
        ("store", ""),
        ("plugins", ["web"]),
        ("plugins_disabled", "web"),
    ],
)
def test_a_wrong_value_of_an_instance_is_refused(key: str, value: object) -> None:
    assert refused_instance(**{key: value}) == [key]


@pytest.mark.parametrize(
    ("auth", "key"),
    [
        ({"users": {"a": 1}}, "basic_auth.users.a"),
        ({"users": {"a:b": "c"}}, "basic_auth.users.a:b"),
        ({"users": {"": "c"}}, "basic_auth.users."),
        ({"users": {"a": "b"}, "realm": 'x"y'}, "basic_auth.realm"),
        ({"users": {"a": "b"}, "realm": "x\r\ny"}, "basic_auth.realm"),
    ],
)
def test_a_wrong_user_is_refused(auth: object, key: str) -> None:
    assert refused_instance(basic_auth=auth) == [key]


def test_passwords_are_never_shown() -> None:
    config, _ = instance(basic_auth={"users": {"a": "hunter2"}}, plugins={"x": {"t": "hunter2"}})
    assert "hunter2" not in repr(config)
    for wrong in ({"users": {"a:": "hunter2"}}, {"users": {"a": ["hunter2"]}}, ["hunter2"]):
        with pytest.raises(ConfigError) as caught:
            instance(basic_auth=wrong)
        assert "hunter2" not in str(caught.value)


def test_a_strange_environment_is_taken_and_told() -> None:
    config, warnings = instance(env="prodution")
    assert config.env == "prodution"
    assert "production" in str(warnings[0])


def test_localhost_in_production_is_told() -> None:
    assert keys_of(instance(env="production", host="localhost")[1]) == ["host"]
    assert instance(host="localhost")[1] == []


def test_an_address_of_version_6_is_bracketed() -> None:
    assert instance(host="fe80::1")[0].base_url == "http://[fe80::1]:3333/"


@pytest.mark.parametrize("host", ["a", "A-1.example.com", "under_score", "10.0.0.1", "::1", "h."])
def test_host_names(host: str) -> None:
    assert is_host_name(host)


@pytest.mark.parametrize("spelled", [True, "true", "yes", "1", 1])
def test_truth(spelled: object) -> None:
    assert instance(allow_new_queue=spelled) == (
        dataclasses.replace(
            instance()[0],
            allow_new_queue=True,
            raw={"host": "mq1.example.com", "allow_new_queue": spelled},
        ),
        [],
    )


@pytest.mark.parametrize(("spelled", "told"), [("no", []), (0, []), ("on", ["allow_new_queue"])])
def test_what_is_not_truth_is_false(spelled: object, told: list[str]) -> None:
    config, warnings = instance(allow_new_queue=spelled)
    assert config.allow_new_queue is False
    assert keys_of(warnings) == told


# -- the config of a queue ---------------------------------------------------------------------


def test_the_defaults_of_a_queue() -> None:
    config, warnings = queue()
    assert warnings == []
    assert config == QueueConfig(
        name="test",
        script="./run",
        num_workers=1,
        exec_prefix=None,
        env_vars={},
        coalesce_params=(),
        blocking_params=(),
        schedule=(),
        fsync=True,
        store=None,
        raw={"script": "./run"},
    )


def test_every_key_of_a_queue_has_an_effect() -> None:
    keys: dict[str, object] = {
        "name": "test",
        "script": "/bin/x",
        "num_workers": " 128 ",
        "exec_prefix": "",
        "env_vars": {"A": "x y", "B": 5, "C": 1.5, "D": 2.0, "E": ""},
        "coalesce_params": ["3", 1, 3],
        "blocking_params": [4],
        "schedule": [{"cron": "@daily", "param1": 5, "param2": True, "tz": "UTC"}],
        "fsync": "no-fsync",
        "ordering": "none",
        "store": "memory",
        "timeout": "90.5",
    }
    config, warnings = queue(**keys)
    assert warnings == []
    assert set(keys) == set(QUEUE_KEYS)
    for key in set(keys) - {"ordering", "name"}:
        assert getattr(config, key) != getattr(queue()[0], key), key
    assert config.num_workers == 128
    assert config.exec_prefix == ""
    assert config.env_vars == {"A": "x y", "B": "5", "C": "1.5", "D": "2", "E": ""}
    assert config.coalesce_params == (1, 3)
    assert config.schedule == (
        ScheduleLine(cron="@daily", param1="5", param2="true", tz="UTC", catchup="last"),
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("script", None),
        ("script", ""),
        ("script", "x" * 1025),
        ("script", "a\0"),
        ("script", "\ud800"),
        ("script", ["a"]),
        ("num_workers", 0),
        ("num_workers", 129),
        ("num_workers", "many"),
        ("num_workers", ""),
        ("num_workers", False),
        ("exec_prefix", 1),
        ("exec_prefix", "a\0"),
        ("coalesce_params", [0]),
        ("coalesce_params", [5]),
        ("coalesce_params", [True]),
        ("coalesce_params", 1),
        ("blocking_params", ["param1"]),
        ("blocking_params", [None]),
        ("schedule", "@daily"),
        ("fsync", "nofsync"),
        ("fsync", []),
        ("store", ""),
    ],
)
def test_a_wrong_value_of_a_queue_is_refused(key: str, value: object) -> None:
    assert refused_queue(**{key: value}) == [key]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", "x" * 129, "a.deleted.1", "\n"])
def test_a_wrong_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match='"name"'):
        parse_queue({"script": "./run"}, "c.json", name)


def test_the_name_of_the_directory_counts() -> None:
    config, warnings = queue(name="other")
    assert config.name == "test"
    assert keys_of(warnings) == ["name"]
    assert 'the queue is "test"' in str(warnings[0])


@pytest.mark.parametrize(
    ("variables", "key"),
    [
        ({"": "x"}, "env_vars."),
        ({"A=B": "x"}, "env_vars.A=B"),
        ({"A\0": "x"}, "env_vars.A\0"),
        ({"A": "x\0"}, "env_vars.A"),
        ({"A": "\ud800"}, "env_vars.A"),
        ({"\ud800": "x"}, "env_vars.\ud800"),
        ({"A": True}, "env_vars.A"),
        ({"A": None}, "env_vars.A"),
        ({"A": ["x"]}, "env_vars.A"),
        ({"A": 10**5000}, "env_vars.A"),
        ({"A": "x" * 131_070}, "env_vars.A"),
    ],
)
def test_a_variable_that_no_program_can_be_given_is_refused(variables: object, key: str) -> None:
    assert refused_queue(env_vars=variables) == [key]


def test_variables_of_rq_are_left_out() -> None:
    config, warnings = queue(env_vars={"RQ_HOST": "x", "RQ_X": None, "RQX": "y", "B": "x" * 131069})
    assert set(config.env_vars) == {"RQX", "B"}
    assert keys_of(warnings) == ["env_vars.RQ_HOST", "env_vars.RQ_X"]


@pytest.mark.parametrize(
    ("keys", "params"),
    [
        ({"coalesce": "yes", "coalesce_param1": 1}, (1,)),
        ({"coalesce": "yes", "coalesce_param1": "1", "coalesce_param4": "yes"}, (1, 4)),
        ({"coalesce": "no", "coalesce_param1": 1}, ()),
        ({"coalesce_param1": 1}, ()),
        ({"coalesce": "yes", "coalesce_param1": 1, "coalesce_params": [2]}, (2,)),
        ({"coalesce": "no", "coalesce_params": ["2"]}, (2,)),
        ({"coalesce_params": ""}, ()),
    ],
)
def test_the_older_spelling_of_coalescing(keys: dict[str, object], params: object) -> None:
    config, warnings = queue(**keys)
    assert config.coalesce_params == params
    assert warnings == []


def test_coalescing_without_a_parameter_is_told() -> None:
    assert keys_of(queue(coalesce="yes")[1]) == ["coalesce"]


@pytest.mark.parametrize(
    ("spelled", "meant"),
    [("fsync", True), (True, True), ("yes", True), ("no-fsync", False), (False, False), (0, False)],
)
def test_fsync(spelled: object, meant: bool) -> None:
    assert queue(fsync=spelled)[0].fsync is meant


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ("@daily", "schedule[1]"),
        ({}, "schedule[1].cron"),
        ({"cron": ""}, "schedule[1].cron"),
        ({"cron": 5}, "schedule[1].cron"),
        ({"cron": "@daily", "param2": ["x"]}, "schedule[1].param2"),
        ({"cron": "@daily", "param2": "\0"}, "schedule[1].param2"),
        ({"cron": "@daily", "tz": 1}, "schedule[1].tz"),
        ({"cron": "@daily", "catchup": "some"}, "schedule[1].catchup"),
    ],
)
def test_a_bad_entry_is_skipped_and_the_rest_works(entry: object, key: str) -> None:
    good = {"cron": "* * * * *", "catchup": "all"}
    config, warnings = queue(schedule=[good, entry, good])
    assert [line.catchup for line in config.schedule] == ["all", "all"]
    assert keys_of(warnings) == [key]
    assert "skipped" in str(warnings[0])


@pytest.mark.parametrize("line", [{"cron": "61 * * * *"}, {"cron": "@daily", "tz": "Mars/X"}])
def test_a_cron_line_that_means_no_time_is_told_and_skipped(line: dict[str, str]) -> None:
    config, warnings = queue(schedule=[line, {"cron": "@hourly"}])
    assert config.schedule == (ScheduleLine("@hourly"),)
    assert "schedule[0].cron" in str(warnings[0])
    assert "until then the entry is skipped" in str(warnings[0])


def test_a_misspelt_key_of_an_entry_is_told_and_the_entry_kept() -> None:
    config, warnings = queue(schedule=[{"cron": "@daily", "parm1": "x"}])
    assert len(config.schedule) == 1
    assert 'did you mean "param1"?' in str(warnings[0])


# -- configs of the Ruby release ---------------------------------------------------------------


def test_a_ruby_instance_is_taken_as_it_is() -> None:
    data = b"""{"os":"linux","env":"production","host":"mq7.example.com","port":"3333",
        "addr":"0.0.0.0","tmpdir":"/tmp","allow_new_queue":"true","relative_root":"/rq"}"""
    raw, _ = decode_json(data, "c.json")
    config, warnings = parse_instance(raw, "c.json")
    assert (config.port, config.addr, config.tmpdir) == (3333, "0.0.0.0", "/tmp")
    assert config.allow_new_queue
    assert config.base_url == "http://mq7.example.com:3333/rq/"
    assert keys_of(warnings) == ["os"]
    assert config.raw["os"] == "linux"


def test_a_ruby_queue_is_taken_as_it_is() -> None:
    data = rb"""{"fsync":"no-fsync","ordering":"none","script":".\/code\/relay_script.rb",
        "num_workers":"1","exec_prefix":"","name":"relay","coalesce":"yes","coalesce_param1":"1",
        "coalesce_param2":0,"url":"http:\/\/mq7\/","env_vars":{"PATH":"\/opt\/bin"}}"""
    raw, _ = decode_json(data, "c.json")
    config, warnings = parse_queue(raw, "c.json", "relay")
    assert (config.script, config.num_workers, config.fsync) == ("./code/relay_script.rb", 1, False)
    assert (config.exec_prefix, config.coalesce_params) == ("", (1,))
    assert keys_of(warnings) == ["url"]


# -- the documentation -------------------------------------------------------------------------


def documented_keys(heading: str) -> list[str]:
    section = DOCS.read_text("utf-8").split(f"# {heading}\n", 1)[1]
    table = section.split("| --- |", 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def test_the_documentation_names_every_key() -> None:
    assert sorted(documented_keys("Main config")) == sorted(INSTANCE_KEYS)
    assert sorted(documented_keys("Queue config")) == sorted(QUEUE_KEYS)
    assert sorted(documented_keys("schedule")) == sorted(SCHEDULE_KEYS)


@pytest.mark.parametrize(
    ("heading", "config"),
    [("Main config", instance()[0]), ("Queue config", queue()[0]), ("schedule", ScheduleLine("x"))],
)
def test_the_documentation_names_the_defaults(heading: str, config: object) -> None:
    section = DOCS.read_text("utf-8").split(f"# {heading}\n", 1)[1].split("\n\n##", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \| \w+ \| `([^`]*)` \|", section, re.MULTILINE)
    assert rows
    for key, default in rows:
        meant = {"fsync": "fsync"}.get(key) or getattr(config, key)
        meant = list(meant) if isinstance(meant, tuple) else meant
        assert json.loads(default) == meant, key


def test_the_examples_of_the_documentation_are_valid() -> None:
    examples = re.findall(r"```json (\w+)\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    assert {kind for kind, _ in examples} == {"instance", "queue"}
    for kind, text in examples:
        raw, odd = decode_json(text.encode(), "docs")
        assert odd == []
        if kind == "instance":
            assert parse_instance(raw, "docs")[1] == []
        else:
            assert isinstance(raw, dict)
            assert parse_queue(raw, "docs", str(raw.get("name", "x")))[1] == []
