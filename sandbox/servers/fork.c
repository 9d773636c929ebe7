/* Runs Python programs for `sandbox/forkserver.py`: in a forked child of a warm interpreter (`serve`), or in this process (`once`).
   `sandbox.prepared` compiles it. It is in C for two reasons.

   The loop of `serve` touches little memory: what both sides of a fork write to is copied page by page, and in Python receiving a
   request and confining a child takes 300 pages, here ten.

   The interpreter calls `serve` and `once` at its exit, when no Python frame is left. So a program has the recursion depth and
   the frames that it has under `python3 main.py`, and there is no object from which it could get to its source or end marker. */
#include "child.h"

/* Of Python.h, which is not everywhere. */
typedef struct _object PyObject;
extern PyObject *PyBytes_FromStringAndSize(const char *, ssize_t);
extern PyObject *PyErr_SetFromErrno(PyObject *);
extern PyObject *PyErr_NoMemory(void);
extern PyObject *PyMarshal_ReadObjectFromString(const char *, ssize_t);
extern PyObject *PyEval_EvalCode(PyObject *, PyObject *, PyObject *);
extern PyObject *PyObject_CallFunction(PyObject *, const char *, ...);
extern PyObject *PyObject_CallFunctionObjArgs(PyObject *, ...);
extern PyObject *PyObject_CallMethod(PyObject *, const char *, const char *, ...);
extern PyObject *PySys_GetObject(const char *);
extern PyObject *Py_CompileString(const char *, const char *, int);
extern PyObject *PyExc_OSError, *PyExc_KeyboardInterrupt;
extern int PyErr_ExceptionMatches(PyObject *), Py_FinalizeEx(void);
extern void PyErr_Print(void), PyErr_Clear(void), Py_Exit(int);
extern void Py_IncRef(PyObject *), Py_DecRef(PyObject *), Py_LeaveRecursiveCall(void);
#define MODULE 257 /* Py_file_input */

/* The code of the program in file `fd`, and in `marker` the line that it prints at its end. The file has one line with `c` (code in
   marshal's format) or `s` (source) and the end marker (empty: none), and then the program. Nothing of it stays in memory. */
static PyObject *get_code(int fd, const char *name, char *marker, size_t room)
{
    struct stat found;
    size_t size = 0;
    ssize_t more;
    char *text = fstat(fd, &found) ? NULL : malloc(found.st_size + 1), *body;
    if (!text)
        return PyErr_NoMemory();
    while ((more = pread(fd, text + size, found.st_size - size, size)) > 0)
        size += more;
    close(fd);
    text[size] = 0;
    if (more < 0 || !(body = strchr(text, '\n')))
        return PyErr_SetFromErrno(PyExc_OSError);
    snprintf(marker, room, "%.*s", (int)(body - text - 1), text + 1);
    size -= ++body - text;
    PyObject *code = *text == 'c' ? PyMarshal_ReadObjectFromString(body, size) : Py_CompileString(body, name, MODULE);
    explicit_bzero(text, found.st_size);
    free(text);
    return code;
}

/* Run the program in file `fd` as `python3 NAME` would, as the module whose names are `globals`, and end this process. The program's
   end marker is printed only if it did not end in another way. `at_end` is a function that may end the process earlier. */
static void run(int fd, const char *name, PyObject *globals, PyObject *at_end)
{
    static char marker[64];
    Py_LeaveRecursiveCall(); /* the call of this library, which the interpreter counts as a level */
    PyObject *code = get_code(fd, name, marker, sizeof marker);
    PyObject *result = code ? PyEval_EvalCode(code, globals, globals) : NULL;
    int status = !result, interrupted = 0;
    Py_DecRef(code);
    Py_DecRef(result);
    Py_DecRef(globals); /* the program's objects end when its module does */
    if (status) {
        interrupted = PyErr_ExceptionMatches(PyExc_KeyboardInterrupt);
        PyErr_Print(); /* ends the process after SystemExit */
    } else if (*marker) {
        PyObject *out = PySys_GetObject("stdout");
        if (out && !PyObject_CallMethod(out, "flush", NULL))
            PyErr_Clear(); /* the interpreter tries again, and reports the failure */
        dprintf(1, "\n%s\n", marker);
    }
    if (!interrupted && !PyObject_CallFunction(at_end, "i", status))
        PyErr_Clear(); /* no memory or stack left */
    Py_DecRef(at_end);
    if (!interrupted)
        Py_Exit(status);
    Py_FinalizeEx();
    signal(SIGINT, SIG_DFL);
    kill(getpid(), SIGINT);
    _exit(128 + SIGINT);
}

/* Run one program in this process. `get_ready` is a function that returns the names of the program's module. */
void once(int fd, const char *name, PyObject *get_ready, PyObject *at_end)
{
    Py_IncRef(at_end); /* `get_ready` may drop this call's arguments */
    PyObject *globals = PyObject_CallFunctionObjArgs(get_ready, NULL);
    if (globals)
        run(fd, name, globals, at_end);
}

/* Serve until the caller is gone. `get_ready` is a function that gets the head of a request if it differs from the last one, and
   returns the names of the programs' module. Returns without an exception, or with one if the server cannot go on. */
void serve(int server, const char *processors, size_t size, PyObject *get_ready, PyObject *at_end)
{
    ssize_t known = -1;
    PyObject *globals = NULL;
    char *rest;
    Py_IncRef(get_ready); /* which drops this call's arguments */
    Py_IncRef(at_end);
    for (;;) {
        ssize_t length = receive(server, &rest);
        if (length <= 0)
            return;
        if (length != known || memcmp(head, rest, length)) {
            memcpy(head, rest, length + 1);
            known = length;
            PyObject *line = PyBytes_FromStringAndSize(head, length);
            Py_DecRef(globals);
            globals = PyObject_CallFunctionObjArgs(get_ready, line, NULL);
            Py_DecRef(line);
            if (!globals)
                return;
        }
        int is_child = fork_child(server, processors, size, 1);
        if (is_child < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return;
        }
        if (is_child) {
            Py_DecRef(get_ready);
            run(fds[3], strchr(strchr(head, '\n') + 1, '\n') + 1, globals, at_end);
        }
    }
}
