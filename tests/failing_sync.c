/* A disk on which syncs fail when it is told so.

   Preloaded into a program, which calls `fail_syncs`; only files in the folder DISK_STORE are meant. A sync that fails
   is not passed on. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int passing, failing, failed;

/* Let the next syncs pass, so many, and those after them fail, so many. */
void fail_syncs(int pass, int fail) {
    pthread_mutex_lock(&lock);
    passing = pass;
    failing = fail;
    pthread_mutex_unlock(&lock);
}

/* How many have failed so far. */
int failed_syncs(void) {
    pthread_mutex_lock(&lock);
    int answer = failed;
    pthread_mutex_unlock(&lock);
    return answer;
}

/* How many are still to fail. */
int failing_syncs(void) {
    pthread_mutex_lock(&lock);
    int answer = failing;
    pthread_mutex_unlock(&lock);
    return answer;
}

static int is_watched(int file) {
    const char *store = getenv("DISK_STORE");
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (!store || length <= 0)
        return 0;
    path[length] = 0;
    return !strncmp(path, store, strlen(store));
}

static int is_to_fail(void) {
    int answer = 0;
    pthread_mutex_lock(&lock);
    if (failing && passing-- <= 0) {
        failing--;
        failed++;
        answer = 1;
    }
    pthread_mutex_unlock(&lock);
    return answer;
}

static int synced(const char *name, int file) {
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    if (!is_watched(file) || !is_to_fail())
        return sync(file);
    errno = EIO;
    return -1;
}

int fsync(int file) { return synced("fsync", file); }

int fdatasync(int file) { return synced("fdatasync", file); }
