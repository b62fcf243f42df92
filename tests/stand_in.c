/* Stands in the place of docker-worker-runtime. `orders` beside it says: STEP VICTIMS RUNTIME. It starts RUNTIME so that
   the monitor stops after STEP, kills there, and then ends itself as the monitor does:
     w  the worker, which is its parent      m  the monitor      f  first stops PID 1 of the container, if there is one
   `stopped` beside it then holds the container's id; if the monitor came to its end before STEP there is no such file. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char place[4096], step[16], victims[8], runtime[4096];

static FILE *beside(const char *name, const char *mode) {
  char path[4200];
  snprintf(path, sizeof path, "%s/%s", place, name);
  FILE *file = fopen(path, mode);
  if (!file) exit(120);
  return file;
}

/* Whether it waits for something, or has ended: between its making and its first wait it prepares itself, and nothing of a
   task can stop it there. */
static int waits(pid_t process) {
  char path[64], line[512];
  snprintf(path, sizeof path, "/proc/%d/stat", process);
  FILE *file = fopen(path, "r");
  if (!file) return 1;
  char *read = fgets(line, sizeof line, file);
  fclose(file);
  char *name_end = read ? strrchr(line, ')') : NULL;
  return !name_end || !strchr("RD", name_end[2]);
}

static void stop_children(pid_t monitor) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task/%d/children", monitor, monitor);
  FILE *file = fopen(path, "r");
  int child;
  while (file && fscanf(file, "%d", &child) == 1) {
    for (int looks = 0; looks < 10000 && !waits(child); looks++) usleep(1000);
    kill(child, SIGSTOP);
  }
  if (file) fclose(file);
}

static void start(int argc, char **argv) {
  char **arguments = calloc(argc + 3, sizeof *arguments);
  for (int from = 0, to = 0; from < argc; from++) {
    arguments[to++] = argv[from];
    if (strcmp(argv[from], "run") == 0) {
      arguments[to++] = "--stop-after";
      arguments[to++] = step;
    }
  }
  arguments[0] = runtime;
  execv(runtime, arguments);
  _exit(121);
}

int main(int argc, char **argv) {
  pid_t worker = getppid();
  snprintf(place, sizeof place, "%s", argv[0]);
  memmove(place, dirname(place), strlen(place));
  FILE *orders = beside("orders", "r");
  if (fscanf(orders, "%15s %7s %4095s", step, victims, runtime) != 3) exit(122);
  fclose(orders);

  pid_t monitor = fork();
  if (monitor == 0) start(argc, argv);
  /* Report socket and lifeline are the monitor's alone: their ends mean something. */
  close_range(3, ~0U, 0);
  int status;
  waitpid(monitor, &status, WUNTRACED);
  if (!WIFSTOPPED(status)) return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  FILE *stopped = beside("stopped", "w");
  fputs(argv[argc - 1], stopped);
  fclose(stopped);
  if (strchr(victims, 'f')) stop_children(monitor);
  if (strchr(victims, 'w')) kill(worker, SIGKILL);
  kill(monitor, strchr(victims, 'm') ? SIGKILL : SIGCONT);
  waitpid(monitor, &status, 0);
  if (strchr(victims, 'm')) kill(getpid(), SIGKILL);
  return 0;
}
