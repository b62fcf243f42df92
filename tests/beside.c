/* Stands beside a task in a test: listens on port 80 and says what it was given. What its image's variables say it does:
     SAYS      is printed at first
     LISTENS   no: it does not
     ANSWERS   the status of GET /; 200 if not set
     LOSES     the path of requests that it closes the connection upon
     ENDS      the path of the request after which it ends with status 3
   It answers
     GET /arguments, /environment, /hosts      a line for each
     GET /tun                                  whether it can make a network device of its own
     PUT /credentials                          and shows on GET /credentials what was put there last, and how often */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

extern char **environ;

static char request[65536], body[65536], credentials[65536] = "none";
static int puts_of_credentials;

static const char *variable(const char *name) {
  const char *value = getenv(name);
  return value ? value : "";
}

/* Reads a request to the end of its body; 0 if nobody says anything. */
static int read_request(int peer) {
  size_t length = 0;
  for (;;) {
    ssize_t more = read(peer, request + length, sizeof request - 1 - length);
    if (more <= 0) return 0;
    length += more;
    request[length] = 0;
    char *head_end = strstr(request, "\r\n\r\n");
    if (!head_end) continue;
    char *field = strcasestr(request, "\r\ncontent-length:");
    size_t wanted = field && field < head_end ? strtoul(field + 17, NULL, 10) : 0;
    char *begin = head_end + 4;
    if (length - (begin - request) < wanted) continue;
    memcpy(body, begin, wanted);
    body[wanted] = 0;
    return 1;
  }
}

static void answer(int peer, int status, const char *text) {
  dprintf(peer, "HTTP/1.1 %d x\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", status, strlen(text), text);
}

static void list(int peer, char **lines) {
  static char text[65536];
  text[0] = 0;
  for (; *lines; lines++) {
    strncat(text, *lines, sizeof text - strlen(text) - 2);
    strcat(text, "\n");
  }
  answer(peer, 200, text);
}

static void show_file(int peer, const char *path) {
  static char text[65536];
  int file = open(path, O_RDONLY);
  ssize_t length = file < 0 ? 0 : read(file, text, sizeof text - 1);
  text[length < 0 ? 0 : length] = 0;
  close(file);
  answer(peer, 200, text);
}

static void try_tun(int peer) {
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
  int tun = open("/dev/net/tun", O_RDWR);
  int made = tun >= 0 && ioctl(tun, TUNSETIFF, &request) == 0;
  if (tun >= 0) close(tun);
  answer(peer, 200, made ? "tun made\n" : "no tun\n");
}

static void serve(int peer, char **arguments) {
  static char text[65600];
  char method[16] = "", path[256] = "";
  sscanf(request, "%15s %255s", method, path);
  if (strcmp(path, variable("LOSES")) == 0) return;
  if (strcmp(path, "/arguments") == 0) list(peer, arguments + 1);
  else if (strcmp(path, "/environment") == 0) list(peer, environ);
  else if (strcmp(path, "/hosts") == 0) show_file(peer, "/etc/hosts");
  else if (strcmp(path, "/tun") == 0) try_tun(peer);
  else if (strcmp(method, "PUT") == 0 && strcmp(path, "/credentials") == 0) {
    strcpy(credentials, body);
    puts_of_credentials++;
    answer(peer, 200, "");
  } else if (strcmp(path, "/credentials") == 0) {
    snprintf(text, sizeof text, "%d %s\n", puts_of_credentials, credentials);
    answer(peer, 200, text);
  } else {
    const char *status = variable("ANSWERS");
    answer(peer, strcmp(path, "/") == 0 && *status ? atoi(status) : 200, "Server running\n");
  }
  if (strcmp(path, variable("ENDS")) == 0) exit(3);
}

int main(int argc, char **argv) {
  (void)argc;
  setvbuf(stdout, NULL, _IONBF, 0);
  if (*variable("SAYS")) puts(variable("SAYS"));
  for (char **argument = argv + 1; *argument; argument++) printf("given %s\n", *argument);
  if (strcmp(variable("LISTENS"), "no") == 0) for (;;) pause();
  int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(80)};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 16) != 0) return 1;
  for (;;) {
    int peer = accept(listener, NULL, NULL);
    if (peer >= 0 && read_request(peer)) serve(peer, argv);
    if (peer >= 0) close(peer);
  }
}
