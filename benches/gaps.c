/* gaps PROCESSOR SECONDS: keeps a processor busy and looks at the clock all the time, as a benchmark does that wants nothing
 * but to compute. What is missing between two looks was somebody else's. Prints `gaps COUNT MICROSECONDS LARGEST`: how many
 * were over 20 microseconds, how much they are in all, and the largest one. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000 + time.tv_nsec;
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
    return printf("gaps %ld %ld %ld\n", gaps, lost, largest) < 0;
}
