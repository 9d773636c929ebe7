"""Runs programs that a model wrote and returns a verdict for each. Needs nothing else of this repository; see docs/sandbox.md.

Input and output
    verdicts.py    Program, Case, Checker, Limits; Verdict, Result
    languages.py   the table of languages: how each is compiled, run and judged
    programs.py    assembles MultiPL-E's prompt + completion + tests, with an end marker
    compare.py     the rules by which output is compared
    errors.py      the exceptions
Client
    client.py      Sandbox: judges many programs at once on workers
    cache.py       the verdict cache
    worker.py      the client's side of a worker, over channel.py
    backends/      how a worker is isolated: process (not at all), bubblewrap, docker (images/)
Worker
    runner.py      the worker process: answers requests
    judge.py       judges programs; keeps warm helpers (compilers.py, servers/; forkserver.py) and a checker (checking.py)
    judgement.py   one program: compile, run, verdict
    launch.py      starts a command as a child process, restricted by confine.py
    watch.py       enforces limits until the command and its processes have ended (processes.py)
    clear.py       removes what a program leaves in a container; room.py recognizes a full disk
    prepared.py    files built once: precompiled C++ headers (preamble.py), node's heap, the library for forkserver.py
    classfiles.py  the class to run; libraries.py: missing libraries
Answers
    completion.py  extracts a program from an answer: markdown.py, lexer.py, grammars.py, outline.py, needs.py, splice.py
Command line
    cli.py         python -m sandbox; rows.py and multipl_e.py: its files
    check.py       tests a backend: shapes.py, hostile.py
"""
