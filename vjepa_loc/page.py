"""HTML pages from the templates in `templates/`: one file each, nothing loaded from elsewhere, names escaped."""

from __future__ import annotations


def render_page(template: str, **values) -> str:
    """The page as text. A value that the template names and nobody gave is an error, never an empty place."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vjepa_loc", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
