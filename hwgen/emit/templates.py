"""Jinja2 templates, from the installed package or from a checkout."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_PACKAGE = Path(__file__).parents[1]


@cache
def _environment():
    # an installed package carries the folder inside; in a checkout it lies beside
    folders = [_PACKAGE / "templates", _PACKAGE.parent / "templates"]
    return Environment(loader=FileSystemLoader(folders), undefined=StrictUndefined, keep_trailing_newline=True)


def render(template: str, **values) -> str:
    """Text of a template in `templates/`; a name it uses and is not given is an error."""
    return _environment().get_template(template).render(**values)
