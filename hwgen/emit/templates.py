"""Verilog from Jinja2 templates."""

from functools import cache

from hwgen.template_files import environment

_environment = cache(environment)


def render(template: str, **values) -> str:
    """Text of a template in `templates/`; a name it uses and is not given is an error."""
    return _environment().get_template(template).render(**values)
