/* stamp: prints the time, in milliseconds since 1970. */
#include <stdio.h>
#include <time.h>

int main(void) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return printf("stamp %lld\n", (long long)time.tv_sec * 1000 + time.tv_nsec / 1000000) < 0;
}
