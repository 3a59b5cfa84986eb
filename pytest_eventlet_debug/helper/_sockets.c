/* Tells strace the addresses of a TCP socket, in the place of the kernel.

   With -yy, strace asks sock_diag(7) for all TCP sockets of the system whenever it meets one whose
   addresses it does not know, which is at every call until that socket listens or is connected. To
   answer, the kernel walks through a hash table whose size goes by that of memory: half a
   millisecond with 16 GB, several times for each connection of a test, which waits for it.

   This library is loaded into strace by LD_PRELOAD. It duplicates the very socket that strace is
   about to ask for, pidfd_getfd(2), asks that, and answers in the kernel's stead. What it does not
   know goes to the kernel: other protocols, a socket that is just being connected, a kernel before
   5.6. It is no module of Python's, though it is built like one. */

#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#if defined(SYS_pidfd_open) && defined(SYS_pidfd_getfd)

/* PIDFD_THREAD, Linux 6.9: the descriptor may be asked for by the number of a thread. */
#define ANY_THREAD O_EXCL

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} Address;

typedef struct {
    struct nlmsghdr header;
    struct inet_diag_req_v2 of;
} Request;

typedef struct {
    struct nlmsghdr header;
    struct inet_diag_msg socket;
} Answer;

/* The descriptor that strace looks at, -1 for none; it names the protocol before it asks. */
static int tracee;
static int descriptor = -1;

/* What is to be received next, over which connection; -1 for nothing. */
static Answer answer;
static int answered = -1;

ssize_t
getxattr(const char *path, const char *name, void *value, size_t size)
{
    ssize_t result = syscall(SYS_getxattr, path, name, value, size);
    if (strcmp(name, "system.sockprotoname") != 0 || result < 0
        || sscanf(path, "/proc/%d/fd/%d", &tracee, &descriptor) != 2) {
        descriptor = -1;
    }
    return result;
}

static int
duplicate(void)
{
    int process = syscall(SYS_pidfd_open, tracee, ANY_THREAD);
    if (process < 0) {
        process = syscall(SYS_pidfd_open, tracee, 0);
    }
    if (process < 0) {
        return -1;
    }
    int copy = syscall(SYS_pidfd_getfd, process, descriptor, 0);
    close(process);
    return copy;
}

static void
put(const Address *address, __be16 *port, __be32 *number)
{
    if (address->any.sa_family == AF_INET) {
        *port = address->v4.sin_port;
        memcpy(number, &address->v4.sin_addr, sizeof address->v4.sin_addr);
    }
    else {
        *port = address->v6.sin6_port;
        memcpy(number, &address->v6.sin6_addr, sizeof address->v6.sin6_addr);
    }
}

typedef enum { UNKNOWN, WITHOUT, WITH } Addresses;

/* Find out whether a socket has addresses by which the kernel would find it, and put them into the
   answer. */
static Addresses
ask(int socket, int family)
{
    struct tcp_info info;
    struct stat status;
    Address own, peer;
    socklen_t info_size = sizeof info, own_size = sizeof own, peer_size = sizeof peer;
    if (getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &info_size) < 0
        || getsockname(socket, &own.any, &own_size) < 0 || own.any.sa_family != family
        || fstat(socket, &status) < 0) {
        return UNKNOWN;
    }
    if (info.tcpi_state == TCP_CLOSE) {
        return WITHOUT; /* bound, perhaps; strace would ask no more, and miss the peer */
    }
    memset(&answer, 0, sizeof answer);
    answer.header.nlmsg_len = sizeof answer;
    answer.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    answer.socket.idiag_family = family;
    answer.socket.idiag_state = info.tcpi_state;
    answer.socket.idiag_inode = status.st_ino;
    put(&own, &answer.socket.id.idiag_sport, answer.socket.id.idiag_src);
    if (info.tcpi_state != TCP_LISTEN) {
        if (getpeername(socket, &peer.any, &peer_size) < 0 || peer.any.sa_family != family) {
            return UNKNOWN; /* it is just being connected */
        }
        put(&peer, &answer.socket.id.idiag_dport, answer.socket.id.idiag_dst);
    }
    return WITH;
}

static int
is_for_tcp(const struct msghdr *message)
{
    const Request *request = message->msg_iov->iov_base;
    return message->msg_iovlen == 1 && message->msg_iov->iov_len == sizeof *request
        && request->header.nlmsg_type == SOCK_DIAG_BY_FAMILY
        && (request->of.sdiag_family == AF_INET || request->of.sdiag_family == AF_INET6)
        && request->of.sdiag_protocol == IPPROTO_TCP;
}

ssize_t
sendmsg(int connection, const struct msghdr *message, int flags)
{
    answered = -1;
    if (descriptor >= 0 && is_for_tcp(message)) {
        int socket = duplicate();
        if (socket >= 0) {
            const Request *request = message->msg_iov->iov_base;
            Addresses found = ask(socket, request->of.sdiag_family);
            close(socket);
            if (found == WITHOUT) {
                errno = ENOENT;
                return -1;
            }
            if (found == WITH) {
                answered = connection;
                return sizeof *request;
            }
        }
    }
    return syscall(SYS_sendmsg, connection, message, flags);
}

ssize_t
recvmsg(int connection, struct msghdr *message, int flags)
{
    if (connection == answered && message->msg_iov->iov_len >= sizeof answer) {
        answered = -1;
        memcpy(message->msg_iov->iov_base, &answer, sizeof answer);
        return sizeof answer;
    }
    return syscall(SYS_recvmsg, connection, message, flags);
}

#endif
