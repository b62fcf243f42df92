/* A container's payload that looks at its confinement from inside.
 *
 * Each subcommand probes one property and prints one line: `ok`, the name of an errno, or what it
 * found. Tests compile it with `cc -static -O1`, so that it needs nothing in its root.
 *
 * Calls are made so that one that is let through does no harm: null pointers, descriptor -1.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int say(int failed) {
    puts(failed ? strerrorname_np(errno) : "ok");
    return 0;
}

static int usage(const char *what) {
    fprintf(stderr, "probe: %s\n", what);
    return 2;
}

/* call NUMBER [ARGUMENT...]: the errno of a raw system call. */
static int probe_call(int count, char **words) {
    unsigned long a[6] = {0};
    for (int i = 1; i < count && i <= 6; i++)
        a[i - 1] = strtoul(words[i], NULL, 0);
    long number = strtol(words[0], NULL, 0);
    pid_t parent = getpid();
    long result = syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (result == 0 && getpid() != parent)
        _exit(0); /* A child that clone or fork was allowed to make. */
    return say(result == -1);
}

/* int80 NUMBER [ARGUMENT]: the same through the 32-bit entry. */
static int probe_int80(int count, char **words) {
#ifdef __x86_64__
    long number = strtol(words[0], NULL, 0), argument = count > 1 ? strtol(words[1], NULL, 0) : 0, result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(argument), "c"(0), "d"(0) : "memory", "r8", "r9", "r10", "r11");
    errno = (int)-(int)result;
    return say((int)result < 0);
#else
    return usage("int80 is for x86_64");
#endif
}

/* socket FAMILY [TYPE] */
static int probe_socket(int count, char **words) {
    return say(socket(atoi(words[0]), count > 1 ? atoi(words[1]) : SOCK_DGRAM, 0) < 0);
}

/* socketcall FAMILY TYPE: the same as a 32-bit C library asks for it, where the family is behind a pointer. */
static int probe_socketcall(int count, char **words) {
#ifdef __x86_64__
    unsigned *arguments = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    long result;
    (void)count;
    if (arguments == MAP_FAILED)
        return usage("no memory below 4 GiB");
    arguments[0] = (unsigned)atoi(words[0]);
    arguments[1] = (unsigned)atoi(words[1]);
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(102), "b"(1), "c"(arguments) : "memory", "r8", "r9", "r10", "r11");
    errno = (int)-(int)result;
    return say((int)result < 0);
#else
    return usage("socketcall is for x86_64");
#endif
}

/* The address of an abstract UNIX socket; its length, or 0 if the name is too long. */
static socklen_t abstract_address(struct sockaddr_un *address, const char *name) {
    size_t length = strlen(name);
    if (length + 1 > sizeof address->sun_path)
        return 0;
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(address->sun_path + 1, name, length);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
}

/* abstract NAME: connects to an abstract UNIX socket. */
static int probe_abstract(int count, char **words) {
    struct sockaddr_un address;
    socklen_t length = abstract_address(&address, words[0]);
    (void)count;
    if (!length)
        return usage("the name is too long");
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return say(fd < 0 || connect(fd, (void *)&address, length));
}

/* pair TYPE NAME: sends to an abstract UNIX socket by one end of a pair. */
static int probe_pair(int count, char **words) {
    struct sockaddr_un address;
    socklen_t length = abstract_address(&address, words[1]);
    int ends[2];
    (void)count;
    if (!length)
        return usage("the name is too long");
    return say(socketpair(AF_UNIX, atoi(words[0]), 0, ends) || sendto(ends[0], "x", 1, 0, (void *)&address, length) < 0);
}

/* shm KEY: looks for a System V shared memory segment. */
static int probe_shm(int count, char **words) {
    (void)count;
    return say(shmget((key_t)strtol(words[0], NULL, 0), 0, 0) < 0);
}

