/* See `sandbox/zygote.py`. Makes a command a *zygote*: a process that has done what is the same for all programs, and then forks one child per program.
   `sandbox.prepared` compiles this library, and the zygote is started with it in LD_PRELOAD.

   The environment says what to do. SANDBOX_SOCKET: the descriptor over which requests come (`child.h`).

   Without SANDBOX_MAIN the process is forked before `main`, when its libraries are loaded, and before there is a second thread. The text of a request is NUL-separated: the number of arguments, the arguments, the environment.

   With SANDBOX_MAIN it is cc1plus, the compiler proper of g++, forked when it has read a precompiled header. SANDBOX_MAIN is the
   source file and SANDBOX_OUT the output file on its command line. In their place the zygote opens a file of spaces and a file in
   memory. The text of a request is the path of the child's output, and a further descriptor is its source, which replaces the
   spaces in memory. */
#include "child.h"
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define SOURCE_BYTES (1 << 16) /* as in `sandbox/zygote.py` */

extern char **environ;
static const char *source_name, *output_name;
static int server, source_fd = -1;
static char *text;     /* where the compiler has its source */
static FILE *assembly; /* what it writes */

/* Serve requests. Returns in each child. */
static void serve(void)
{
    send(server, "ready", 5, MSG_NOSIGNAL);
    for (;;) {
        char *rest;
        ssize_t length = receive(server, &rest);
        if (length <= 0)
            _exit(0);
        memcpy(head, rest, length + 1);
        memset(head + length, 0, 2);
        int is_child = fork_child(server, NULL, 0, source_name != NULL);
        if (is_child < 0)
            _exit(1);
        if (is_child)
            return;
    }
}

/* The part of the request after the line with the directory. */
static char *job(void)
{
    return strchr(strchr(head, '\n') + 1, '\n') + 1;
}

static int (*program_main)(int, char **, char **);

static int serve_before_main(int argc, char **argv, char **envp)
{
    (void)argc;
    (void)argv;
    (void)envp;
    serve();
    static char *parts[4096];
    int found = 0;
    char *part = job();
    int arguments = atoi(part);
    for (part += strlen(part) + 1; *part && found < 4094; part += strlen(part) + 1) {
        if (found == arguments)
            parts[found++] = NULL;
        parts[found++] = part;
    }
    environ = parts + arguments + 1;
    return program_main(arguments, parts, environ);
}

int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end)
{
    int (*start)() = dlsym(RTLD_NEXT, "__libc_start_main");
    const char *socket = getenv("SANDBOX_SOCKET");
    if (!socket)
        return start(main, argc, argv, init, fini, rtld_fini, stack_end);
    server = atoi(socket);
    fcntl(server, F_SETFD, FD_CLOEXEC);
    source_name = getenv("SANDBOX_MAIN");
    output_name = getenv("SANDBOX_OUT");
    unsetenv("LD_PRELOAD");
    program_main = main;
    return start(source_name ? main : serve_before_main, argc, argv, init, fini, rtld_fini, stack_end);
}

/* A file without a name. The filter on system calls may refuse one in memory. */
static int nameless(void)
{
    int fd = memfd_create("zygote", MFD_CLOEXEC);
    return fd < 0 ? openat(AT_FDCWD, "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600) : fd;
}

int open(const char *path, int flags, ...)
{
    if (source_name && source_fd < 0 && !strcmp(path, source_name)) {
        static char spaces[SOURCE_BYTES];
        memset(spaces, ' ', sizeof spaces);
        spaces[sizeof spaces - 1] = '\n';
        source_fd = nameless();
        if (write(source_fd, spaces, sizeof spaces) != sizeof spaces || lseek(source_fd, 0, SEEK_SET))
            _exit(1);
        return source_fd;
    }
    va_list more;
    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    return openat(AT_FDCWD, path, flags, mode);
}

ssize_t read(int fd, void *buffer, size_t size)
{
    ssize_t got = syscall(SYS_read, fd, buffer, size);
    if (fd == source_fd && !text && got == SOURCE_BYTES)
        text = buffer;
    return got;
}

FILE *fopen(const char *path, const char *mode)
{
    if (output_name && !assembly && !strcmp(path, output_name))
        return assembly = fdopen(nameless(), mode);
    FILE *(*real)(const char *, const char *) = dlsym(RTLD_NEXT, "fopen");
    return real(path, mode);
}

/* Whether `fd` is a precompiled header. */
static int is_precompiled(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    return length > 4 && !memcmp(path + length - 4, ".gch", 4);
}

/* In a child of cc1plus: take the program's source and output. */
static void take(void)
{
    int out = open(job(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
    if (out < 0 || dup2(out, fileno(assembly)) < 0 || close(out))
        _exit(125);
    struct stat source;
    if (fstat(fds[3], &source) || source.st_size > SOURCE_BYTES - 2 || pread(fds[3], text, source.st_size, 0) != source.st_size)
        _exit(125);
    text[source.st_size] = '\n';
    close(fds[3]);
}

int fclose(FILE *file)
{
    static int done;
    int now = source_name && !done && is_precompiled(fileno(file));
    int (*real)(FILE *) = dlsym(RTLD_NEXT, "fclose");
    int result = real(file);
    if (now) {
        done = 1;
        /* Nothing may be written or read yet. */
        if (!text || !assembly || text[0] != ' ' || memcmp(text, text + 1, SOURCE_BYTES - 2) || lseek(fileno(assembly), 0, SEEK_CUR))
            _exit(1);
        /* The headers' own templates, which g++ would instantiate at the end of each program. */
        void (*instantiate)(int) = dlsym(RTLD_DEFAULT, "_Z29instantiate_pending_templatesi");
        if (instantiate)
            instantiate(0);
        serve();
        take();
    }
    return result;
}
