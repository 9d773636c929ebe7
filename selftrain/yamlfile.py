"""Reads the YAML of configs and studies: plain words are texts, numbers or null; only `true` and `false` are truth values.

YAML 1.1 also reads `off`, `no` and `yes` as truth values, `2026-01-05` as a date and `1:30` as 90, where a setting has a text of that
form; here, as in YAML 1.2, they are texts, and a setting that is true or false takes such words all the same.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

_OTHERS = ("bool", "int", "timestamp")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with other plain words (see the module), and a mapping with one key twice refused."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, form) for tag, form in forms if tag.rpartition(":")[2] not in _OTHERS]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> Any:
        """The mapping that follows. Raises where a key is there twice: the second would replace the first without a word."""
        node = super().compose_mapping_node(anchor)
        seen: set[Hashable] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.composer.ComposerError(
                        None, None, f"{key.value!r} is there twice; take one out", key.start_mark
                    )
                seen.add(key.value)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """The value in `text`. Raises ValueError, with a message of one line, where it is not YAML."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (a safe loader)
    except yaml.MarkedYAMLError as error:
        said = ", ".join(filter(None, (error.context, error.problem)))
        mark = error.problem_mark or error.context_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        advice = "; indent with blanks, not with tabs" if "'\\t'" in said else ""
        raise ValueError(f"{said}{place}{advice}") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    # A value that is not what its `!!` tag says, or has thousands of digits.
    except (ValueError, AttributeError) as error:
        raise ValueError(f"a value that is not of its type: {error}") from None


def read_yaml(path: Path) -> Any:
    """The value in a file. Raises ValueError, with a message of one line, where it cannot be read."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error.reason}); save the file as UTF-8") from None
    except OSError as error:
        raise ValueError(str(error.strerror)) from None
