/* A server that takes uploads and keeps nothing: what HTTP costs the sender is what is measured.
 *
 * sink [copy] [slow MS] [tls CERT KEY]: listens on a free port of loopback, prints it, and when its input ends prints
 * what arrived, in JSON: bytes of bodies, requests, connections, and the CLOCK_MONOTONIC of the first and the last byte.
 * By default the kernel drops what arrives (MSG_TRUNC); with `copy` it is read, as a server has to. `slow` sleeps so
 * many milliseconds after each MiB of a connection. It answers NOS, OSS and S3 in parts, forms, and Qiniu's second version.
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 1 << 18, STEP = 1 << 20 };

typedef struct { int fd; SSL *tls; size_t start, end; char room[ROOM]; } Line;

static int copies, pause_ms;
static SSL_CTX *context;
static atomic_ullong bytes, requests, connections, put, first_ns, last_ns;

static unsigned long long now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000ull + at.tv_nsec;
}

static void count(size_t size) {
    unsigned long long none = 0, at = now();
    atomic_compare_exchange_strong(&first_ns, &none, at);
    last_ns = at;
    bytes += size;
}

static ssize_t take(Line *line, void *where, size_t size) {
    return line->tls ? SSL_read(line->tls, where, (int)size) : recv(line->fd, where, size, 0);
}

static int fill(Line *line) {
    if (line->start) {
        memmove(line->room, line->room + line->start, line->end - line->start);
        line->end -= line->start;
        line->start = 0;
    }
    if (line->end >= ROOM - 1) return 0;
    ssize_t size = take(line, line->room + line->end, ROOM - 1 - line->end);
    if (size <= 0) return 0;
    line->end += size;
    line->room[line->end] = 0;
    return 1;
}

static int drop(Line *line, unsigned long long left) {
    size_t held = line->end - line->start, since = 0;
    if (held > left) held = left;
    line->start += held;
    left -= held;
    if (held) count(held);
    while (left) {
        size_t want = left > STEP ? STEP : left;
        ssize_t size;
        if (line->tls || copies) size = take(line, line->room, want > ROOM ? ROOM : want);
        else size = recv(line->fd, NULL, want, MSG_TRUNC);
        if (size <= 0) return 0;
        if (line->tls || copies) line->start = line->end = 0;
        left -= size;
        count(size);
        since += size;
        if (pause_ms && since >= STEP) {
            usleep(pause_ms * 1000);
            since = 0;
        }
    }
    return 1;
}

static const char *header(const char *head, const char *name) {
    for (const char *at = head; (at = strstr(at, "\r\n")); at += 2)
        if (!strncasecmp(at + 2, name, strlen(name))) return at + 2 + strlen(name) + strspn(at + 2 + strlen(name), " ");
    return NULL;
}

static const char *answer(const char *method, const char *target, int *status) {
    const char *search = strchr(target, '?');
    *status = 200;
    if (!strcmp(method, "HEAD") && put) return ""; /* rclone looks whether its object is there, and how large */
    if (!strcmp(method, "HEAD") || !strcmp(method, "GET")) {
        *status = 404;
        return "";
    }
    if (search && strstr(search, "partNumber=")) return "";
    if (search && strstr(search, "uploads"))
        return "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId></InitiateMultipartUploadResult>";
    if (search && strstr(search, "uploadId="))
        return "<CompleteMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><ETag>\"e\"</ETag></CompleteMultipartUploadResult>";
    if (!strncmp(target, "/buckets/", 9)) {
        const char *leaf = strstr(target, "/uploads");
        if (leaf && !leaf[8]) return "{\"uploadId\":\"u\",\"expireAt\":4102444800}";
        return !strcmp(method, "PUT") ? "{\"etag\":\"e\"}" : "{\"key\":\"benchmark.bin\"}";
    }
    if (!strcmp(method, "PUT")) return "";
    if (search && strstr(search, "offset=")) return "{\"context\":\"c\",\"offset\":0}";
    return "{\"key\":\"k\"}";
}