/* tiocsti: types one character on standard input's terminal. */
static int probe_tiocsti(int count, char **words) {
    (void)count, (void)words;
    return say(ioctl(0, TIOCSTI, "x"));
}

/* status: capability sets and the like, as the kernel prints them. */
static int probe_status(int count, char **words) {
    (void)count, (void)words;
    FILE *file = fopen("/proc/self/status", "re");
    if (!file)
        return say(1);
    char line[256], key[64], value[64];
    const char *separator = "";
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%63[^:]: %63s", key, value) == 2 &&
            (!strncmp(key, "Cap", 3) || !strcmp(key, "NoNewPrivs") || !strcmp(key, "Seccomp"))) {
            printf("%s%s=%s", separator, key, value);
            separator = " ";
        }
    }
    puts("");
    return 0;
}

/* fds: the open descriptors, but for the one that looks. */
static int probe_fds(int count, char **words) {
    (void)count, (void)words;
    const char *separator = "";
    for (int fd = 0; fd < 65536; fd++) {
        if (fcntl(fd, F_GETFD) != -1) {
            printf("%s%d", separator, fd);
            separator = " ";
        }
    }
    puts("");
    return 0;
}

/* namespaces: the identity of each. */
static int probe_namespaces(int count, char **words) {
    (void)count, (void)words;
    static const char *const kinds[] = {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char path[64], target[64];
        snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
        ssize_t length = readlink(path, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
        printf("%s%s", i ? " " : "", target);
    }
    puts("");
    return 0;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* list DIRECTORY: its entries, sorted; a device with its kind and number. */
static int probe_list(int count, char **words) {
    (void)count;
    DIR *directory = opendir(words[0]);
    if (!directory)
        return say(1);
    char *found[1024];
    size_t n = 0;
    for (struct dirent *entry; (entry = readdir(directory)) && n < 1024;) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        struct stat info = {0};
        fstatat(dirfd(directory), entry->d_name, &info, AT_SYMLINK_NOFOLLOW);
        int bad;
        if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode))
            bad = asprintf(&found[n], "%s=%c%u:%u", entry->d_name, S_ISCHR(info.st_mode) ? 'c' : 'b', major(info.st_rdev), minor(info.st_rdev));
        else
            bad = asprintf(&found[n], "%s", entry->d_name);
        n += bad >= 0;
    }
    qsort(found, n, sizeof *found, by_name);
    for (size_t i = 0; i < n; i++)
        printf("%s%s", i ? " " : "", found[i]);
    puts("");
    return 0;
}

/* open PATH [r|w|rw] */
static int probe_open(int count, char **words) {
    const char *how = count > 1 ? words[1] : "r";
    int flags = !strcmp(how, "rw") ? O_RDWR : !strcmp(how, "w") ? O_WRONLY : O_RDONLY;
    return say(open(words[0], flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) < 0);
}

