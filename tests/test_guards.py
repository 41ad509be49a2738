"""The guards of the root conftest.py notice what they are there for."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Lets go of its output when it runs, so whoever reads that knows; then it is nobody's child.
ORPHAN = "setsid sh -c 'exec >/dev/null; sleep 61; exit' &"

LEAKS = {
    "os.environ['LEFT'] = 'x'": "*environment variable LEFT: was None, is 'x'",
    "del os.environ['HOME']": "*environment variable HOME: was *, is None",
    "os.chdir('/')": "*current directory: was *, is /",
    "os.open('/etc/passwd', os.O_RDONLY)": "*descriptor *: was closed, is /etc/passwd",
    "os.close(0)": "*descriptor 0: was *, is closed",
    "subprocess.Popen(['sleep', '60']).returncode = 0": "*process *: sleep 60*",
    "os.waitid(os.P_PID, os.fork() or os._exit(0), os.WEXITED | os.WNOWAIT)": (
        "*process *: *nobody waited for it*"
    ),
    f"subprocess.check_output(['sh', '-c', {ORPHAN!r}])": "*process *: *sleep 61*",
    "subprocess.run(['setsid', '-f', 'sleep', '0.3'])": None,  # about to end: that is awaited
}


@pytest.fixture
def guarded(pytester: pytest.Pytester) -> pytest.Pytester:
    """A directory of tests under the same guards."""
    pytester.makeconftest((ROOT / "conftest.py").read_text())
    return pytester


def test_what_a_test_leaves_behind_is_named_and_harms_no_other(guarded: pytest.Pytester) -> None:
    tests = [f"def test_leak_{number}(): {leak}" for number, leak in enumerate(LEAKS)]
    guarded.makepyfile("\n".join(["import os, subprocess", *tests]))
    result = guarded.runpytest_subprocess()
    expected = [named for named in LEAKS.values() if named]
    result.assert_outcomes(passed=len(LEAKS), errors=len(expected))
    lines = (line for named in expected for line in ("this test left behind:", named))
    result.stdout.fnmatch_lines(list(lines))


def test_a_skip_can_be_made_a_failure(guarded: pytest.Pytester) -> None:
    skip = "import pytest\npytest.skip('no such tool', allow_module_level=True)"
    guarded.makepyfile(
        test_module=skip,
        test_one="import pytest\ndef test_skips(): pytest.skip('no such tool')",
        test_expected="import pytest\n@pytest.mark.xfail\ndef test_fails(): assert False",
    )
    result = guarded.runpytest_subprocess()
    result.assert_outcomes(skipped=2, xfailed=1)
    result = guarded.runpytest_subprocess("--no-skips", "--continue-on-collection-errors")
    result.assert_outcomes(errors=1, failed=1, xfailed=1)
    result.stdout.fnmatch_lines(["with --no-skips this is a failure: *no such tool*"] * 2)
