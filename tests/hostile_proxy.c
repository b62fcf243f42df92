/* In place of the process that serves tasks: says nothing, or that it is ready and from then on what nobody has asked for. */
#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

/* The socket to the worker. */
#define WORKER 3

static void say(const char *report)
{
    uint32_t length = htonl(strlen(report));
    if (write(WORKER, &length, sizeof length) < 0 || write(WORKER, report, strlen(report)) < 0)
        _exit(1);
}

int main(void)
{
    char piece[4096];
    memset(piece, 'x', sizeof piece);
    if (MANNER == 0)
        for (;;)
            pause();
    say("{\"report\":\"ready\"}");
    if (MANNER == 1) { /* answers, again and again */
        for (;;)
            say("{\"report\":\"alive\"}");
    } else if (MANNER == 2) { /* serves another task than it was asked to */
        if (read(WORKER, piece, sizeof piece) > 0)
            say("{\"report\":\"begun\",\"task\":4711}");
    } else { /* talks without an end, to the worker and to its log */
        for (int count = 0; count < 1000; count++)
            if (write(2, piece, 64) < 0)
                break;
        while (write(WORKER, piece, sizeof piece) > 0)
            ;
    }
    for (;;)
        pause();
}
