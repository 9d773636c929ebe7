"""The problem bank: a generator of small programming problems, for exercise where no data set is at hand.

    operations.py   what the operations are called, what they compute, and the classic mistake of each
    code/           how each operation is written in each language
    languages.py    how each language writes a prompt and tests
    render.py       prompt, solution and tests of one problem
    generate.py     draws problems, and the untested corpus of answers to learn from

To add an operation:
 1. give it a row in `operations.py`, among the steps or the endings of its family;
 2. give it a line of code in every language, in the family's file in `code/`;
 3. run `pytest tests/selftrain/problems/bank`: that runs its code, right and mistaken, in every language.

To add a language:
 1. add its name to `selftrain.config.WRITTEN_LANGUAGES` and a row to `languages.py`;
 2. give it a column of code in each file of `code/`;
 3. run `pytest tests/selftrain/problems/bank`; the language has to be one that `sandbox` can run.

A new row in a family's table changes the problems that a seed gives for that family, and no other's.
"""
