/* The inner loop of `sandbox/forkserver.py`, for what both sides of a fork write to in memory is copied page by page: in Python
   receiving a request and confining a child takes 300 pages, here ten. `sandbox.prepared` compiles it.

   `in_python` in that file does the same where there is no compiler. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of Python.h, which is not everywhere. */
typedef struct _object PyObject;
extern PyObject *PyBytes_FromStringAndSize(const char *, ssize_t);
extern PyObject *PyBool_FromLong(long);
extern PyObject *PyErr_SetFromErrno(PyObject *);
extern PyObject *PyMarshal_ReadObjectFromString(const char *, ssize_t);
extern PyObject *PyEval_EvalCode(PyObject *, PyObject *, PyObject *);
extern PyObject *PyExc_OSError;

static char message[1 << 16], head[1 << 16];
static long user;
static int fds[4], count;

/* The length of the head of the next request, of which `user`, `fds` and `count` are set; 0 where the caller is gone. */
static ssize_t receive(int server, char **rest)
{
    union { struct cmsghdr header; char space[CMSG_SPACE(sizeof fds)]; } control;
    struct iovec part = {message, sizeof message - 1};
    struct msghdr request = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t length = recvmsg(server, &request, 0);
    struct cmsghdr *passed = CMSG_FIRSTHDR(&request);
    if (length <= 0 || !passed)
        return 0;
    message[length] = 0;
    count = (passed->cmsg_len - CMSG_LEN(0)) / sizeof *fds;
    memcpy(fds, CMSG_DATA(passed), count * sizeof *fds);
    user = strtol(message, rest, 10);
    return message + length - ++*rest;
}

/* What `confine` in `sandbox/confine.py` does, which says why. Returns what went wrong, or NULL. */
static const char *confine(char *rlimits, pid_t parent)
{
    if (setsid() < 0)
        return "setsid";
    int adjusted = open("/proc/self/oom_score_adj", O_WRONLY);
    if (adjusted < 0 || write(adjusted, "1000", 4) != 4 || close(adjusted))
        return "oom_score_adj";
    if (user >= 0 && (setgroups(0, NULL) || setresgid(user, user, user) || setresuid(user, user, user)))
        return "change of user";
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return "prctl";
    while (*rlimits != '\n') {
        char *before = rlimits;
        int which = strtol(rlimits, &rlimits, 10);
        struct rlimit now, wanted;
        wanted.rlim_cur = strtoul(rlimits, &rlimits, 10);
        wanted.rlim_max = strtoul(rlimits, &rlimits, 10);
        if (rlimits == before || getrlimit(which, &now))
            return "getrlimit";
        if (wanted.rlim_cur > now.rlim_max)
            wanted.rlim_cur = now.rlim_max;
        if (wanted.rlim_max > now.rlim_max)
            wanted.rlim_max = now.rlim_max;
        if (setrlimit(which, &wanted) && which != RLIMIT_NPROC && which != RLIMIT_MSGQUEUE)
            return "setrlimit";
    }
    return NULL;
}

/* In a child: become the program's process. */
static const char *enter(const char *processors, size_t size, pid_t parent)
{
    for (int target = 0; target < 3; target++)
        if (dup2(fds[target], target) < 0 || close(fds[target]))
            return "dup2";
    syscall(SYS_sched_setaffinity, 0, size, processors); /* without it is only slower */
    char directory[4096], *start = strchr(head, '\n') + 1, *end = strchr(start, '\n');
    if (end - start >= (ssize_t)sizeof directory)
        return "directory";
    memcpy(directory, start, end - start);
    directory[end - start] = 0;
    return chdir(directory) ? "chdir" : confine(head, parent);
}

/* Run the code in file `fd` as the module whose names are `globals`. */
static PyObject *run(int fd, PyObject *globals)
{
    ssize_t size = pread(fd, message, sizeof message, 0); /* that memory is nobody's now */
    close(fd);
    PyObject *code = size < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyMarshal_ReadObjectFromString(message, size);
    return code ? PyEval_EvalCode(code, globals, globals) : NULL;
}

/* Serve until there is something to do in Python: a new head to get ready for (bytes), or none, as the caller is gone (empty). In
   a new child: None once its program has run; an exception; True where its source has to be compiled. */
PyObject *serve(int server, const char *processors, size_t size, PyObject *globals)
{
    static ssize_t known;
    static int waiting;
    char answer[128], *rest;
    for (;;) {
        if (!waiting) {
            ssize_t length = receive(server, &rest);
            if (length <= 0)
                return PyBytes_FromStringAndSize(NULL, 0);
            if (length != known || memcmp(head, rest, length)) {
                memcpy(head, rest, length + 1);
                known = length;
                waiting = 1;
                return PyBytes_FromStringAndSize(head, length);
            }
        }
        waiting = 0;
        pid_t parent = getpid(), child = fork();
        if (child < 0)
            return PyErr_SetFromErrno(PyExc_OSError);
        if (!child) {
            const char *failed = enter(processors, size, parent);
            if (failed) {
                int length = snprintf(answer, sizeof answer, "failed %s: %m", failed);
                send(server, answer, length, 0);
                _exit(1);
            }
            close(server);
            return count > 3 ? run(fds[3], globals) : PyBool_FromLong(1);
        }
        while (count)
            close(fds[--count]);
        int status;
        struct rusage used;
        pid_t ended;
        do /* Also a sibling that it made, and it itself or a thread if that asked its parent to trace it: they are in the way. */
            ended = wait4(-1, &status, __WALL, &used);
        while (ended > 0 && (ended != child || WIFSTOPPED(status)));
        double seconds = used.ru_utime.tv_sec + used.ru_stime.tv_sec
            + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
        int length = snprintf(answer, sizeof answer, "%d %f %ld",
                              status, seconds, 1024 * used.ru_maxrss);
        send(server, answer, length, MSG_NOSIGNAL);
    }
}
