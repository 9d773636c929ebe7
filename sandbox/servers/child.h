/* What the fork servers in C share: receiving a request, and a child that becomes the program's process.

   A request is a line with the user id (-1: keep the user) and the *head*: a line of resource limits, three numbers each; a line
   with the directory; further text. With it come file descriptors, the program's stdin, stdout and stderr first. The answer is
   `STATUS CPU_SECONDS MEMORY_BYTES` when the child has ended, or `failed WHY` if the child cannot be started. */
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
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* Fork a child for the request, which has to have four descriptors if `four`. Returns 1 in the child; 0 in the parent, when the child
   has ended and that is answered; -1 if there is no child. */
static int fork_child(int server, const char *processors, size_t size, int four)
{
    char answer[128];
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        return -1;
    if (!child) {
        const char *failed = !four || count == 4 ? enter(processors, size, parent) : "request";
        if (failed) {
            int length = snprintf(answer, sizeof answer, "failed %s: %m", failed);
            send(server, answer, length, 0);
            _exit(1);
        }
        close(server);
        return 1;
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
    return 0;
}
