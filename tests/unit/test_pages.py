"""Promises of the common page templates."""

from jinja2 import DictLoader

from regraft.core import pages


def compiled(source: str, **filters):
    """A template with this source in a new environment."""
    made = pages.environment((), filters)
    made.loader = DictLoader({"tiny.html": source})
    return made.get_template("tiny.html")


def test_a_template_is_compiled_once_a_process_and_anew_when_its_source_changes():
    first, again, changed = (compiled(f"<b>{{{{ x }}}}</b>{end}") for end in ("", "", "!"))
    codes = [template.root_render_func.__code__ for template in (first, again, changed)]
    assert codes[0] is codes[1]
    assert codes[0] is not codes[2]
    assert [again.render(x="<"), changed.render(x="<")] == ["<b>&lt;</b>", "<b>&lt;</b>!"]


def test_a_template_that_was_compiled_before_uses_the_filters_of_its_environment():
    shown = [compiled("{{ x|shown }}", shown=each).render(x=1) for each in ("a{}".format, str)]
    assert shown == ["a1", "1"]
