/* The first process of a pid namespace that a test has for itself. It reaps whoever is left to it, ends with its standard
   input, and answers lines:
     take NUMBER   starts a stranger that waits, and to whom the kernel gives NUMBER; once it is there, says NUMBER
     look NUMBER   says NUMBER if that stranger lives, 0 if somebody has ended it */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 1 << 22 };
static volatile sig_atomic_t lives[MOST];

static void reap(int signal) {
  (void)signal;
  for (pid_t ended; (ended = waitpid(-1, NULL, WNOHANG)) > 0;) lives[ended % MOST] = 0;
}

/* Others may fork as well between the write and the fork, or a dead process may still have the number: so it looks. */
static int take(int number) {
  sigset_t children;
  sigemptyset(&children);
  sigaddset(&children, SIGCHLD);
  for (int tries = 0; tries < 100000; tries++) {
    FILE *last = fopen("/proc/sys/kernel/ns_last_pid", "w");
    if (!last || fprintf(last, "%d", number - 1) < 0 || fclose(last) != 0) return -1;
    /* The former holder of the number must not be reaped after this. */
    sigprocmask(SIG_BLOCK, &children, NULL);
    lives[number % MOST] = 1;
    pid_t child = fork();
    if (child == 0 && getpid() != number) _exit(1);
    if (child == 0) for (;;) pause();
    sigprocmask(SIG_UNBLOCK, &children, NULL);
    if (child == number) return number;
  }
  return -2;
}

int main(void) {
  struct sigaction action = {.sa_handler = reap, .sa_flags = SA_RESTART};
  sigaction(SIGCHLD, &action, NULL);
  printf("0\n");
  fflush(stdout);
  char word[8];
  int number;
  while (scanf("%7s %d", word, &number) == 2) {
    int answer = strcmp(word, "take") == 0 ? take(number) : lives[number % MOST] ? number : 0;
    printf("%d\n", answer);
    fflush(stdout);
  }
  return 0;
}
