"""A film as one HTML file: a slider over the steps, colours by probability or by order; no link to anywhere."""

from __future__ import annotations

import json
from dataclasses import asdict

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from experiments.report.film.record import Film


def render_film(film: Film) -> str:
    """The page. Data stand in a JSON block, in which no tag can end the script."""
    environment = Environment(
        loader=PackageLoader("experiments.report.film"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    data = json.dumps(asdict(film), ensure_ascii=True).replace("<", "\\u003c")
    return environment.get_template("film.html.j2").render(film=film, data=Markup(data))
