"""Rendering of a model's Jinja chat template with a bound on its work, its size and its time.

A chat template is a program that came with the model. transformers runs it in a sandbox that keeps it from reading
anything, and not from running for ever or asking for all memory: nested loops, ``'a' * 10**10``, a gigabyte of output.
This is the same sandbox with the same names, in which each line is counted and each value is measured.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from types import FrameType
from typing import Any

MAX_TEMPLATE = 1_000_000
"""Characters of a template; the longest published ones have 20,000."""
MAX_LINES = 2_000_000
"""Lines of Python that one rendering may run; a conversation of a hundred turns takes some thousands."""
MAX_SIZE = 16_000_000
"""Characters or items of any value, and of the rendered text."""
MAX_SECONDS = 20.0
_MAX_BITS = 4096  # of a whole number
_WIDTH = re.compile(r"\d{5}")
_CHECKED_EVERY = 1000  # lines


class TemplateLimit(ValueError):  # noqa: N818 - a limit that was met
    """The template asks for more work, memory or time than any chat template needs."""


def render_template(
    template: str,
    messages: Sequence[dict[str, Any]],
    add_generation_prompt: bool,
    on_wait: Callable[[], object] = lambda: None,
    **variables: Any,
) -> str:
    """The text of a conversation.

    Args:
        template: Jinja, as ``chat_template.jinja`` or ``tokenizer_config.json`` holds it.
        messages: as chat templates read them.
        on_wait: called now and then while the template runs; may raise, which ends the rendering.
        variables: what else the template may read, such as ``bos_token``.

    Raises:
        ValueError: the template is not valid Jinja, refuses the conversation, fails, or met a limit.
    """
    import jinja2

    if len(template) > MAX_TEMPLATE:
        raise TemplateLimit(f"it has {len(template):,} characters; {MAX_TEMPLATE:,} are allowed")
    try:
        compiled = _compiled(template)
        with_limits = _Watch(on_wait)
        with with_limits:
            text, size = [], 0
            for piece in compiled.generate(
                messages=list(messages),
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **variables,
            ):
                size += len(piece)
                _check_size(size)
                text.append(piece)
        return "".join(text)
    except TemplateLimit:
        raise
    except jinja2.UndefinedError as error:
        raise ValueError("it asks for something that no conversation has") from error
    except jinja2.TemplateError as error:
        raise ValueError(str(error)[:500] or type(error).__name__) from error
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        # What Python raises for a template's own mistakes: 1/0, range(10**12), a number added to a text.
        raise ValueError(f"{type(error).__name__}: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """What an exception says to a person: of Python's own about types and attributes, what they mean."""
    if isinstance(error, (AttributeError, TypeError)):
        return "a value has the wrong type or is missing"
    return str(error)[:500]