static void *serve(void *given) {
    Line *line = given;
    int on = 1;
    setsockopt(line->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connections++;
    if (context) {
        line->tls = SSL_new(context);
        SSL_set_fd(line->tls, line->fd);
        if (SSL_accept(line->tls) <= 0) goto over;
    }
    for (;;) {
        char *end, method[16], target[4096], reply[1024];
        line->room[line->end] = 0;
        while (!(end = strstr(line->room + line->start, "\r\n\r\n")))
            if (!fill(line)) goto over;
        end[2] = 0;
        const char *head = line->room + line->start;
        if (sscanf(head, "%15s %4095s", method, target) != 2) goto over;
        const char *length = header(head, "content-length:"), *expect = header(head, "expect:");
        unsigned long long size = length ? strtoull(length, NULL, 10) : 0;
        if (header(head, "transfer-encoding:")) goto over; /* nobody here has to */
        line->start = end + 4 - line->room;
        if (expect) {
            const char *go = "HTTP/1.1 100 Continue\r\n\r\n";
            if (line->tls) SSL_write(line->tls, go, strlen(go));
            else send(line->fd, go, strlen(go), MSG_NOSIGNAL);
        }
        if (!drop(line, size)) goto over;
        requests++;
        if (!strcmp(method, "PUT")) put += size;
        int status;
        const char *body = answer(method, target, &status);
        int wrote = snprintf(reply, sizeof reply,
            "HTTP/1.1 %d %s\r\nX-Reqid: r\r\nETag: \"opaque\"\r\nContent-Type: application/%s\r\n"
            "Content-Length: %zu\r\n\r\n%s", status, status == 200 ? "OK" : "Not Found", *body == '<' ? "xml" : "json",
            !strcmp(method, "HEAD") && put ? (size_t)put : strlen(body), body);
        if ((line->tls ? SSL_write(line->tls, reply, wrote) : send(line->fd, reply, wrote, MSG_NOSIGNAL)) != wrote) break;
    }
over:
    if (line->tls) SSL_free(line->tls);
    close(line->fd);
    free(line);
    return NULL;
}

static void *listens(void *given) {
    int door = *(int *)given;
    for (;;) {
        Line *line = calloc(1, sizeof *line);
        pthread_t thread;
        line->fd = accept(door, NULL, NULL);
        if (line->fd < 0 || pthread_create(&thread, NULL, serve, line)) exit(1);
        pthread_detach(thread);
    }
}

int main(int words, char **word) {
    signal(SIGPIPE, SIG_IGN);
    for (int at = 1; at < words; at++) {
        if (!strcmp(word[at], "copy")) copies = 1;
        else if (!strcmp(word[at], "slow") && at + 1 < words) pause_ms = atoi(word[++at]);
        else if (!strcmp(word[at], "tls") && at + 2 < words) {
            context = SSL_CTX_new(TLS_server_method());
            if (SSL_CTX_use_certificate_chain_file(context, word[at + 1]) != 1 ||
                SSL_CTX_use_PrivateKey_file(context, word[at + 2], SSL_FILETYPE_PEM) != 1) return 1;
            at += 2;
        } else return 2;
    }
    int door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof place;
    if (bind(door, (void *)&place, size) || listen(door, 512) || getsockname(door, (void *)&place, &size)) return 1;
    pthread_t thread;
    pthread_create(&thread, NULL, listens, &door);
    printf("%d\n", ntohs(place.sin_port));
    fflush(stdout);
    char ignored[64];
    while (read(0, ignored, sizeof ignored) > 0) {}
    printf("{\"bytes\": %llu, \"requests\": %llu, \"connections\": %llu, \"first\": %.9f, \"last\": %.9f}\n",
        (unsigned long long)bytes, (unsigned long long)requests, (unsigned long long)connections, first_ns / 1e9, last_ns / 1e9);
    fflush(stdout);
    _exit(0);
}
