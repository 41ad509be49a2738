"""``rq export`` and ``rq import``: there and back, twice, damaged, hostile, and killed in between."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rqcore_cli.main import make_group
from rqcore_cli.portable import importing, staging
from rqcore_cli.portable.exporting import Export, Exported, locate
from rqcore_cli.portable.importing import Import, Imported, Wishes
from rqcore_cli.portable.layout import ArchiveError, read_sums, sum_line
from rqcore_cli.refs import Ref

from rqcore.durable import take_file
from rqcore.errors import NotFoundError, RefusedError, RqError
from rqcore.instance import Instance
from rqcore.lifecycle import State, Step
from rqcore.message import Message, attachment_name_problem, load_message
from rqcore.stores.directory import DirectoryStore
from rqcore.testing import RunningInstance

if TYPE_CHECKING:
    from tests.conftest import Rq

MARK = "20200101.0800.00.000.0000017"


class Spool:
    """The queue ``work`` of an instance that does not run."""

    def __init__(self, made: RunningInstance) -> None:
        made.queue("work", "/bin/true")
        self.instance: Instance = made.instance
        self.path = made.directory / "queue" / "work"
        with self.store() as store:
            store.sync()

    @contextlib.contextmanager
    def store(self) -> Iterator[DirectoryStore]:
        store = DirectoryStore(str(self.path), fsync=False)
        store.open()
        yield store
        store.close()

    def add(
        self, state: State, message: Message | None = None, files: dict[str, bytes] | None = None,
        job: dict[str, bytes] | None = None,
    ) -> Ref:  # fmt: skip
        """A message as its queue leaves it in that state."""
        message = message or Message(dest="work", param1="a", count=3, max_count=9, due=17)
        with self.store() as store:
            message = replace(message, msg_id=store.new_id())
            store.add(message, State.PREP)
            for name, content in (files or {}).items():
                source = self.path / "source"
                source.write_bytes(content)
                staged = store.staging()
                digest = take_file(source, staged)
                store.attach(message.msg_id, State.PREP, name, staged, digest)
                source.unlink()
            folder = Path(store.directory(message.msg_id, State.PREP))
            for name, content in (job or {}).items():
                (folder / "job" / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / "job" / name).write_bytes(content)
            if state is not State.PREP:
                store.move(message.msg_id, Step.COMMIT, State.PREP, State.QUE)
            if state not in (State.PREP, State.QUE):
                store.move(message.msg_id, Step.START, State.QUE, State.RUN)
            if state not in (State.PREP, State.QUE, State.RUN):
                store.move(message.msg_id, Step.FINISH, State.RUN, state, status="ended so")
        return Ref("work", message.msg_id)

    def export(self, *refs: Ref) -> tuple[bytes, list[Exported]]:
        out = io.BytesIO()
        tar = Export(out, self.instance, len(refs), lambda _: None)
        done = [tar.add(ref) for ref in refs]
        tar.close()
        return out.getvalue(), done

    def take(self, data: bytes, **wishes: Any) -> list[Imported]:
        return list(Import(self.instance, Wishes(**wishes), lambda _: None).run(io.BytesIO(data)))

    def load(self, state: str, msg_id: str) -> tuple[Message, Path]:
        with self.store() as store:
            folder = store.directory(msg_id, State(state))
            return store.load(msg_id, State(state)), Path(folder)

    def left(self) -> list[str]:
        """What lies where a message that waits can lie."""
        return sorted(os.listdir(self.path / "prep") + os.listdir(self.path / "que"))


@pytest.fixture
def here(tmp_path: Path) -> Spool:
    return Spool(RunningInstance(tmp_path / "here"))


@pytest.fixture
def there(tmp_path: Path) -> Spool:
    return Spool(RunningInstance(tmp_path / "there"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Spool, Spool]:
    """Two instances for many examples."""
    folder = tmp_path_factory.mktemp("pair")
    one, other = Spool(RunningInstance(folder / "one")), Spool(RunningInstance(folder / "other"))
    return one, other


def test_root_makes_nothing_that_its_owner_could_not_use(
    here: Spool, there: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = here.export(here.add(State.QUE))
    there.add(State.PREP)
    stranger = os.geteuid() or 65534
    for path in (there.path, there.instance.directory):
        os.chown(path, stranger, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    before = there.left()
    with pytest.raises(RefusedError, match="do it as that user: sudo -u"):
        there.take(data)
    assert there.take(data, dry_run=True)[0].action == "would be imported"
    for words in (["fsck", "--repair"], ["doctor", "--fix", "--yes"]):
        with pytest.raises(RefusedError, match="do it as that user: sudo -u"):
            make_group().main(
                ["--dir", str(there.instance.directory), *words], standalone_mode=False
            )
    assert there.left() == before


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20) | st.just(
    "\udcff"
)
FIELD = st.text(max_size=40) | st.just("\udc80\udcff")
NAMES = TEXT.filter(lambda name: attachment_name_problem(name) is None)
JOB = TEXT.filter(lambda name: name not in ("", ".", "..") and "/" not in name)


@settings(max_examples=40, deadline=None)
@given(
    fields=st.fixed_dictionaries(
        {"param1": FIELD, "param2": FIELD, "param3": FIELD, "src": FIELD},
        optional={"post_run_webhook": st.just(("http://a/", "http://b/"))},
    ),
    files=st.dictionaries(NAMES, st.binary(max_size=3000), max_size=3),
    job=st.dictionaries(JOB, st.binary(max_size=3000), max_size=3),
    count=st.integers(0, 14),
    state=st.sampled_from([State.PREP, State.QUE, State.ERR]),
)
def test_what_goes_out_comes_in(
    fields: dict[str, Any], files: dict[str, bytes], job: dict[str, bytes], count: int,
    state: State, pair: tuple[Spool, Spool],
) -> None:  # fmt: skip
    here, there = pair
    sent = Message(dest="work", due=1.5, count=count, orig_msg_id="http://x/q/work/1", **fields)
    ref = here.add(state, sent, files, job)
    data, [done] = here.export(ref)
    assert (done.problems, done.attachments, done.state) == ([], len(files), str(state))
    assert here.export(ref)[0] == data, "the same bytes for the same message"
    [imported] = there.take(data)
    assert (imported.msg_id, imported.action) == (ref.msg_id, "imported")
    assert imported.state == ("que" if state is State.QUE else "prep")
    message, folder = there.load(imported.state, ref.msg_id)
    expected = replace(sent, msg_id=ref.msg_id)
    if state is State.ERR:
        expected = replace(expected, count=0, due=message.due)
    assert message == expected
    with there.store() as store:
        attached = store.attached(ref.msg_id, State(imported.state))
    assert {a.name: Path(a.path).read_bytes() for a in attached} == files
    assert {a.name: a.digest.sha256 if a.digest else "" for a in attached} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items()
    }
    found = {str(p.relative_to(folder / "job")): p.read_bytes() for p in folder.rglob("job/*")}
    assert found == job


@given(
    st.dictionaries(st.text(min_size=1).filter(lambda t: "\0" not in t), st.binary(), max_size=4)
)
def test_sums_are_read_as_they_are_written(files: dict[str, bytes]) -> None:
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    data = b"".join(sum_line(name, digest) for name, digest in sums.items())
    assert read_sums(data) == sums


@pytest.mark.parametrize(
    ("state", "run", "goes", "count", "keeps"),
    [
        (State.PREP, False, "prep", 3, True),
        (State.PREP, True, "que", 3, True),
        (State.QUE, False, "que", 3, True),
        (State.ERR, False, "prep", 0, True),
        (State.ERR, True, "que", 0, True),
        (State.DONE, False, "prep", 0, False),
        (State.RELAYED, True, "que", 0, False),
    ],
)
def test_where_it_comes_to_and_what_it_keeps(
    state: State, run: bool, goes: str, count: int, keeps: bool, here: Spool, there: Spool
) -> None:
    job = {"stdio.log": b"said\n", "relay.json": b"{}", "deep/er/x": b"1"}
    ref = here.add(state, job=job)
    folder = Path(locate(here.instance, ref)[1])
    (folder / "runs.jsonl").write_text("{}\n")
    [imported] = there.take(here.export(ref)[0], run=run)
    assert (imported.state, imported.was.state) == (goes, str(state))
    message, folder = there.load(goes, ref.msg_id)
    assert message.count == count
    assert (message.due == 17) == (count == 3)
    kept = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    log = {"msg", "runs.jsonl", "job/stdio.log"}
    assert kept - {"status"} == (log | {"job/relay.json", "job/deep/er/x"} if keeps else log)
    if state not in (State.PREP, State.QUE):
        status = json.loads((folder / "status").read_text())["job_status"]
        assert status == f"imported; it was {state} - ended so"
    assert there.left() == [ref.msg_id], "nothing is left beside it"


def test_a_running_message_and_one_that_is_not_there_are_refused(here: Spool) -> None:
    with pytest.raises(RefusedError, match="is running; wait"):
        here.export(here.add(State.RUN))
    with pytest.raises(NotFoundError, match="there is no message work/2020"):
        here.export(Ref("work", MARK))
    ref = here.add(State.DONE)
    Path(locate(here.instance, ref)[1], "msg").write_text("{")
    with pytest.raises(RqError, match=r"not JSON.*rq fsck work"):
        here.export(ref)


def test_it_is_a_plain_tar_that_unix_tools_can_use(
    here: Spool, there: Spool, tmp_path: Path
) -> None:
    long = "a" * 200 + "ä"
    odd = "line\nbreak \\ and \udcff"
    ref = here.add(State.ERR, files={"file": b"x" * 2000, long: b"", "sp ace": b"y"},
                   job={"stdio.log": b"log\n", odd: b"odd"})  # fmt: skip
    (tmp_path / "m.rqmsg").write_bytes(here.export(ref)[0])
    listed = subprocess.run(["tar", "tf", "m.rqmsg"], cwd=tmp_path, capture_output=True, check=True)
    names = listed.stdout.decode().splitlines()
    folder = f"work/{ref.msg_id}"
    assert names[0] == f"{folder}/rqmsg.json"
    assert names[1:3] == [f"{folder}/msg", f"{folder}/status"]
    assert names[-1] == f"{folder}/SHA256SUMS"
    subprocess.run(["tar", "xf", "m.rqmsg"], cwd=tmp_path, check=True)
    checked = subprocess.run(
        ["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path / folder, check=True
    )
    assert checked.returncode == 0
    assert json.loads((tmp_path / folder / "rqmsg.json").read_text())["state"] == "err"
    # By hand it becomes a message too, and what tar made of it can be read again.
    again = tmp_path / "again"
    again.mkdir()
    for made in ("gnu", "pax"):
        command = ["tar", "cf", f"{again}/{made}", f"--format={made}", "--null", "-T", "-"]
        with tarfile.open(tmp_path / "m.rqmsg") as exported:
            members = exported.getnames()
        wanted = "\0".join(members).encode("utf-8", "surrogateescape")
        subprocess.run(command, cwd=tmp_path, input=wanted, check=True)
        [imported] = there.take((again / made).read_bytes(), again=True)
        assert imported.action == "imported"
    (tmp_path / folder).rename(there.path / "prep" / ref.msg_id)
    message, _ = there.load("prep", ref.msg_id)
    assert message.param1 == "a"


def test_twice_does_not_double_and_again_makes_a_new_one(here: Spool, there: Spool) -> None:
    refs = [here.add(State.QUE, files={"file": b"content"}), here.add(State.DONE)]
    data, _ = here.export(*refs)
    assert [i.action for i in there.take(data)] == ["imported"] * 2
    assert [i.action for i in there.take(data)] == ["there"] * 2
    assert [i.action for i in here.take(data)] == ["there"] * 2, "also in done"
    assert [i.action for i in there.take(data, dry_run=True)] == ["there"] * 2
    assert len(there.left()) == 2
    made = there.take(data, again=True)
    assert [i.action for i in made] == ["imported"] * 2
    assert len({i.msg_id for i in made} | {r.msg_id for r in refs}) == 4
    message, folder = there.load("que", made[0].msg_id)
    assert (message.cloned_from, message.count) == (refs[0].msg_id, 0)
    assert (folder / "attach" / "file").read_bytes() == b"content"


def test_into_another_queue(here: Spool, tmp_path: Path) -> None:
    attic = RunningInstance(tmp_path / "attic")
    attic.queue("attic", "/bin/true")
    there = Spool(attic)
    data, _ = here.export(here.add(State.QUE))
    [imported] = there.take(data, queue="attic")
    folder = attic.directory / "queue" / "attic" / "que" / imported.msg_id
    assert load_message((folder / "msg").read_bytes(), imported.msg_id).dest == "attic"
    away = Message(dest="http://far.example.com:3333/q/other")
    data, _ = here.export(here.add(State.QUE, away))
    [imported] = there.take(data, queue="attic")
    folder = attic.directory / "queue" / "attic" / "que" / imported.msg_id
    assert load_message((folder / "msg").read_bytes(), imported.msg_id).dest == away.dest


def test_where_it_cannot_come_in(
    here: Spool, there: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = here.add(State.QUE, files={"file": b"x"})
    data, _ = here.export(ref)
    there.instance.down_file("work").touch()
    with pytest.raises(RefusedError, match="is DOWN and takes no message"):
        there.take(data)
    there.instance.down_file("work").unlink()
    monkeypatch.setattr("rqcore_cli.portable.importing._RESERVE", 1 << 60)
    with pytest.raises(RefusedError, match=r"has 1 B, and the disk has room for 0 B more"):
        there.take(data)
    monkeypatch.undo()
    monkeypatch.setattr("rqcore_cli.portable.importing._RESERVED_FILES", 1 << 60)
    if os.statvfs(there.path).f_files:  # else the file system has as many as one likes
        with pytest.raises(RefusedError, match=r"the disk has room for .* more files"):
            there.take(data)
    monkeypatch.setattr("rqcore_cli.portable.importing._MOST_FILES", 2)
    with pytest.raises(ArchiveError, match="one file too many"):
        there.take(data)
    monkeypatch.undo()
    there.path.joinpath("config.json").write_text(
        '{"name": "work", "script": "/bin/true", "num_workers": 1, "store": "memory"}'
    )
    with pytest.raises(RefusedError, match="in the store 'memory'"):
        there.take(data)
    with pytest.raises(RefusedError, match="in the store 'memory'"):
        there.export(ref)
    (there.path / "config.json").unlink()
    with pytest.raises(NotFoundError, match="there is no queue work here"):
        there.take(data)
    assert there.left() == []


def test_what_had_changed_before_is_said_and_needs_a_word(here: Spool, there: Spool) -> None:
    ref = here.add(State.ERR, files={"file": b"content"})
    folder = Path(locate(here.instance, ref)[1])
    (folder / "attach" / "file").write_bytes(b"CONTENT")
    (folder / "job").mkdir()
    (folder / "job" / "link").symlink_to("/etc/passwd")
    data, [done] = here.export(ref)
    assert any("is not what was attached" in problem for problem in done.problems)
    assert any("job/link is a link" in problem for problem in done.problems)
    with pytest.raises(ArchiveError, match=r"had changed since it was attached.*--damaged"):
        there.take(data)
    assert there.left() == []
    [imported] = there.take(data, damaged=True)
    assert len(imported.problems) == 1


def test_what_an_import_would_refuse_is_left_out_and_told(here: Spool, there: Spool) -> None:
    ref = here.add(State.ERR, files={"file": b"content"})
    folder = Path(locate(here.instance, ref)[1])
    for name in ("rqmsg.json", "SHA256SUMS", "pid", ".hidden", "my notes", "attach/what?"):
        (folder / name).write_text("x")
    deep = folder / "job" / "/".join(["d"] * 40)
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    data, [done] = here.export(ref)
    assert sorted(problem.split(" was left out")[0] for problem in done.problems) == [
        "attach/what?", f"job/{'d/' * 40}file", "my notes",
    ]  # fmt: skip
    [imported] = there.take(data)
    _, folder = there.load("prep", imported.msg_id)
    assert sorted(os.listdir(folder)) == ["attach", "digests.json", "msg", "status"]


def test_a_file_that_shrinks_while_it_is_read_is_told(here: Spool) -> None:
    ref = here.add(State.ERR, files={"file": b"x" * 100_000})
    file = Path(locate(here.instance, ref)[1]) / "attach" / "file"

    def cut(passed: int) -> None:
        if passed > 1000:  # the first piece of it
            os.truncate(file, 1000)

    tar = Export(io.BytesIO(), here.instance, 1, cut)
    with pytest.raises(RqError, match=r"attach/file of work/.* became shorter while it was read"):
        tar.add(ref)
    file.unlink()
    os.mkfifo(file)
    assert here.export(ref)[1][0].attachments == 0, "what is no file is none"


# Damaged and hostile files


def tar(*entries: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as made:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                made.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                made.addfile(info, io.BytesIO(entry[1]))
    return out.getvalue()


def of_type(
    kind: bytes, name: str = f"work/{MARK}/job/x", link: str = "/etc/passwd"
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def about(msg_id: str = MARK, **more: Any) -> bytes:
    return json.dumps({
        "format": "rqmsg", "version": 1, "queue": "work", "msg_id": msg_id, "state": "que",
        "status": "", "full_id": "x", "fields": {}, "number": 1, "of": 1, **more,
    }).encode()  # fmt: skip


def message(*more: tuple[str, bytes] | tarfile.TarInfo, msg_id: str = MARK, head: bytes = b"",
            msg: bytes = b'{"dest": "work"}', sums: bytes | None = None) -> bytes:  # fmt: skip
    """A message as an export writes it, with ``more`` in it."""
    folder = f"work/{msg_id}"
    head = head or about(msg_id)
    files: list[tuple[str, bytes] | tarfile.TarInfo]
    files = [(f"{folder}/rqmsg.json", head), (f"{folder}/msg", msg), *more]
    named = [f for f in files if not isinstance(f, tarfile.TarInfo)]
    lines = (
        sum_line(name.removeprefix(f"{folder}/"), hashlib.sha256(content).hexdigest())
        for name, content in named
    )
    return tar(*files, (f"{folder}/SHA256SUMS", b"".join(lines) if sums is None else sums))


def _big_claim() -> bytes:
    """A file that claims to be larger than any disk."""
    info = tarfile.TarInfo(f"work/{MARK}/attach/file")
    info.size = 1 << 50
    data = message()
    return data[:2048] + info.tobuf(tarfile.PAX_FORMAT) + b"x" * 512


def _big_header() -> bytes:
    info = of_type(tarfile.XHDTYPE)
    info.size = 1 << 30
    return info.tobuf(tarfile.USTAR_FORMAT) + b"x" * 4096


def _pax(record: bytes) -> bytes:
    info = of_type(tarfile.XHDTYPE)
    info.size = len(record)
    return info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") + message()


HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no tar"),
    "no tar": (b"hello " * 200, "no tar"),
    "zeros": (bytes(10240), "it has 0 of 1 messages"),
    "a link": (message(of_type(tarfile.SYMTYPE)), "is a symbolic link"),
    "a hard link": (message(of_type(tarfile.LNKTYPE)), "is a hard link"),
    "a device": (message(of_type(tarfile.CHRTYPE)), "is a device"),
    "a pipe": (message(of_type(tarfile.FIFOTYPE)), "is a pipe"),
    "a sparse file": (message(of_type(tarfile.GNUTYPE_SPARSE)), "is a sparse file"),
    "something new": (message(of_type(b"Z")), "something of the kind b'Z'"),
    "out of it": (message((f"work/{MARK}/../../evil", b"x")), "leads out of its directory"),
    "out of job": (message((f"work/{MARK}/job/../../x", b"x")), "leads out of its directory"),
    "absolute": (tar(("/etc/passwd", b"x")), "is no part of a message"),
    "no message": (tar(("readme", b"x")), "is no part of a message"),
    "a queue with a dot": (tar((f"../{MARK}/msg", b"x")), "is no part of a message"),
    "a dot-file attached": (message((f"work/{MARK}/attach/.x", b"")), "dot-file not allowed"),
    "below attach": (message((f"work/{MARK}/attach/a/b", b"")), "has invalid character"),
    "a pid": (message((f"work/{MARK}/pid", b"1")), "is nothing that a message has"),
    "a directory besides": (message((f"work/{MARK}/x/y", b"1")), "is nothing that a message has"),
    "hidden": (message((f"work/{MARK}/.msg.tmp", b"1")), "is nothing that a message has"),
    "too deep": (message((f"work/{MARK}/job/" + "d/" * 40 + "x", b"1")), "too long a path"),
    "too long": (message((f"work/{MARK}/job/" + "d" * 256, b"1")), "too long a path"),
    "twice": (message((f"work/{MARK}/msg", b'{"dest": "work"}')), "comes twice"),
    "another message in it": (message((f"work/{MARK}1/msg", b"x")), "no such message has begun"),
    "begun twice": (message((f"work/{MARK}/rqmsg.json", about())), "has no end"),
    "no beginning": (tar((f"work/{MARK}/msg", b"{}")), "no such message has begun"),
    "no end": (tar((f"work/{MARK}/rqmsg.json", about())), "it has 0 of 1 messages"),
    "one of two": (message(head=about(of=2)), "it has 1 of 2 messages"),
    "the second": (message(head=about(number=2, of=2)), "message 1 of 2 is missing"),
    "a newer one": (message(head=about(version=2)), "this rq reads rqmsg, version 1"),
    "no sense": (message(head=b"[]"), "makes no sense"),
    "nested": (message(head=b"[" * 100000), "makes no sense"),
    "of another": (message(head=about(queue="other")), "is of other/"),
    "wrong state": (message(head=about(state="gone")), "rqmsg.json of work/"),
    "wrong sums": (message(sums=b""), "is damaged"),
    "no sums": (message(sums=b"hello\n"), "a line that sha256sum would not write"),
    "a bad msg": (message(msg=b"[]"), "not a JSON object"),
    "no msg": (tar((f"work/{MARK}/rqmsg.json", about()), (f"work/{MARK}/SHA256SUMS", sum_line(
        "rqmsg.json", hashlib.sha256(about()).hexdigest()))), "not JSON"),
    "of the future": (message(msg_id="99990101.0000.00.000.1"), "is of the future"),
    "of no time": (message(msg_id="20261399.9999.99.000.1"), "is no time"),
    "a huge file": (_big_claim(), "the disk has room for"),
    "a huge header": (_big_header(), "a header of 1073741824 bytes"),
    "a sparse header": (_pax(b"26 GNU.sparse.numblocks=9\n"), "holds a sparse file"),
    "a wrong header": (_pax(b"99999 path=x\n"), "makes no sense"),
    "an endless number": (_pax(b"9" * 5000 + b" path=x\n"), "makes no sense"),
    "a file as a directory": (
        message((f"work/{MARK}/job/x", b"1"), (f"work/{MARK}/job/x/y", b"1")),
        "is both a file and a directory",
    ),
    "a directory as a file": (
        message((f"work/{MARK}/job/x/y", b"1"), (f"work/{MARK}/job/x", b"1")),
        "is both a file and a directory",
    ),
    "job is a file": (
        message((f"work/{MARK}/job", b"1"), (f"work/{MARK}/job/x", b"1")),
        "is both a file and a directory",
    ),
    "endless": (message(head=about().replace(b'"of": 1', b'"of": 1e999')), "makes no sense"),
    "a title": (message(head=about(queue="q\x1b]0;x\x07")), r"is of q\x1b]0;x\x07/"),
    "a wrong size": (_pax(b"13 size=-1xx\n"), "makes no sense"),
    "an impossible size": (_pax(b"28 size=9223372036854775807\n"), "an impossible size"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_and_leave_nothing(case: str, there: Spool) -> None:
    data, why = HOSTILE[case]
    before = {p for p in there.path.parent.parent.rglob("*") if p.name != "queue.pid"}
    with pytest.raises((ArchiveError, RefusedError)) as caught:
        there.take(data)
    assert why in str(caught.value)
    after = {p for p in there.path.parent.parent.rglob("*") if p.name != "queue.pid"}
    came = {"one of two": 2}.get(case, 0)
    assert len(after - before) == came, after - before


def test_a_good_one_of_this_kind_is_taken(there: Spool) -> None:
    [imported] = there.take(message((f"work/{MARK}/attach/a b", b"x"), of_type(b"5", "work/")))
    assert (imported.msg_id, imported.state) == (MARK, "que")


def test_a_file_that_is_cut_anywhere_is_refused(here: Spool, there: Spool) -> None:
    data, _ = here.export(here.add(State.QUE, files={"file": b"x" * 700}))
    whole = len(data.rstrip(b"\0"))
    for end in {*range(0, whole, 300), whole - 1}:
        with pytest.raises(ArchiveError):
            there.take(data[:end])
        assert there.left() == []


def test_a_file_that_is_changed_anywhere_is_refused(here: Spool, there: Spool) -> None:
    """Where something counts; what lies between the files of a tar does not."""
    ref = here.add(State.QUE, files={"file": b"x" * 700})
    data, _ = here.export(ref)
    for place in range(0, len(data.rstrip(b"\0")), 97):
        spoiled = bytearray(data)
        spoiled[place] ^= 0xFF
        with contextlib.suppress(RqError):
            there.take(bytes(spoiled))
            found, folder = there.load("que", ref.msg_id)
            assert (found.param1, found.due) == ("a", 17)
            assert (folder / "attach" / "file").read_bytes() == b"x" * 700
            shutil.rmtree(folder)
        assert there.left() == []


# Killed


def killed_at(act: int, work: Callable[[], object]) -> bool:
    """Do it in a process that is killed at its ``act``-th change of a file; False: it has less."""
    child = os.fork()
    if child == 0:
        seen = []

        def listen(event: str, args: tuple[Any, ...]) -> None:
            writes = event == "open" and isinstance(args[2], int) and args[2] & os.O_ACCMODE
            if writes or event in {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}:
                seen.append(event)
                if len(seen) == act:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(listen)
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.crash
@pytest.mark.parametrize("state", [State.QUE, State.DONE])
def test_killed_at_any_point_it_is_in_or_it_is_not(state: State, here: Spool, there: Spool) -> None:
    ref = here.add(state, files={"one": b"1", "two": b"2"}, job={"stdio.log": b"log", "x/y": b"z"})
    data, _ = here.export(ref)
    acts = 0
    seen = set()
    while killed_at(acts + 1, lambda: there.take(data)):
        acts += 1
        names = {name for name in there.left() if not name.startswith(".")}
        assert names <= {ref.msg_id}
        seen.add(bool(names))
        [again] = there.take(data)
        assert again.action == ("there" if names else "imported")
        assert there.left() == [ref.msg_id], "what was left is cleared up"
        message, folder = there.load(again.state, ref.msg_id)
        assert message.param1 == "a"
        assert (folder / "attach" / "two").read_bytes() == b"2"
        shutil.rmtree(folder)
    assert acts > 10
    assert seen <= {False, True}


class Interrupted(io.BytesIO):
    """A file at whose end something else happens first."""

    def __init__(self, data: bytes, meanwhile: Callable[[], object]) -> None:
        super().__init__(data)
        self._meanwhile: list[Callable[[], object]] = [meanwhile]
        self._rest = len(data.rstrip(b"\0")) - 600  # the digests are yet to come

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > self._rest and self._meanwhile:
            self._meanwhile.pop()()
        return super().read(size)


def test_two_at_once_put_it_in_once(
    here: Spool, there: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = here.add(State.DONE, files={"one": b"1" * 9000})
    data, _ = here.export(ref)

    def other() -> None:
        assert there.take(data)[0].action == "imported"
        with there.store() as store:
            store.move(ref.msg_id, Step.COMMIT, State.PREP, State.QUE)
            store.move(ref.msg_id, Step.START, State.QUE, State.RUN)

    mine = Import(there.instance, Wishes(), lambda _: None)
    [told] = mine.run(Interrupted(data, other))
    assert (told.action, told.state) == ("there", "run")
    assert there.left() == []

    # Another takes a directory that is not locked yet for what a killed one has left.
    locked = staging._locked
    cleared: list[str] = []

    def robbed(path: str) -> int:
        if not cleared:
            cleared.append(path)
            shutil.rmtree(path)
        return locked(path)

    monkeypatch.setattr(staging, "_locked", robbed)
    ref = here.add(State.DONE)
    data, _ = here.export(ref)
    assert there.take(data)[0].action == "imported"
    assert cleared
    assert there.left() == [ref.msg_id]


# The commands, on an instance that runs


@pytest.mark.process
def test_what_was_cut_off_before_its_commit_runs_after_the_next_import(
    rq: Rq, running: RunningInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = rq.send("work", "--param1", "done", "--due", "1h")
    file = rq("export", waits).out.strip()
    rq("rm", waits)
    monkeypatch.setattr(importing, "commit", lambda *_: None)
    with open(rq.cwd / file, "rb") as stream:
        list(Import(running.instance, Wishes(), lambda _: None).run(stream))
    assert rq("show", waits, "--json").json()["state"] == "prep"
    assert rq("import", file).err == f"{waits} imported, in que (it was {waits}, que)\n"
    assert rq("show", waits, "--json").json()["state"] == "que"
    assert "is there already, in que" in rq("import", file).err


@pytest.mark.process
def test_there_and_back_on_the_command_line(
    rq: Rq, running: RunningInstance, tmp_path: Path
) -> None:
    file = tmp_path / "data.bin"
    file.write_bytes(os.urandom(300_000))
    rq("queue", "pause", "work")
    waits = rq.send("work", "--param1", "done", "--attach", str(file))
    sent = rq("export", waits)
    name = f"{waits.replace('/', '-')}.rqmsg"
    assert sent.out == f"{name}\n"
    assert "1 message, 1 attachment, " in sent.err
    assert "is there already" in rq("export", waits, status=4).err
    assert rq("import", name).err.startswith(f"{waits} is there already, in que; --again")
    rq("rm", waits)
    assert rq("import", name, "--dry-run").err.startswith(f"{waits} would be imported, in que")
    back = rq("import", name)
    assert back.out == f"{waits}\n"
    assert back.err == f"{waits} imported, in que (it was {waits}, que)\n"
    assert rq("show", waits, "--json").json()["_attachments"]["data.bin"]["size"] == 300_000
    rq("queue", "resume", "work")
    rq("wait", waits)
    assert "300000" in rq("log", waits).out
    # From done it comes as a prepared one, or runs at once.
    rq("export", waits, "-o", name, "--force")
    rq("rm", waits)
    told = rq("import", name, "--json").json()
    assert [(i["state"], i["action"], i["was"]["state"]) for i in told] == [
        ("prep", "imported", "done")
    ]
    rq("commitmesg", "--msg_id", f"/q/{waits}")
    rq("wait", waits)
    assert rq("log", waits).out.count("300000") == 2, "the log goes on"
    made = rq("import", name, "--again", "--run").out.strip()
    assert made != waits
    rq("wait", made)
    assert running.ask("work", "num_messages")["done"] == 2


@pytest.mark.process
def test_many_at_once_through_a_pipe(rq: Rq, running: RunningInstance, tmp_path: Path) -> None:
    rq("queue", "pause", "work")
    sent = [rq.send("work", "--param1", "done", "--param2", str(n)) for n in range(3)]
    assert "name the file to write with -o" in rq("export", "work", "--all", status=2).err
    assert "say which of its messages" in rq("export", "work", status=2).err
    assert (
        "a running message is not exported" in rq("export", "work", "--state", "run", status=2).err
    )
    data = subprocess.run(
        [sys.executable, "-m", "rqcore_cli", "export", "work", "--state", "que", "-o", "-"],
        env=rq.environ, cwd=rq.cwd, capture_output=True, check=True,
    )  # fmt: skip
    assert b"3 messages, 0 attachments" in data.stderr
    for message in sent:
        rq("rm", message)
    assert rq("import", "-", stdin=data.stdout).out.split() == sent
    told = rq("export", "work", "--all", "--text", "zzz", "-o", "none")
    assert (told.out, told.err) == ("", "no message to export\n")
    listed = rq("export", *sent, "-o", "all.rqmsg", "--json").json()
    assert [item["msg_id"] for item in listed["messages"]] == [s.split("/")[1] for s in sent]
    status, seen = rq.on_terminal("export", *sent, "-o", "-")
    assert (status, "a tar is not for a terminal" in seen) == (2, True)
    status, seen = rq.on_terminal("export", *sent, "-o", "all.rqmsg", "--force")
    assert (status, "all.rqmsg" in seen) == (0, True)
    assert "cannot be written" in rq("export", sent[0], "-o", "no/such/file", status=1).err
    assert "is one message" in rq("export", sent[0], "--state", "que", "-o", "x", status=2).err
    (rq.cwd / "bad.rqmsg").write_bytes(data.stdout[:700])
    both = rq("import", "bad.rqmsg", "all.rqmsg", "none.rqmsg", status=1)
    assert both.out.split() == sent, "the others are taken all the same"
    assert "bad.rqmsg: it ends" in both.err
    assert "none.rqmsg: cannot be read: No such file" in both.err
    rq("queue", "down", "work")
    assert "is DOWN" in rq("import", "all.rqmsg", "--again", status=4).err
    assert "there is no queue attic" in rq("import", "all.rqmsg", "--queue", "attic", status=3).err


@pytest.mark.process
def test_a_commit_that_a_plugin_refuses_leaves_it_in_prep(
    rq: Rq, rq_instance: RunningInstance
) -> None:
    rq_instance.queue("work", "/bin/true")
    rq_instance.plugin(
        "strict",
        "from rqcore.hookspecs import Reject, hookimpl\n@hookimpl\n"
        "def rq_check_commit(message):\n"
        "    return Reject('not today') if message.param1 == 'no' else None\n",
    )
    rq_instance.start()
    rq("queue", "pause", "work")
    sent = rq.send("work", "--param1", "no", "--prep")
    rq("export", sent, "-o", "m.rqmsg")
    rq("rm", sent)
    refused = rq("import", "m.rqmsg", "--run", status=1)
    assert f"{sent} is in, and waits in prep" in refused.err
    assert "not today" in refused.err
    assert rq("show", sent, "--json").json()["state"] == "prep"


@pytest.mark.process
def test_memory_is_flat(rq: Rq, running: RunningInstance, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(150_000_000)
    rq("queue", "pause", "work")
    sent = rq.send("work", "--attach", str(big))
    for words in (["export", sent, "-o", "big.rqmsg"], ["import", "big.rqmsg", "--again"]):
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *words], env=rq.environ, cwd=rq.cwd,
            capture_output=True, check=True, text=True,
        )  # fmt: skip
        assert int(done.stdout.split()[-2]) < 48_000, done.stdout


#: ``rq``, and then how much memory it took at most: "VmHWM: 34000 kB".
MEASURED = """
import sys
from rqcore_cli.main import main
status = main(sys.argv[1:])
print(*(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(status)
"""
