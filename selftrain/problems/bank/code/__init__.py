"""The code of each operation in each language: `CODE[language][operation]` is one line of code.

Each family (`lists`, `strings`, `numbers`) has a file; `forms` writes lines that differ only in an expression. `{k}` stands
for the operation's number. The function's argument is the list of integers `xs`, the string `s` or the integer `n`. A step assigns
its result to the argument; an ending returns its result (in Bash: prints it).

The body of a solution consists of the lines of its steps, in any order. With mistakes a line may occur twice. So in a
language that refuses to declare a name twice, no line may declare a name that the following lines can see.
"""

from selftrain.problems.bank.code import lists, numbers, strings

CODE: dict[str, dict[str, str]] = {
    name: lists.CODE[name] | strings.CODE[name] | numbers.CODE[name] for name in lists.CODE
}
