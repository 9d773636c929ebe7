"""The problem bank: generates small programming problems, so that a run needs no data set.

To add an operation:
 1. add a row in `operations.py`, to the steps or the endings of its family;
 2. add a line of code for every language, or the expression in it, in the family's file in `code/`;
 3. run `pytest tests/selftrain/problems/bank`, which runs the operation's code and its mistake in every language.

To add a language:
 1. add its name to `selftrain.config.WRITTEN_LANGUAGES`, a row to `languages.py`, and, since contests have prompts in the same
    languages, how its comments look to `COMMENTS` in `selftrain/problems/contests.py`;
 2. add its code to each file of `code/`;
 3. run `pytest tests/selftrain/problems`; the language has to be one that `sandbox` can run.

WRITTEN_LANGUAGES is also the default of `problems.languages`: configs that do not set it get new keys.

A new operation changes which problems a seed gives for its family, but not for other families.
"""
