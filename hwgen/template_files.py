"""The Jinja2 templates, found from a checkout and from an installed package alike."""

from pathlib import Path

import jinja2

_PACKAGE = Path(__file__).parent


def environment() -> jinja2.Environment:
    """Environment of `templates/`: undefined names are errors, and text in `.html.j2` templates is escaped."""
    folders = [_PACKAGE / "templates", _PACKAGE.parent / "templates"]
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([f for f in folders if f.is_dir()]), undefined=jinja2.StrictUndefined,
        autoescape=lambda name: name is not None and name.endswith(".html.j2"), keep_trailing_newline=True)
