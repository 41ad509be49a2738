"""rqcore.instance: paths, finding, making, and reading what lies there."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from rqcore import durable
from rqcore.config import ConfigError, InstanceConfig
from rqcore.errors import RefusedError, StartError
from rqcore.instance import (
    Instance,
    best_host,
    find_instance,
    init_instance,
    is_local,
    machine_host,
)


@pytest.fixture
def made(tmp_path: Path) -> Instance:
    return init_instance(tmp_path / "rq", host="mq1.example.com")[0]


def add_queue(instance: Instance, name: str, config: str = '{"script": "./run"}') -> None:
    directory = instance.queues_dir / name
    directory.mkdir()
    (directory / "config.json").write_text(config)


def write_ten_gigabytes(path: Path) -> None:
    path.touch()
    os.truncate(path, 10 << 30)


# -- paths -------------------------------------------------------------------------------------


def test_where_everything_lies() -> None:
    instance = Instance(Path("/rq"))
    assert {
        name: str(value).removeprefix("/rq/")
        for name, value in {
            "config_file": instance.config_file,
            "config_dir": instance.config_dir,
            "pid_file": instance.pid_file,
            "manager_socket": instance.manager_socket,
            "queues_dir": instance.queues_dir,
            "plugins_dir": instance.plugins_dir,
            "log_dir": instance.log_dir,
            "queue_dir": instance.queue_dir("a"),
            "queue_config_file": instance.queue_config_file("a"),
            "queue_socket": instance.queue_socket("a"),
            "queue_pid_file": instance.queue_pid_file("a"),
            "down_file": instance.down_file("a"),
            "pause_file": instance.pause_file("a"),
        }.items()
    } == {
        "config_file": "config/config.json",
        "config_dir": "config",
        "pid_file": "config/queuemgr.pid",
        "manager_socket": "config/queuemgr.sock",
        "queues_dir": "queue",
        "plugins_dir": "plugins",
        "log_dir": "log",
        "queue_dir": "queue/a",
        "queue_config_file": "queue/a/config.json",
        "queue_socket": "queue/a/queue.sock",
        "queue_pid_file": "queue/a/queue.pid",
        "down_file": "config/a.down",
        "pause_file": "config/a.pause",
    }


def test_the_directory_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Instance(Path("rq")).directory == tmp_path / "rq"
    assert Instance(Path("rq")) == Instance(tmp_path / "rq")


@pytest.mark.parametrize("name", ["", "..", "../../etc", "a/b", "/etc", "a\0b", "a.deleted.7"])
def test_no_name_leads_out_of_the_directory(name: str) -> None:
    instance = Instance(Path("/rq"))
    for path in (
        instance.queue_dir,
        instance.queue_socket,
        instance.queue_config_file,
        instance.down_file,
        instance.pause_file,
        instance.admin_state,
        instance.load_queue,
    ):
        with pytest.raises(RefusedError, match="queue name"):
            path(name)


# -- queues ------------------------------------------------------------------------------------


def test_what_counts_as_a_queue(made: Instance, tmp_path: Path) -> None:
    for name in ("zeta", "alpha", "alpha.deleted.77", "bad name", ".hidden"):
        add_queue(made, name)
    (made.queues_dir / "empty").mkdir()
    (made.queues_dir / "file").write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.json").write_text("{}")
    (made.queues_dir / "linked").symlink_to(tmp_path / "elsewhere")
    (made.queues_dir / "broken").mkdir()
    (made.queues_dir / "broken" / "config.json").symlink_to("/nowhere/config.json")
    assert made.queue_names() == ["alpha", "broken", "linked", "zeta"]


def test_without_a_queue_directory_there_are_no_queues(tmp_path: Path) -> None:
    assert Instance(tmp_path).queue_names() == []


def test_a_queue_directory_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "queue").write_text("")
    with pytest.raises(StartError, match="queue cannot be read: Not a directory"):
        Instance(tmp_path).queue_names()


def test_the_admin_state_is_what_the_files_say(made: Instance) -> None:
    assert made.admin_state("a") == "UP"
    made.pause_file("a").touch()
    assert made.admin_state("a") == "PAUSE"
    made.down_file("a").touch()
    assert made.admin_state("a") == "DOWN"
    made.pause_file("a").unlink()
    assert made.admin_state("a") == "DOWN"
    assert made.admin_state("b") == "UP"


# -- reading configs ---------------------------------------------------------------------------


def test_a_queue_is_loaded_with_the_warnings_of_its_text_and_its_values(made: Instance) -> None:
    add_queue(made, "a", '{"script": "./a", "script": "./b", "nmae": "a"}')
    config, warnings = made.load_queue("a")
    assert (config.name, config.script) == ("a", "./b")
    assert [warning.key for warning in warnings] == ["script", "nmae"]
    assert all(w.file == str(made.queue_config_file("a")) for w in warnings)


def test_a_linked_config_is_followed(made: Instance, tmp_path: Path) -> None:
    (tmp_path / "shared.json").write_text('{"script": "./x"}')
    (made.queues_dir / "a").mkdir()
    made.queue_config_file("a").symlink_to(tmp_path / "shared.json")
    assert made.load_queue("a")[0].script == "./x"


def test_a_config_error_names_the_file(made: Instance) -> None:
    made.config_file.write_text('{\n"host": "h"\n"port": 1}')
    with pytest.raises(ConfigError) as caught:
        made.load_config()
    assert str(caught.value).startswith(f"{made.config_file}: is not JSON")
    assert "line 3, column 1" in str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: None, "does not exist"),
        (lambda path: path.symlink_to("/nowhere"), "does not exist"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.mkdir(), "is not a regular file"),
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
        (write_ten_gigabytes, "longer than"),
    ],
    ids=["missing", "dangling", "loop", "directory", "pipe", "device", "10 GB"],
)
def test_what_is_no_config_file_is_explained(made: Instance, make: object, words: str) -> None:
    made.config_file.unlink()
    assert callable(make)
    make(made.config_file)
    with pytest.raises(ConfigError, match=words) as caught:
        made.load_config()
    assert caught.value.problems[0].file == str(made.config_file)
    assert caught.value.problems[0].remedy


# -- a directory of the Ruby release -----------------------------------------------------------


def test_a_ruby_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    for name in ("config", "log", "queue.noindex/relay/que", "queue.noindex/old.deleted.5"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "queue").symlink_to("queue.noindex")
    (tmp_path / "config" / "config.json").write_text(
        '{"env":"production","host":"mq7.example.com","port":"3333","addr":"0.0.0.0",'
        '"tmpdir":"/tmp","os":"linux"}'
    )
    (tmp_path / "queue" / "relay" / "config.json").write_text(
        '{"name":"relay","script":"./code/relay_script.rb","num_workers":"1","exec_prefix":"",'
        '"coalesce":"yes","coalesce_param1":1,"ordering":"none"}'
    )
    (tmp_path / "queue" / "old.deleted.5" / "config.json").write_text("{}")
    (tmp_path / "config" / "relay.pause").touch()
    instance = find_instance(None, {}, tmp_path / "queue" / "relay")
    config, warnings = instance.load_config()
    assert config.base_url == "http://mq7.example.com:3333/"
    assert [warning.key for warning in warnings] == ["os"]
    assert instance.use_tmp_dir(config) == Path("/tmp")
    assert instance.queue_names() == ["relay"]
    assert instance.load_queue("relay")[0].coalesce_params == (1,)
    assert instance.load_queue("relay")[1] == []
    assert instance.admin_state("relay") == "PAUSE"


# -- finding -----------------------------------------------------------------------------------


def test_the_option_wins_over_the_environment_and_that_over_the_place(tmp_path: Path) -> None:
    a, b, c = (init_instance(tmp_path / name, host="h")[0] for name in "abc")
    assert find_instance(str(a.directory), {"RQ_DIR": str(b.directory)}, c.directory) == a
    assert find_instance("a", {}, tmp_path) == a
    assert find_instance(None, {"RQ_DIR": str(b.directory)}, c.directory) == b
    assert find_instance(None, {"RQ_DIR": ""}, c.directory) == c
    assert find_instance(None, {}, c.queues_dir) == c


def test_the_nearest_directory_above_wins(tmp_path: Path) -> None:
    outer, _ = init_instance(tmp_path / "outer", host="h")
    inner, _ = init_instance(outer.directory / "tmp" / "inner", host="h")
    assert find_instance(None, {}, inner.config_dir) == inner
    assert find_instance(None, {}, outer.directory / "tmp") == outer


def test_an_instance_whose_config_is_a_broken_link_is_found(made: Instance) -> None:
    made.config_file.unlink()
    made.config_file.symlink_to("/nowhere")
    assert find_instance(None, {}, made.log_dir) == made
    assert find_instance(str(made.directory), {}, "/") == made


@pytest.mark.parametrize(
    ("explicit", "environ", "words"),
    [
        (None, {}, "rq init DIR"),
        ("", {}, "--dir is empty"),
        ("plain", {}, "it has no config/config.json.*rq init plain"),
        ("missing", {}, "there is no such directory"),
        ("file", {}, "there is no such directory"),
        (None, {"RQ_DIR": "missing"}, "RQ_DIR names .*missing"),
        ("x" * 300, {}, "File name too long"),
    ],
)
def test_no_instance_is_explained(
    tmp_path: Path, explicit: str | None, environ: dict[str, str], words: str
) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=words):
        find_instance(explicit, environ, tmp_path)


# -- making ------------------------------------------------------------------------------------


def test_a_new_instance_can_be_used_at_once(tmp_path: Path) -> None:
    os.umask(umask := os.umask(0))
    made, warnings = init_instance(
        tmp_path / "deep" / "rq", host="mq1.example.com", addr="0.0.0.0", port=80, env="test"
    )
    assert warnings == []
    config, warnings = made.load_config()
    assert warnings == []
    assert (config.host, config.addr, config.port) == ("mq1.example.com", "0.0.0.0", 80)
    assert config.env == "test"
    assert sorted(os.listdir(made.directory)) == ["config", "log", "plugins", "queue", "tmp"]
    assert os.listdir(made.config_dir) == ["config.json"]
    assert made.queue_names() == []
    assert made.use_tmp_dir(config) == made.directory / "tmp"
    assert stat.S_IMODE(made.config_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.queues_dir.stat().st_mode) == 0o755 & ~umask
    assert find_instance(None, {}, made.log_dir) == made


def test_an_empty_directory_and_what_a_crash_left_are_filled(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".profile").touch()  # it is the new home of a user
    for name in ("config", "queue"):
        (tmp_path / name).mkdir()
    made, _ = init_instance(tmp_path, host="h")
    assert made.load_config()[0].host == "h"
    assert (tmp_path / "tmp").is_dir()


def test_an_instance_is_not_made_twice(made: Instance) -> None:
    before = made.config_file.read_bytes()
    with pytest.raises(StartError, match="is an instance already"):
        init_instance(made.directory, host="other")
    assert made.config_file.read_bytes() == before


def test_root_does_not_run_what_belongs_to_somebody_else(
    made: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.check_owner()
    if os.geteuid() == 0:
        os.chown(made.directory, 12345, 12345)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(StartError, match=r"belongs to .*\. Become that user, or: chown -R root "):
        made.check_owner()


@pytest.mark.parametrize("stranger", ["notes.txt", "queue", "config"])
def test_a_directory_in_use_is_left_alone(tmp_path: Path, stranger: str) -> None:
    if stranger == "notes.txt":
        (tmp_path / stranger).touch()
    else:
        (tmp_path / stranger / "a").mkdir(parents=True)
    with pytest.raises(StartError, match=f"not empty, it holds '{stranger}'"):
        init_instance(tmp_path, host="h")
    assert os.listdir(tmp_path) == [stranger]


def test_a_place_that_cannot_be_written_to_is_explained(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot make an instance in /proc/rq: "):
        init_instance("/proc/rq", host="h")
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="file cannot be used: Not a directory"):
        init_instance(tmp_path / "file", host="h")
    with pytest.raises(StartError, match="cannot be used: Not a directory"):
        init_instance(tmp_path / "file" / "rq", host="h")


def test_wrong_values_make_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        init_instance(tmp_path / "rq", host="a b", addr="*", port=0)
    assert [problem.key for problem in caught.value.problems] == ["host", "port", "addr"]
    assert os.listdir(tmp_path) == []


# -- the host's name ---------------------------------------------------------------------------


def test_the_name_of_this_machine_is_taken(tmp_path: Path) -> None:
    made, warnings = init_instance(tmp_path / "rq")
    host = made.load_config()[0].host
    assert host in (machine_host(), best_host([socket.gethostname()]))
    assert [warning.key for warning in warnings] == (["host"] if host == "localhost" else [])


def test_a_name_server_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "gethostname", lambda: "mq1")
    monkeypatch.setattr(socket, "getfqdn", lambda _: answered.wait() and "mq1.example.com")
    monkeypatch.setattr("rqcore.instance._DNS_SECONDS", 0.01)
    assert machine_host() == "mq1"
    answered.set()
    monkeypatch.setattr("rqcore.instance._DNS_SECONDS", 60.0)
    assert machine_host() == "mq1.example.com"


@pytest.mark.parametrize(
    ("names", "host"),
    [
        (["mq1.example.com", "mq1"], "mq1.example.com"),
        (["localhost.localdomain", "mq1"], "mq1"),
        (["ip6-localhost", "mq1"], "mq1"),
        (["127.0.0.1", "::1"], "localhost"),
        (["bad name", ""], "localhost"),
        ([], "localhost"),
    ],
)
def test_the_best_of_the_names(names: list[str], host: str) -> None:
    assert best_host(names) == host
    assert is_local(host) is (host == "localhost")


# -- where uploads wait ------------------------------------------------------------------------


def test_the_own_tmp_is_made_when_missing(made: Instance) -> None:
    (made.directory / "tmp").rmdir()
    path = made.use_tmp_dir(InstanceConfig("h"))
    assert path == made.directory / "tmp"
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_tmpdir_that_cannot_be_used_stops_the_start(made: Instance, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for tmpdir in ("../missing", "../file", "../file/x"):
        with pytest.raises(StartError, match="is not a directory; create it, or change") as caught:
            made.use_tmp_dir(InstanceConfig("h", tmpdir=tmpdir))
        assert tmpdir in str(caught.value)
    assert not (tmp_path / "missing").exists()


def test_a_tmpdir_that_may_not_be_written_to_stops_the_start() -> None:
    # Not below tmp_path: another user than root cannot reach that.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        directory = Path(name)
        durable.make_dir(directory / "tmp", 0o555)
        directory.chmod(0o755)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)
            with pytest.raises(StartError, match="is not writable; create it, or change"):
                Instance(directory).use_tmp_dir(InstanceConfig("h"))
            with pytest.raises(StartError, match="Permission denied"):
                Instance(directory / "tmp").use_tmp_dir(InstanceConfig("h"))
            with pytest.raises(StartError, match=r"cannot make .*/tmp/rq: Permission denied"):
                init_instance(directory / "tmp" / "rq", host="h")
        finally:
            os.seteuid(user)


def test_a_config_that_may_not_be_read_is_explained() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        made, _ = init_instance(Path(name, "rq"), host="h")
        made.config_file.chmod(0)
        Path(name).chmod(0o755)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)
            with pytest.raises(ConfigError, match="cannot be read: Permission denied; run as"):
                made.load_config()
        finally:
            os.seteuid(user)


def test_looking_for_an_instance_imports_nothing_that_writes() -> None:
    code = (
        "import sys; before = set(sys.modules); import rqcore.instance; "
        "print(*(set(sys.modules) - before))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(out.stdout.split())
    assert "rqcore.config" in loaded
    assert not loaded & {"rqcore.durable", "shutil", "hashlib", "difflib"}
