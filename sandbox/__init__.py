"""Runs programs that a model wrote and says what became of them. Stands alone; see docs/sandbox.md.

verdicts.py    what goes in (Program, Case, Limits) and what comes out (Verdict, Result)
languages.py   one row per language: how it is compiled, run and judged
programs.py    MultiPL-E's prompt + completion + tests, closed with a marker
client.py      Sandbox: many programs at once, each judged by a worker
worker.py      one worker, seen from the client
channel.py     how the two speak
runner.py      the worker itself: answers one request after the other
judge.py       what serves many programs: warm interpreter, compilers, checkers
judgement.py   one program: compiled, run, and its verdict
launch.py      starts one command as a child process
confine.py     what the child gives up first
watch.py       watches it, under a budget, until it and all that it started have ended
forkserver.py  a warm Python interpreter that forks one child per program
processes.py   the process tree of a program: what it uses, and how it is ended
preamble.py    which C++ headers a program can have precompiled
prepared.py    what is made once and then read fast: C++ headers, node's heap, a library for forkserver.py
compilers.py   javac, mcs and tsc that stay up (servers/)
clear.py       what a program leaves behind in a container
backends/      how a worker is isolated: process (not at all), bubblewrap, docker (images/)
cache.py       verdicts that are known
completion.py  from an answer in markdown to a completion
cli.py         python -m sandbox
rows.py        the files of python -m sandbox judge
multipl_e.py   MultiPL-E's files
check.py       whether a backend keeps its promises: shapes.py, hostile.py
errors.py      what is raised on purpose
"""
