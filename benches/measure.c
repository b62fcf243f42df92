/* measure COUNT PAUSE_MS COMMAND [ARGUMENT]...: runs the command COUNT times with a pause before each, and prints one line
 * for each run: wall clock and processor time in microseconds, and the largest resident set in KiB (the last two of the
 * command and of what it waited for). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static long microseconds(struct timeval time) { return time.tv_sec * 1000000 + time.tv_usec; }

int main(int count, char **words) {
    if (count < 4) {
        fprintf(stderr, "usage: measure COUNT PAUSE_MS COMMAND [ARGUMENT]...\n");
        return 2;
    }
    long runs = atol(words[1]), pause = atol(words[2]);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    for (long run = 0; run < runs; run++) {
        usleep((useconds_t)pause * 1000);
        pid_t child;
        int status;
        struct rusage usage;
        long started = now();
        if (posix_spawnp(&child, words[3], &actions, NULL, words + 3, environ) != 0 || wait4(child, &status, 0, &usage) < 0) {
            perror(words[3]);
            return 1;
        }
        long wall = now() - started;
        if (status != 0) {
            fprintf(stderr, "measure: %s: run %ld ended with status %#x\n", words[3], run, (unsigned)status);
            return 1;
        }
        printf("%ld %ld %ld\n", wall, microseconds(usage.ru_utime) + microseconds(usage.ru_stime), usage.ru_maxrss);
    }
    return 0;
}
