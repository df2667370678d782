"""YAML with the scalars of version 1.2: 2e-4 is a number; yes, on, 010 and 1:30 are no surprises. A key comes once."""

# pyright: basic
# (PyYAML's stubs leave too many types unknown for strict.)

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from motet.core.printable import printable


def from_yaml(text: str) -> Any:
    """The plain values that a text describes."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _reject_endless(node)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        what = (error.problem or error.context or "it cannot be parsed").replace("'\\t'", "a tab")
        raise Unreadable(f"{line}{what}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Unreadable(f"line {line}: a character that YAML does not allow ({error.character!r})") from None
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except (
        ValueError,
        TypeError,
    ) as error:  # a number too long, a merge of a non-mapping
        raise Unreadable(str(error)) from None


def to_yaml_text(content: Any) -> str:
    """Plain values as text that both versions of YAML read alike, and that is safe to print."""
    settings: dict[str, Any] = {"Dumper": _Dumper, "sort_keys": False, "width": 110}
    text = yaml.dump(content, allow_unicode=True, **settings)
    return text if printable(text) == text else yaml.dump(content, allow_unicode=False, **settings)


def _reject_endless(root: Node) -> None:
    """Raise for an alias inside of what it stands for, and for aliases and merges that stand for too many values.

    Every node is counted once, with all that lies below it wherever it is used: nothing is written out to be counted.
    """
    sizes: dict[Node, int] = {}
    stack: list[tuple[Node, bool]] = [(root, False)]
    open_nodes: set[Node] = set()
    while stack:
        node, counted = stack.pop()
        below = _below(node)
        if counted:
            open_nodes.discard(node)
            sizes[node] = 1 + sum(sizes[inner] for inner in below)
            if sizes[node] > _MOST_VALUES:
                problem = f"this stands for more than {_MOST_VALUES:,} values, aliases counted with what they name"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        elif node in open_nodes:
            raise yaml.MarkedYAMLError(problem="an alias stands for what contains it", problem_mark=node.start_mark)
        elif node not in sizes:
            open_nodes.add(node)
            stack += [(node, True), *((inner, False) for inner in below)]


def _below(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


_MOST_VALUES = 100_000


class Unreadable(Exception):
    """Text that is not YAML, with the line."""


class _Loader(yaml.SafeLoader):
    """Resolves the scalars below and no others; rejects duplicate keys."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}  # pyright: ignore[reportIncompatibleVariableOverride]

    def compose_mapping_node(self, anchor: Any) -> MappingNode | None:
        node = super().compose_mapping_node(anchor)
        seen: dict[str, int] = {}
        for key in [key for key, _ in node.value if isinstance(key, ScalarNode)] if node is not None else []:
            line = key.start_mark.line + 1
            if key.value in seen:
                twice = f"the key '{key.value}' is given twice, on lines {seen[key.value]} and {line}"
                raise yaml.MarkedYAMLError(problem=twice, problem_mark=key.start_mark)
            seen[key.value] = line
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would misread; writes texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    "int": (r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+", [*"-+0123456789"]),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
    "merge": (r"<<", ["<"]),
}
for _name, (_pattern, _first) in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), _first)


def _construct_int(loader: yaml.SafeLoader, node: ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> ScalarNode:
    style = "|" if "\n" in text else None
    if any(rare in text for rare in "\r\x85\u2028\u2029"):  # line breaks to YAML, which would read back as \\n
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Dumper.add_representer(str, _represent_text)
