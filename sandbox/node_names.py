"""Declares what node gives to TypeScript programs and tsc does not know, because node's type declarations are not installed.

A program that reads its input uses node: `import * as fs from 'fs'`, `process.stdin`. Where people write such programs, the package
@types/node is installed, and with `any` for all of it the same programs compile. So a program with cases whose compilation fails is
compiled once more, with a file of declarations for exactly those names of node that tsc did not find, none of which can conflict with
the program's own. Programs with tests need none: MultiPL-E's tests declare what they use.
"""

import re

from sandbox.languages import NODE_OWN, TYPES_OF_NODE, Language
from sandbox.verdicts import Program

FILE = "names-of-node.d.ts"
"""The name of the file with the declarations."""

_NAMES = "process|require|module|exports|global|Buffer|__dirname|__filename|setImmediate|clearImmediate"
_LACKING = re.compile(
    rf"error TS2307: Cannot find module '(?P<module>(?:node:)?(?:{NODE_OWN})(?:/promises)?)'"
    rf"|error TS\d+: Cannot find name '(?P<name>{_NAMES})'|error TS2503: Cannot find namespace '(?P<space>NodeJS)'"
)
_READLINE = (
    "{ export type Interface = any; export type ReadLine = any; export const createInterface: any; export const clearLine: any; "
    "export const cursorTo: any; export const promises: any; export const on: any; export const once: any; }"
)
"""readline's types are those that programs name."""
_SPACE = "declare namespace NodeJS { type Timeout = any; type Timer = any; type Immediate = any; type ReadStream = any; type WriteStream = any; }"


def declarations(row: Language, program: Program, said: str) -> str:
    """The declarations for what `said`, tsc's message, does not find of node; empty if there is nothing, or if `row`, the language
    of the `program`, has no use for them."""
    if TYPES_OF_NODE not in (row.compile or ()) or FILE in dict(program.files):
        return ""
    return "".join(sorted({_declaration(lacking) for lacking in _LACKING.finditer(said)}))


def _declaration(lacking: re.Match[str]) -> str:
    if name := lacking["name"]:
        return f"declare var {name}: any; declare type {name} = any;\n"
    if module := lacking["module"]:
        return f"declare module '{module}'{' ' + _READLINE if module.endswith('readline') else ';'}\n"
    return f"{_SPACE}\n"