class _Watch:
    """Counts the lines that templates run in this thread; ends them at ``MAX_LINES`` or ``MAX_SECONDS``."""

    def __init__(self, on_wait: Callable[[], object]) -> None:
        self._on_wait = on_wait
        self._lines = 0
        self._ends_at = 0.0
        self._before: Any = None

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        self._ends_at = time.monotonic() + MAX_SECONDS
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Trace function: follows the frames of compiled templates alone."""
        return self._count if frame.f_code.co_filename == "<template>" else None

    def _count(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            self._lines += 1
            if self._lines % _CHECKED_EVERY == 0:
                self._check()
        return self._count

    def _check(self) -> None:
        if self._lines > MAX_LINES:
            raise TemplateLimit(f"it runs more than {MAX_LINES:,} lines")
        if time.monotonic() > self._ends_at:
            raise TemplateLimit(f"it runs for more than {MAX_SECONDS:.0f} s")
        self._on_wait()


def _check_size(size: int) -> None:
    if size > MAX_SIZE:
        raise TemplateLimit(f"it makes a text or a list longer than {MAX_SIZE:,}")


def _measured(value: Any) -> Any:
    if isinstance(value, (str, bytes, list, tuple, dict)):
        _check_size(len(value))
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise TemplateLimit(f"it makes a number of more than {_MAX_BITS} bits")
    return value


def _check_arguments(values: Sequence[Any]) -> None:
    """No whole number that a method or filter could take for a width, a number of copies or of items, and no list that
    becomes huge once it is written out."""
    for value in values:
        if isinstance(value, int) and abs(value) > MAX_SIZE:
            raise TemplateLimit(f"it hands on a number above {MAX_SIZE:,}")
        _check_written(value)


def _check_written(value: Any) -> None:
    """A list that holds another one many times is small until it is written out."""
    sized = (str, bytes, list, tuple, dict)
    stack, size = [value] if isinstance(value, sized) else [], 0
    while stack:
        found = stack.pop()
        size += len(found)
        _check_size(size)
        if not isinstance(found, (str, bytes)):
            items = found.values() if isinstance(found, dict) else found
            stack.extend(item for item in items if isinstance(item, sized))


def _check_join(separator: Any, items: Any) -> None:
    if isinstance(separator, str) and hasattr(items, "__len__"):
        _check_size(len(separator) * len(items))


def _check_replace(text: Any, arguments: Sequence[Any]) -> None:
    """``replace`` may put a long text in the place of each character."""
    if len(arguments) >= 2 and isinstance(text, str) and all(isinstance(part, str) for part in arguments[:2]):
        old, new = arguments[:2]
        _check_size(len(text) + (text.count(old) if old else len(text) + 1) * len(new))


def _check_binary(operator: str, left: Any, right: Any) -> None:
    sized = (str, bytes, list, tuple)
    if operator == "*":
        for one, other in ((left, right), (right, left)):
            if isinstance(one, sized) and isinstance(other, int):
                _check_size(len(one) * max(0, other))
    elif operator == "+" and isinstance(left, sized) and isinstance(right, sized):
        _check_size(len(left) + len(right))
    elif operator == "%" and isinstance(left, (str, bytes)):
        if _WIDTH.search(left if isinstance(left, str) else left.decode("latin-1")) or "*" in str(left):
            raise TemplateLimit("it formats a text with a huge width")
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        if left.bit_length() * max(0, right) > _MAX_BITS:
            raise TemplateLimit(f"it makes a number of more than {_MAX_BITS} bits")


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    return _environment().from_string(template)


@functools.lru_cache(maxsize=1)
def _environment() -> Any:
    """transformers' environment for chat templates (utils/chat_template_utils.py of 5.24), with every value measured."""
    from jinja2 import compiler, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}`` marks what the assistant says; here it is only its content."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    class Code(compiler.CodeGenerator):
        def visit_Concat(self, node: Any, frame: Any) -> None:  # noqa: N802 - jinja2's name
            self.write("environment.joined((")
            for part in node.nodes:
                self.visit(part, frame)
                self.write(", ")
            self.write("))")

    class Environment(ImmutableSandboxedEnvironment):
        code_generator_class = Code
        intercepted_binops = frozenset(("*", "**", "+", "%"))

        @staticmethod
        def concat(parts: Iterable[str]) -> str:
            found, size = [], 0
            for part in parts:
                size += len(part)
                _check_size(size)
                found.append(part)
            return "".join(found)

        def joined(self, parts: Sequence[Any]) -> str:
            _check_arguments(parts)
            return self.concat(map(str, parts))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_binary(operator, left, right)
            return _measured(super().call_binop(context, operator, left, right))

        def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - jinja2's names
            # The limits of range() are jinja's own.
            if __obj is not __self.globals["range"]:
                _check_arguments((*args, *kwargs.values()))
            name = getattr(__obj, "__name__", "")
            owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
            if name == "replace":
                _check_replace(owner, args)
            elif name == "join":
                _check_join(owner, *args[:1])
            elif name in ("format", "format_map") and isinstance(owner, str) and _WIDTH.search(owner):
                raise TemplateLimit("it formats a text with a huge width")
            return _measured(super().call(__context, __obj, *args, **kwargs))

    def finalize(value: Any) -> Any:
        _check_written(value)
        return value

    environment = Environment(
        finalize=finalize, trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    for name, function in list(environment.filters.items()):
        environment.filters[name] = _bounded_filter(name, function)
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.globals.pop("lipsum", None)  # makes texts of any length, and no template needs it
    return environment


def _bounded_filter(name: str, function: Any) -> Any:
    @functools.wraps(function)  # keeps the marks that tell jinja whether a filter takes its context
    def run(*args: Any, **kwargs: Any) -> Any:
        # Generators, which filters hand to each other, are taken in where their length matters.
        if name == "join":
            args = tuple(list(arg) if inspect.isgenerator(arg) else arg for arg in args)
            texts = [arg for arg in args if isinstance(arg, str)] + [kwargs.get("d")]
            _check_join(
                texts[-1] or texts[0] or "", next((arg for arg in args if isinstance(arg, (list, tuple))), ())
            )
        _check_arguments((*args, *kwargs.values()))
        if name == "replace":
            _check_replace(next((arg for arg in args if isinstance(arg, str)), None), [*args[-2:]])
        if name == "format" and any(isinstance(arg, str) and _WIDTH.search(arg) for arg in args):
            raise TemplateLimit("it formats a text with a huge width")
        return _measured(function(*args, **kwargs))

    return run


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)
