"""Malicious chat templates: none runs code, reads files, goes on for ever or fills the memory."""

import re
import sys
import time
from pathlib import Path

import pytest

from tfsft.data import template_process
from tfsft.data.chat_templates import ChatTemplate, choose_template
from tfsft.errors import UserError

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
PLAIN = "{% for m in messages %}{{ m.content }}{% endfor %}"
RUNS_CODE = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.system('touch canary') }}",
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(cycler) }}",
    "attribute": "{{ messages|attr('__class__') }}",
    "map": "{{ [messages]|map(attribute='__class__')|list }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os.system('touch canary') }}",
    "extends": "{% extends '/etc/passwd' %}",
    "changes": "{{ messages.append(1) }}",
}
TAKES_MUCH = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "literals": "{% set d = [1] * 999 %}" + "{% for a in d %}" * 4 + "{% endfor %}" * 4,
    "range": "{% for i in range(10**9) %}x{% endfor %}",
    "letters": "{{ messages[0].content * 10**10 }}",
    "constant": "{{ 'x' * 10**10 }}",
    "doubling": "{% set n = namespace(x='xy' * 999) %}"
    "{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "lists": "{% set n = namespace(x=[1]) %}"
    "{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "power": "{{ 7 ** messages[0].content|length ** 99 ** 99 }}{{ 10 ** (10 ** 9) }}",
    "width": "{{ '%2000000000d' % 1 }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "tree": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "lorem": "{{ lipsum(n=10**8) }}",
}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(template_process, "MOST_SECONDS", 1)


@pytest.mark.parametrize("source", RUNS_CODE.values(), ids=RUNS_CODE)
def test_a_template_reaches_nothing(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"refuses a conversation|leaves the assistant's last"):
        ChatTemplate(source).pieces(TALK)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", TAKES_MUCH.values(), ids=TAKES_MUCH)
def test_a_template_takes_little_time_and_memory(source, quick):
    began = time.monotonic()
    with pytest.raises(
        UserError, match=r"refuses a conversation of|is no Jinja template: it takes"
    ):
        ChatTemplate(source).pieces(TALK)
    assert time.monotonic() - began < 8


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_of_templates_can_take_no_more():
    assert ChatTemplate(PLAIN).pieces(TALK)
    limits = Path(f"/proc/{template_process._process._running.pid}/limits").read_text()
    assert re.search(rf"Max address space +{template_process.MOST_MEMORY} ", limits)
    assert re.search(r"Max file size +0 ", limits)
    assert template_process.MOST_MEMORY < 200 << 20


def test_the_limits_are_what_ends_them(monkeypatch):
    # The same kind of template passes where it stays below them.
    monkeypatch.setattr(template_process, "MOST_SECONDS", 60)
    harmless = TAKES_MUCH["loops"].replace("99999", "99")
    assert ChatTemplate(harmless + PLAIN).pieces(TALK)
    with pytest.raises(UserError, match="makes 1,200,000 letters"):
        ChatTemplate("{% set x = 'x' * 1200000 %}{{ x }}").pieces(TALK)


def test_after_a_template_that_was_ended_others_work(quick):
    with pytest.raises(UserError, match="takes more than 1 seconds"):
        ChatTemplate(TAKES_MUCH["loops"]).pieces(TALK)
    text = "".join(piece.text for piece in ChatTemplate(PLAIN).pieces(TALK))
    assert text == "HiHello!"


def test_a_module_in_the_folder_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "jinja2.py").write_text("open('canary', 'w')")
    monkeypatch.chdir(tmp_path)
    template_process._process.end()
    assert ChatTemplate(PLAIN).pieces(TALK)
    assert not (tmp_path / "canary").exists()


def test_a_template_of_a_file_is_one_too(tmp_path, quick):
    class Tokenizer:
        control, begin, end = {"</s>": 2}, None, 2

    path = tmp_path / "chat.jinja"
    path.write_text(RUNS_CODE["globals"])
    template = choose_template(str(path), None, Tokenizer())
    with pytest.raises(UserError, match=f"^{path} refuses a conversation"):
        template.pieces(TALK)
