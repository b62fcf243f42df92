/* print BYTES WRITE_BYTES: prints BYTES bytes of lines, 100 bytes each with the newline, in writes of WRITE_BYTES: 100 is
 * a program that flushes each line. The lines differ, so that a compressor has work to do. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 100, BLOCK = 640 * LINE };

int main(int count, char **words) {
    if (count != 3) {
        fprintf(stderr, "usage: print BYTES WRITE_BYTES\n");
        return 2;
    }
    size_t step = strtoul(words[2], NULL, 10);
    static char block[BLOCK + LINE];
    if (step == 0 || step > BLOCK) {
        fprintf(stderr, "print: WRITE_BYTES must be 1 to %d\n", BLOCK);
        return 2;
    }
    uint64_t state = 7;
    for (int line = 0; line < BLOCK / LINE; line++) {
        char *place = block + line * LINE;
        int written = snprintf(place, LINE, "[%06d] compiling src/module/part%03d.c with flags -O2 -g -Wall:", line, line % 211);
        while (written < LINE - 1) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            place[written++] = "0123456789abcdef     "[(state >> 33) % 21];
        }
        place[LINE - 1] = '\n';
    }
    for (long left = atol(words[1]), at = 0; left > 0;) {
        size_t room = (size_t)(BLOCK - at) < step ? (size_t)(BLOCK - at) : step;
        ssize_t written = write(1, block + at, (size_t)left < room ? (size_t)left : room);
        if (written <= 0) {
            perror("print");
            return 1;
        }
        left -= written;
        at = (at + written) % BLOCK;
    }
    return 0;
}