/* read PATH: how many bytes, at most 1 MiB. */
static int probe_read(int count, char **words) {
    (void)count;
    static char buffer[1 << 16];
    int fd = open(words[0], O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return say(1);
    size_t total = 0;
    for (ssize_t n; total < 1 << 20 && (n = read(fd, buffer, sizeof buffer)); total += (size_t)n)
        if (n < 0)
            return say(1);
    printf("%zu\n", total);
    return 0;
}

/* line PATH: its first line. */
static int probe_line(int count, char **words) {
    (void)count;
    char text[4096];
    int fd = open(words[0], O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (length < 0)
        return say(1);
    text[length] = 0;
    printf("%.*s\n", (int)strcspn(text, "\n"), text);
    return 0;
}

/* write PATH TEXT: into a file that is there. */
static int probe_write(int count, char **words) {
    if (count < 2)
        return usage("write PATH TEXT");
    int fd = open(words[0], O_WRONLY | O_CLOEXEC);
    return say(fd < 0 || write(fd, words[1], strlen(words[1])) < 0);
}

/* mkdir PATH */
static int probe_mkdir(int count, char **words) {
    (void)count;
    return say(mkdir(words[0], 0700));
}

/* mknod PATH c|b MAJOR MINOR: makes a node and opens it; which of the two failed, and how. */
static int probe_mknod(int count, char **words) {
    if (count < 4)
        return usage("mknod PATH c|b MAJOR MINOR");
    mode_t kind = *words[1] == 'c' ? S_IFCHR : S_IFBLK;
    if (mknod(words[0], kind | 0600, makedev(atoi(words[2]), atoi(words[3])))) {
        printf("mknod %s\n", strerrorname_np(errno));
        return 0;
    }
    int fd = open(words[0], O_RDWR | O_CLOEXEC | O_NONBLOCK);
    printf("open %s\n", fd < 0 ? strerrorname_np(errno) : "ok");
    unlink(words[0]);
    return 0;
}

/* mount TYPE [OPTIONS]: on the root directory. */
static int probe_mount(int count, char **words) {
    return say(mount("none", "/", words[0], 0, count > 1 ? words[1] : NULL));
}

/* forks MOST: how many children can be alive at once. */
static int probe_forks(int count, char **words) {
    (void)count;
    int most = atoi(words[0]), alive = 0, hold[2];
    if (pipe(hold))
        return say(1);
    while (alive < most) {
        pid_t child = fork();
        if (child < 0)
            break;
        if (child == 0) {
            char byte;
            close(hold[1]);
            _exit(read(hold[0], &byte, 1) != 0); /* Until the parent lets go. */
        }
        alive++;
    }
    int error = alive < most ? errno : 0;
    close(hold[1]);
    while (wait(NULL) > 0)
        ;
    printf("%d %s\n", alive, error ? strerrorname_np(error) : "ok");
    return 0;
}

/* bomb: forks without end, and so does every child. */
static int probe_bomb(int count, char **words) {
    (void)count, (void)words;
    puts("waiting");
    fflush(stdout);
    while (fork() >= -1)
        ;
    return 0;
}

/* wait: says so, and waits until standard input ends. */
static int probe_wait(int count, char **words) {
    (void)count, (void)words;
    char byte;
    puts("waiting");
    fflush(stdout);
    return say(read(0, &byte, 1) != 0);
}

/* linger: leaves processes behind that are hard to end: of other sessions, deaf to signals, stopped. */
static int probe_linger(int count, char **words) {
    (void)count, (void)words;
    int ready[2];
    if (pipe(ready))
        return say(1);
    for (int i = 0; i < 8; i++) {
        if (fork() == 0) {
            setsid();
            if (fork() == 0) {
                signal(SIGTERM, SIG_IGN);
                signal(SIGHUP, SIG_IGN);
                close(0), close(1), close(2);
                if (write(ready[1], "x", 1) == 1 && i % 2)
                    raise(SIGSTOP);
                for (;;)
                    pause();
            }
            _exit(0);
        }
    }
    char byte;
    for (int i = 0; i < 8; i++)
        if (read(ready[0], &byte, 1) != 1)
            return say(1);
    return say(0);
}

/* touch MIB: uses that much memory. */
static int probe_touch(int count, char **words) {
    (void)count;
    size_t bytes = strtoul(words[0], NULL, 0) << 20;
    char *memory = malloc(bytes);
    if (!memory)
        return say(1);
    for (size_t i = 0; i < bytes; i += 4096)
        ((volatile char *)memory)[i] = 1;
    return say(0);
}

/* Whether `text` of this length holds the word. */
static int holds(const char *text, ssize_t length, const char *word) {
    return length > 0 && memmem(text, (size_t)length, word, strlen(word)) != NULL;
}

/* Whether it is what a process on its way needs: its socket, pty, streams, word, and the files of its own control groups. */
static int is_expected(const char *link, ssize_t length) {
    const char *const parts[] = {"socket:", "pipe:", "/dev/", "/memfd:word", "/tasks", "/cgroup.procs"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (holds(link, length, parts[i]))
            return 1;
    return 0;
}

/* Whether an open file can be written by nobody: on a read-only mount, or sealed. That it is executed keeps writers away only
 * as long as it is. */
static int is_sealed(int fd) {
    struct statvfs mount;
    int seals = fcntl(fd, F_GET_SEALS);
    return (!fstatvfs(fd, &mount) && mount.f_flag & ST_RDONLY) || (seals != -1 && seals & F_SEAL_WRITE);
}

/* hunt WORD SECONDS: watches for processes that others send in here, and tries what it can on each that is no program of this
 * root yet: writes to its executable, reads its words and descriptors. The last line says how often it found one, and what
 * it got of it; WORD is something of the host's. */
static int probe_hunt(int count, char **words) {
    static char text[1 << 16];
    const char *word = words[0];
    int caught = 0, writable = 0, leaked = 0, foreign = 0;
    time_t end = time(NULL) + atoi(words[1]);
    struct stat own, other, found;
    (void)count;
    if (stat("/proc/self/exe", &own) || stat("/bin/busybox", &other))
        return say(1);
    puts("hunting");
    fflush(stdout);
    while (time(NULL) < end) {
        for (int pid = 2; pid < 400; pid++) {
            char path[64];
            if (pid == getpid())
                continue;
            snprintf(path, sizeof path, "/proc/%d/exe", pid);
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            if (fd < 0)
                continue;
            /* By the descriptor: by its path it might be another program by now. */
            if (fstat(fd, &found) || found.st_ino == own.st_ino || found.st_ino == other.st_ino) {
                close(fd);
                continue; /* A program of this root. */
            }
            caught++;
            writable += !is_sealed(fd);
            close(fd);
            const char *const files[] = {"cmdline", "environ"};
            for (int i = 0; i < 2; i++) {
                snprintf(path, sizeof path, "/proc/%d/%s", pid, files[i]);
                fd = open(path, O_RDONLY | O_CLOEXEC);
                leaked += fd >= 0 && holds(text, read(fd, text, sizeof text), word);
                close(fd);
            }
            for (int number = 3; number < 128; number++) {
                snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, number);
                ssize_t length = readlink(path, text, sizeof text);
                foreign += length > 0 && !is_expected(text, length);
            }
        }
    }
    printf("caught=%d writable=%d leaked=%d foreign=%d\n", caught, writable, leaked, foreign);
    return 0;
}

/* possess NUMBER ARGUMENT: makes the first process make this call, in place of the one that it waits in. `possess stop 0`: keeps
 * it stopped instead. */
static int probe_possess(int count, char **words) {
    struct user_regs_struct registers;
    (void)count;
    if (ptrace(PTRACE_SEIZE, 1, 0, 0) || ptrace(PTRACE_INTERRUPT, 1, 0, 0) || waitpid(1, NULL, __WALL) != 1 ||
        ptrace(PTRACE_GETREGS, 1, 0, &registers))
        return say(1);
    if (!strcmp(words[0], "stop")) {
        puts("stopped");
        fflush(stdout);
        return pause();
    }
#ifdef __x86_64__
    registers.rip -= 2; /* `syscall` is two bytes. */
    registers.orig_rax = -1;
    registers.rax = strtoul(words[0], NULL, 0);
    registers.rdi = strtoul(words[1], NULL, 0);
#endif
    return say(ptrace(PTRACE_SETREGS, 1, 0, &registers) || ptrace(PTRACE_DETACH, 1, 0, 0));
}

/* sealed FILE: whether nobody who has this file open can ever write it. */
static int probe_sealed(int count, char **words) {
    int fd = open(words[0], O_RDONLY | O_CLOEXEC);
    (void)count;
    if (fd < 0)
        return say(1);
    puts(is_sealed(fd) ? "ok" : "writable");
    return 0;
}

/* receive LAST: prints the number of each real-time signal that comes, the last one's as well. */
static int probe_receive(int count, char **words) {
    int last = atoi(words[0]), signal = 0;
    sigset_t all;
    (void)count;
    sigemptyset(&all);
    for (int number = SIGRTMIN; number <= SIGRTMAX; number++)
        sigaddset(&all, number);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (puts("ready"), fflush(stdout); signal != last; fflush(stdout))
        printf("%d\n", signal = sigwaitinfo(&all, NULL));
    return 0;
}

/* forge SIGNAL CODE: sends the first process a signal that says to come from nobody, with this code. */
static int probe_forge(int count, char **words) {
    siginfo_t information = {.si_signo = atoi(words[0]), .si_code = atoi(words[1])};
    (void)count;
    return say(syscall(SYS_rt_sigqueueinfo, 1, information.si_signo, &information) == -1);
}

/* lower: takes the first process's room for waiting signals. */
static int probe_lower(int count, char **words) {
    const struct rlimit none = {0, 0};
    (void)count, (void)words;
    return say(prlimit(1, RLIMIT_SIGPENDING, &none, NULL));
}

/* nameless SIGNAL: sends a few hundred signals to itself, then this one to the first process: of one that finds no room the
 * kernel forgets who sent it. */
static int probe_nameless(int count, char **words) {
    siginfo_t information = {.si_signo = SIGRTMIN, .si_code = SI_QUEUE};
    sigset_t all;
    (void)count;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (int i = 0; i < 300; i++)
        if (syscall(SYS_rt_sigqueueinfo, getpid(), SIGRTMIN, &information))
            return say(1);
    information.si_signo = atoi(words[0]);
    return say(syscall(SYS_rt_sigqueueinfo, 1, information.si_signo, &information) == -1);
}

/* halt: stops everybody else again and again. */
static int probe_halt(int count, char **words) {
    (void)count, (void)words;
    for (;;)
        kill(-1, SIGSTOP);
}

/* trace PID: traces a process and takes no notice of anything that it comes to. */
static int probe_trace(int count, char **words) {
    (void)count;
    say(ptrace(PTRACE_SEIZE, atoi(words[0]), 0, 0) != 0);
    fflush(stdout);
    return pause();
}

static const struct {
    const char *name;
    int needs;
    int (*run)(int count, char **words);
} probes[] = {
    {"abstract", 1, probe_abstract},  {"bomb", 0, probe_bomb},          {"call", 1, probe_call},
    {"fds", 0, probe_fds},            {"forge", 2, probe_forge},        {"forks", 1, probe_forks},        {"int80", 1, probe_int80},
    {"halt", 0, probe_halt},          {"hunt", 2, probe_hunt},          {"line", 1, probe_line},          {"linger", 0, probe_linger},      {"list", 1, probe_list},          {"lower", 0, probe_lower},
    {"mkdir", 1, probe_mkdir},        {"mknod", 4, probe_mknod},        {"mount", 1, probe_mount},
    {"nameless", 1, probe_nameless},    {"namespaces", 0, probe_namespaces},{"open", 1, probe_open},          {"pair", 2, probe_pair},
    {"possess", 2, probe_possess},
    {"read", 1, probe_read},          {"receive", 1, probe_receive},    {"sealed", 1, probe_sealed},
    {"shm", 1, probe_shm},            {"socket", 1, probe_socket},
    {"socketcall", 2, probe_socketcall},
    {"status", 0, probe_status},      {"tiocsti", 0, probe_tiocsti},    {"touch", 1, probe_touch},
    {"trace", 1, probe_trace},        {"wait", 0, probe_wait},          {"write", 2, probe_write},
};

int main(int count, char **words) {
    for (size_t i = 0; count > 1 && i < sizeof probes / sizeof *probes; i++)
        if (!strcmp(words[1], probes[i].name))
            return count - 2 < probes[i].needs ? usage("too few arguments") : probes[i].run(count - 2, words + 2);
    return usage("no such probe");
}
