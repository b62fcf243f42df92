/* terminal COMMAND [ARGUMENT]...: runs a command on a terminal of its own, in the state that a new one has (newlines become
 * CR LF), and reads what it prints until it is done. Nothing is kept: it is the least that a reader of a terminal can cost. */
#define _GNU_SOURCE
#include <pty.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **words) {
    if (count < 2) {
        fprintf(stderr, "usage: terminal COMMAND [ARGUMENT]...\n");
        return 2;
    }
    int master;
    pid_t child = forkpty(&master, NULL, NULL, NULL);
    if (child < 0) {
        perror("forkpty");
        return 1;
    }
    if (child == 0) {
        execvp(words[1], words + 1);
        perror(words[1]);
        _exit(127);
    }
    static char buffer[64 * 1024];
    long bytes = 0;
    /* EIO: nobody has the other end open any more. */
    for (ssize_t got; (got = read(master, buffer, sizeof buffer)) > 0;)
        bytes += got;
    int status;
    waitpid(child, &status, 0);
    printf("%ld\n", bytes);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
