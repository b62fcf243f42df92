/* noise SEED BYTES: prints so many bytes that do not compress; the same SEED gives the same bytes everywhere. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int main(int count, char **words) {
    if (count != 3) {
        fprintf(stderr, "usage: noise SEED BYTES\n");
        return 2;
    }
    uint64_t state = strtoull(words[1], NULL, 10);
    for (long left = atol(words[2]); left > 0; left--) {
        /* splitmix64, one byte of each word. */
        uint64_t word = (state += 0x9e3779b97f4a7c15u);
        word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
        word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
        putchar((int)(word >> 56));
    }
    return ferror(stdout) != 0;
}
