/* gaps PROCESSOR SECONDS: keeps a processor busy and looks at the clock all the time, as a benchmark does that wants nothing
 * but to compute. What is missing between two looks was somebody else's. Prints `gaps COUNT MICROSECONDS LARGEST SWITCHES
 * STOLEN`: how many were over 20 microseconds, how much they are in all, and the largest one; how often something else got
 * the processor (getrusage(2), ru_nivcsw), and for how many microseconds the host of this virtual machine kept it for
 * others (proc_stat(5), steal). */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000 + time.tv_nsec;
}

static long switches(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_nivcsw;
}

/* In microseconds; 0 where nobody counts it. */
static long stolen(const char *processor) {
    char line[512], name[32];
    long ticks = 0;
    snprintf(name, sizeof name, "cpu%s ", processor);
    FILE *file = fopen("/proc/stat", "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, name, strlen(name)) == 0)
            sscanf(line + strlen(name), "%*d %*d %*d %*d %*d %*d %*d %ld", &ticks);
    if (file) fclose(file);
    return ticks * (1000000 / sysconf(_SC_CLK_TCK));
}

int main(int count, char **words) {
    if (count != 3) {
        fprintf(stderr, "usage: gaps PROCESSOR SECONDS\n");
        return 2;
    }
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(atoi(words[1]), &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) {
        perror("gaps: sched_setaffinity");
        return 1;
    }
    long gaps = 0, lost = 0, largest = 0;
    long had_stolen = stolen(words[1]), had_switches = switches();
    long before = now(), end = before + atol(words[2]) * 1000000000;
    while (before < end) {
        long after = now(), gap = (after - before) / 1000;
        if (gap > 20) {
            gaps++;
            lost += gap;
            largest = gap > largest ? gap : largest;
        }
        before = after;
    }
    long switched = switches() - had_switches;
    return printf("gaps %ld %ld %ld %ld %ld\n", gaps, lost, largest, switched, stolen(words[1]) - had_stolen) < 0;
}
