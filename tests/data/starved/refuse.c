/* Preloaded into a worker: the C library refuses threads, and the medium refuses writes.
 *
 * ASSAY_THREADS=n: pthread_create grants n threads and says EAGAIN from then on.
 * ASSAY_WRITES=n: writes to regular files say EIO once n bytes have been written. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static long left(const char *name) {
  const char *text = getenv(name);
  return text ? atol(text) : -1;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg) {
  static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  static long granted;
  if (!real) real = dlsym(RTLD_NEXT, "pthread_create");
  long most = left("ASSAY_THREADS");
  if (most >= 0 && __sync_fetch_and_add(&granted, 1) >= most) return EAGAIN;
  return real(thread, attr, start, arg);
}

ssize_t write(int fd, const void *data, size_t size) {
  static ssize_t (*real)(int, const void *, size_t);
  static long written;
  if (!real) real = dlsym(RTLD_NEXT, "write");
  long most = left("ASSAY_WRITES");
  struct stat about;
  if (most >= 0 && !fstat(fd, &about) && S_ISREG(about.st_mode)) {
    if (__sync_add_and_fetch(&written, (long)size) > most) {
      errno = EIO;
      return -1;
    }
  }
  return real(fd, data, size);
}
