"""Which messages go: held against the plain meaning of each rule, over many spools."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rqcore_cleaner import listing
from rqcore_cleaner.choosing import going, plan
from rqcore_cleaner.listing import Listing
from rqcore_cleaner.rules import DAY, Rule

from rqcore.lifecycle import State

Lay = Callable[..., str]
Present = Callable[..., list[str]]
#: Ages in days, with the days since it came to rest; none so near a bound that the clock decides.
AGES = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6)).map(lambda t: (max(t) + 0.5, min(t) + 0.5)),
    max_size=12,
)
STATES = st.sampled_from([State.DONE, State.RELAYED, State.ERR, State.PREP])


@settings(max_examples=60)
@given(
    ages=AGES, state=STATES, age=st.none() | st.integers(0, 7),
    number=st.none() | st.integers(0, 13), percent=st.none() | st.integers(0, 100),
)  # fmt: skip
@example(ages=[(3.5, 3.5), (3.5, 0.5)], state=State.DONE, age=2, number=None, percent=None)
def test_rules_mean_what_they_say(
    lay: Lay, ages: list[tuple[float, float]], state: State, age: int | None, number: int | None,
    percent: int | None,
) -> None:  # fmt: skip
    rule = Rule(None if age is None else age * DAY, number, None, percent)
    with tempfile.TemporaryDirectory() as folder:
        queue = Path(folder)
        laid = sorted((lay(queue, state, made, rested=rest), rest) for made, rest in ages)
        kept = len(laid)
        if number is not None:
            kept = min(kept, number)
        if percent is not None:
            kept = min(kept, -(-len(laid) * percent // 100))
        wanted = [
            msg_id
            for place, (msg_id, rest) in enumerate(laid)
            if place < len(laid) - kept or (age is not None and rest > age)
        ]
        cut = plan("q", folder, state, rule, time())
        found = list(going(cut))
        assert [item.msg_id for item in found] == wanted
        assert all(os.path.isfile(f"{item.path}/msg") for item in found)
        assert cut.most >= len(wanted)
        assert rule.keeps_all or cut.total == len(laid)


def test_no_age_at_all_lets_everything_go(tmp_path: Path, lay: Lay) -> None:
    ids = [lay(tmp_path, "done", 0), lay(tmp_path, "done", -1)]
    cut = plan("q", str(tmp_path), State.DONE, Rule(age=0), time())
    assert [item.msg_id for item in going(cut)] == ids


def test_bytes_keep_the_newest_that_fit(tmp_path: Path, lay: Lay) -> None:
    ids = [lay(tmp_path, "done", days, size=100_000) for days in (5, 4, 3, 2, 1)]
    each = listing.size(f"{tmp_path}/done/{path_of(ids[0])}")
    assert each >= 100_000
    cut = plan("q", str(tmp_path), State.DONE, Rule(size=each * 2), time())
    assert [item.msg_id for item in going(cut)] == ids[:3]
    assert not list(going(plan("q", str(tmp_path), State.DONE, Rule(size=each * 5), time())))


def path_of(msg_id: str) -> str:
    return f"{msg_id[:8]}/{msg_id[9:11]}/{msg_id[11:13]}/{msg_id}"


def test_one_that_is_attached_to_is_no_old_one(tmp_path: Path, lay: Lay) -> None:
    msg_id = lay(tmp_path, "prep", 5)
    cut = plan("q", str(tmp_path), State.PREP, Rule(age=2 * DAY), time())
    assert [item.msg_id for item in going(cut)] == [msg_id]
    folder = tmp_path / "prep" / msg_id
    (folder / "attach").mkdir()
    os.utime(folder, (1, 1))
    assert not list(going(cut))


def test_what_goes_away_meanwhile_is_as_if_it_had_not_been_there(tmp_path: Path, lay: Lay) -> None:
    ids = [lay(tmp_path, "done", days) for days in (9, 8, 7)]
    found = going(plan("q", str(tmp_path), State.DONE, Rule(age=DAY), time()))
    assert next(found).msg_id == ids[0]
    shutil.rmtree(tmp_path / "done" / ids[1][:8])
    assert [item.msg_id for item in found] == [ids[2]]
    assert listing.size(f"{tmp_path}/nowhere") == 0
    assert listing.ended(f"{tmp_path}/nowhere", State.DONE) == 0


def test_directories_that_hold_nothing_go_but_not_those_of_now(
    tmp_path: Path, lay: Lay, present: Present
) -> None:
    old, kept, new = (lay(tmp_path, "done", days) for days in (9, 8, 0))
    (tmp_path / "done" / "20200101" / "00" / "00").mkdir(parents=True)
    (tmp_path / "done" / "notes").mkdir()
    for msg_id in (old, new):
        shutil.rmtree(tmp_path / "done" / path_of(msg_id))
    removed = Listing(str(tmp_path), State.DONE).remove_empty(time())
    assert removed == 6
    assert present(tmp_path, "done") == [kept]
    assert sorted(os.listdir(tmp_path / "done")) == [kept[:8], new[:8], "notes"]
    assert (tmp_path / "done" / path_of(new)).parent.is_dir()
    (tmp_path / "err").mkdir()
    assert Listing(str(tmp_path), State.ERR).remove_empty(time()) == 0


def test_names_that_are_no_ids_are_no_messages(tmp_path: Path, lay: Lay) -> None:
    msg_id = lay(tmp_path, "err", 9)
    (tmp_path / "err" / "README").mkdir()
    assert Listing(str(tmp_path), State.ERR).count() == 1
    cut = plan("q", str(tmp_path), State.ERR, Rule(number=0), time())
    assert [item.msg_id for item in going(cut)] == [msg_id]


def test_an_attachment_that_two_share_counts_once(tmp_path: Path, lay: Lay) -> None:
    first, second = lay(tmp_path, "err", 2), lay(tmp_path, "err", 1)
    paths = [tmp_path / "err" / msg_id for msg_id in (first, second)]
    alone = listing.size(str(paths[1]))
    for path in paths:
        (path / "attach").mkdir()
    bare = listing.size(str(paths[1]))
    (paths[0] / "attach" / "big").write_bytes(b"x" * 1_000_000)
    assert listing.size(str(paths[0])) - bare >= 1_000_000
    (paths[1] / "attach" / "big").hardlink_to(paths[0] / "attach" / "big")
    shares = [listing.size(str(path)) - bare for path in paths]
    assert shares[0] == shares[1]
    assert 500_000 <= shares[0] <= 520_000
    assert bare >= alone
    (paths[1] / "job" / "link").symlink_to("/")
    assert listing.size(str(paths[1])) < 600_000


@pytest.mark.parametrize(("msg_id", "made"), [("20260301.0800.00.250.7", 1772352000.25), ("x", 0)])
def test_when_a_message_was_made(msg_id: str, made: float) -> None:
    assert listing.made(msg_id) == made
