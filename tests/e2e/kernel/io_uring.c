// Opens a socket and connects it through io_uring alone, and prints what it hears: HOST PORT SETUP_FLAGS.
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef IORING_OP_SOCKET
#define OP_SOCKET 45
#else
#define OP_SOCKET IORING_OP_SOCKET
#endif

static int ring;
static unsigned *sq_tail, *sq_mask, *sq_array, *sq_flags, *cq_head, *cq_tail, *cq_mask, setup_flags;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;

static int submit(struct io_uring_sqe entry) {
  unsigned tail = *sq_tail, slot = tail & *sq_mask;
  sqes[slot] = entry;
  sq_array[slot] = slot;
  __atomic_store_n(sq_tail, tail + 1, __ATOMIC_RELEASE);
  unsigned enter = IORING_ENTER_GETEVENTS;
  if (setup_flags & IORING_SETUP_SQPOLL) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(sq_flags, __ATOMIC_ACQUIRE) & IORING_SQ_NEED_WAKEUP) enter |= IORING_ENTER_SQ_WAKEUP;
  }
  if (syscall(__NR_io_uring_enter, ring, 1, 1, enter, NULL, 0) < 0) { perror("io_uring_enter"); exit(1); }
  unsigned head = *cq_head;
  while (head == __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE)) usleep(1000);
  int result = cqes[head & *cq_mask].res;
  __atomic_store_n(cq_head, head + 1, __ATOMIC_RELEASE);
  if (result < 0) { fprintf(stderr, "operation %d: %s\n", entry.opcode, strerror(-result)); exit(1); }
  return result;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  setup_flags = atoi(argv[3]);
  struct io_uring_params params = {.flags = setup_flags, .sq_thread_idle = 2000};
  ring = syscall(__NR_io_uring_setup, 8, &params);
  if (ring < 0) { perror("io_uring_setup"); return 1; }
  size_t sq_bytes = params.sq_off.array + params.sq_entries * sizeof(unsigned);
  size_t cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
  char *sq = mmap(NULL, sq_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
  char *cq = mmap(NULL, cq_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_CQ_RING);
  sqes = mmap(NULL, params.sq_entries * sizeof *sqes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
  sq_tail = (unsigned *)(sq + params.sq_off.tail);
  sq_mask = (unsigned *)(sq + params.sq_off.ring_mask);
  sq_flags = (unsigned *)(sq + params.sq_off.flags);
  sq_array = (unsigned *)(sq + params.sq_off.array);
  cq_head = (unsigned *)(cq + params.cq_off.head);
  cq_tail = (unsigned *)(cq + params.cq_off.tail);
  cq_mask = (unsigned *)(cq + params.cq_off.ring_mask);
  cqes = (struct io_uring_cqe *)(cq + params.cq_off.cqes);

  struct io_uring_sqe open = {.opcode = OP_SOCKET, .fd = AF_INET, .off = SOCK_STREAM, .len = 0};
  int fd = submit(open);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
  inet_pton(AF_INET, argv[1], &address.sin_addr);
  struct io_uring_sqe connect = {.opcode = IORING_OP_CONNECT, .fd = fd, .addr = (unsigned long)&address, .off = sizeof address};
  submit(connect);
  char heard[200] = {0};
  if (read(fd, heard, sizeof heard - 1) < 0) { perror("read"); return 1; }
  puts(heard);
}
