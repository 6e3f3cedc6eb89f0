"""Options and markers, and where the CPU time goes: `--full` runs what takes too long for every change."""

import resource

import pytest

SLOWEST = 20
LONGEST = 100
"""Characters of a test's name that are shown."""
CPU_SECONDS = "cpu_seconds"
STARTED = pytest.StashKey[float]()


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="also run tests marked full (make test-full)")


def pytest_configure(config):
    config.addinivalue_line("markers", "full: takes long; runs with --full only")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--full"):
        return
    later = [item for item in items if item.get_closest_marker("full")]
    if later:
        config.hook.pytest_deselected(items=later)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


def cpu_seconds():
    """CPU seconds, user and system, of this process and of those of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    item.stash[STARTED] = cpu_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """The last of a test's three reports carries its CPU seconds, from a worker process too."""
    report = yield
    if report.when == "teardown":
        report.user_properties.append((CPU_SECONDS, cpu_seconds() - item.stash[STARTED]))
    return report


def pytest_terminal_summary(terminalreporter):
    """The slowest tests by CPU seconds, a fixture's with the first test that uses it, and the whole run's."""
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    spent = [
        (seconds, report.nodeid)
        for report in reports
        for name, seconds in getattr(report, "user_properties", [])
        if name == CPU_SECONDS
    ]
    terminalreporter.section(f"{SLOWEST} slowest, CPU seconds")
    for seconds, test in sorted(spent, reverse=True)[:SLOWEST]:
        terminalreporter.write_line(f"{seconds:8.1f}  {test[:LONGEST]}")
    in_tests = sum(seconds for seconds, _ in spent)
    terminalreporter.write_line(f"{cpu_seconds():8.1f}  all, {in_tests:.1f} of them in tests")
