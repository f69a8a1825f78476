"""Pages from the templates beside this file: one file each, without scripts or outside links."""

import re
from collections.abc import Mapping
from typing import Any

from tfsft.evaluation import plots
from tfsft.evaluation.wording import duration, number, percent, plain


def render(template: str, context: Mapping[str, Any]) -> str:
    """Returns a page.

    Args:
        template: Name of a file beside this one; what it is given is escaped in HTML, and in
            Markdown by the filter `cell`.
        context: What it says.
    """
    # Jinja stays out of the way of those who want metrics only.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfsft.evaluation", "."),
        autoescape=template.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": percent,
        "number": number,
        "duration": duration,
        "count": lambda value: f"{value:,}",
        "plain": plain,
        "short": lambda name: plots.shorten(name, 80),
        "cell": cell,
        "brief": lambda answer: plots.shorten(answer, 200),
    }
    return environment.get_template(template).render(context)


def cell(text: str) -> str:
    """Returns a text on one line that means itself in Markdown, in a table too."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]<>#|~])", r"\\\1", line)


def svg(figure: Any, label: str) -> Any:
    """Returns a figure as a page takes it, with what is read out for those who cannot see it."""
    from markupsafe import Markup

    return Markup(plots.to_svg(figure, label))
