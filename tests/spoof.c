/* spoof OWN_IP: sends frames over eth0 that a task must not get through: one of each kind below, from a raw socket.
   Prints how many it sent. Own MAC and own frames are right in all but the point that a kind is about. */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int fd;
static struct sockaddr_ll to;
static unsigned char own[6], gateway[6];
static int sent;

static void put(const unsigned char *frame, size_t size) {
  if (sendto(fd, frame, size, 0, (struct sockaddr *)&to, sizeof to) == (ssize_t)size) sent++;
  else perror("sendto");
}

/* An ICMP echo request in IPv4, to `target`. */
static size_t ping(unsigned char *frame, const unsigned char *mac, unsigned source, unsigned target, int vlan) {
  unsigned char *at = frame;
  memcpy(at, gateway, 6); memcpy(at + 6, mac, 6); at += 12;
  if (vlan) { memcpy(at, "\x81\x00\x00\x07", 4); at += 4; }
  memcpy(at, "\x08\x00", 2); at += 2;
  unsigned char ip[28] = {0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0};
  memcpy(ip + 12, &source, 4); memcpy(ip + 16, &target, 4);
  unsigned sum = 0;
  for (int i = 0; i < 20; i += 2) sum += ip[i] << 8 | ip[i + 1];
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  ip[10] = ~sum >> 8; ip[11] = ~sum;
  ip[20] = 8; ip[22] = 0xf7; ip[23] = 0xff;
  memcpy(at, ip, sizeof ip);
  return at + sizeof ip - frame;
}

static size_t arp(unsigned char *frame, const unsigned char *sender_mac, unsigned sender, unsigned target) {
  memset(frame, 0xff, 6); memcpy(frame + 6, own, 6);
  memcpy(frame + 12, "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x02", 10);
  memcpy(frame + 22, sender_mac, 6); memcpy(frame + 28, &sender, 4);
  memset(frame + 32, 0xff, 6); memcpy(frame + 38, &target, 4);
  return 42;
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  unsigned self = inet_addr(argv[1]), outside = inet_addr("198.51.100.7"), gate = inet_addr("169.254.1.1");
  static const unsigned char foreign[6] = {2, 0x66, 6, 6, 6, 6};
  struct ifreq request = {0};
  unsigned char frame[128] = {0};
  fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
  strcpy(request.ifr_name, "eth0");
  if (fd < 0 || ioctl(fd, SIOCGIFHWADDR, &request)) { perror("eth0"); return 1; }
  memcpy(own, request.ifr_hwaddr.sa_data, 6);
  memset(gateway, 0xff, 6);
  to.sll_family = AF_PACKET; to.sll_ifindex = if_nametoindex("eth0"); to.sll_halen = 6; memcpy(to.sll_addr, gateway, 6);
  put(frame, ping(frame, foreign, self, outside, 0));                    /* a foreign MAC */
  put(frame, ping(frame, own, inet_addr("10.231.255.1"), outside, 0));   /* a foreign address */
  put(frame, ping(frame, own, gate, outside, 0));                        /* the gateway's address */
  put(frame, ping(frame, own, self, outside, 1));                        /* a VLAN tag */
  put(frame, arp(frame, own, gate, self));                               /* "I am the gateway" */
  put(frame, arp(frame, foreign, self, gate));                           /* own address at another MAC */
  put(frame, arp(frame, own, inet_addr("192.0.2.1"), gate));             /* "I am the uplink's router" */
  memset(frame, 0, sizeof frame);                                        /* IPv6: a router advertisement's outside */
  memcpy(frame, "\x33\x33\0\0\0\x01", 6); memcpy(frame + 6, own, 6);
  memcpy(frame + 12, "\x86\xdd\x60\0\0\0\0\x10\x3a\xff\xfe\x80", 12);
  put(frame, 70);
  printf("sent %d\n", sent);
  return 0;
}
