"""How each operation is written in each language: `CODE[language][operation]`, one line of code each.

One table per family (`lists`, `strings`, `numbers`), one column per language, one line per operation. `{k}`
stands for the operation's number. The function's argument is the list of integers `xs`, the string `s` or the
integer `n`; a step assigns its result to the argument, an ending returns (in Bash: prints) it.

A chain's body is its steps' lines, in any order, and with mistakes one line may be there twice: where a
language refuses a second declaration of a name, no line may declare one that outlives it.
"""

from selftrain.problems.bank.code import lists, numbers, strings

CODE: dict[str, dict[str, str]] = {
    name: lists.CODE[name] | strings.CODE[name] | numbers.CODE[name] for name in lists.CODE
}
