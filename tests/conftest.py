"""Options and markers: `--full` runs what takes too long for every change."""


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
