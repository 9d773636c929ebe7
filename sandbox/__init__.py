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
    worker.py      the client's side of the connection to a worker process; the byte stream is in channel.py
    backends/      how workers and programs are isolated: process (not at all), bubblewrap, docker (images/)
Worker
    runner.py      the worker process: answers the client's requests
    judge.py       judges one program after another; keeps a Python interpreter (forkserver.py), compilers (compilers.py,
                   servers/) and a compiled checker (checking.py) for the next program
    judgement.py   the steps for one program: compile, run, verdict
    split.py       runs a Python program's tests in another process (servers/split.py); twin.py makes the twin of a program
    unseen.py      keeps a Python program's source out of its reach; shelf.py hides modules that it has not imported
    launch.py      starts a command as a child process, restricted by confine.py and seccomp.py
    zygote.py      processes that fork a child per program: node, and the compiler proper of g++ (forkserver.py: Python)
    watch.py       enforces the limits until the command and all its processes have ended (processes.py); meter.py measures
                   their usage, with the help of the worker's control group where there is one (group.py)
    exchange.py    the files that a program gets and the files that it returns
    clear.py       removes the files that a program leaves, snapshot.py those that it leaves in its own directory for its next
                   case; room.py recognizes a full disk
    prepared.py    files built once: precompiled C++ headers (preamble.py), node's heap, the libraries in C
    classfiles.py  finds the class to run in a Java or Scala program
    libraries.py   reports missing libraries; installed.py lists the installed ones; node_names.py declares node to TypeScript
Answers of chat models
    completion.py  extracts a program from an answer: markdown.py, lexer.py, grammars.py, outline.py, needs.py, splice.py
Command line and HTTP
    cli.py         python -m sandbox; rows.py and multipl_e.py read and write its files, progress.py shows how far it is
    check.py       tests a backend with the programs of shapes.py and hostile.py
    serve/         the HTTP server
"""
