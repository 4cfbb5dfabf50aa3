/* A disk that keeps nothing but what was synced, and shows what it would hold if the power went now.

   Preloaded into a program, it watches the files of the folder DISK_STORE. In DISK/kept each of them is as it was at
   its last sync that came to its end, and those that were removed are gone. Before some of the syncs, drawn with
   DISK_SEED, the power goes: DISK/cuts/N then has `kept`; `written`, the files with what was not synced yet, of which
   a disk may keep any part; and `told`, what the program had written into DISK_TOLD by then. After DISK_CUTS of
   these there is a file DISK/enough. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ONE_IN = 2 };

/* One sync at a time, so that what is kept never runs ahead of what is set aside. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int cuts;

static void must(int holds, const char *what) {
    if (!holds) {
        perror(what);
        abort();
    }
}

static void path_of(char path[PATH_MAX], const char *folder, const char *name) {
    must(snprintf(path, PATH_MAX, "%s/%s", folder, name) < PATH_MAX, name);
}

static void copy(int from, const char *to) {
    static char block[1 << 16];
    int file = open(to, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    ssize_t size;
    must(file >= 0, to);
    for (off_t at = 0; (size = pread(from, block, sizeof block, at)) > 0; at += size)
        must(write(file, block, size) == size, to);
    close(file);
}

static void copy_file(const char *from, const char *to) {
    int file = open(from, O_RDONLY);
    must(file >= 0, from);
    copy(file, to);
    close(file);
}

static void copy_folder(const char *from, const char *to) {
    char source[PATH_MAX], copied[PATH_MAX];
    DIR *folder = opendir(from);
    must(folder != NULL && !mkdir(to, 0700), to);
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.')
            continue;
        path_of(source, from, entry->d_name);
        path_of(copied, to, entry->d_name);
        copy_file(source, copied);
    }
    closedir(folder);
}

/* The database, and its log where there is one. */
static void copy_written(const char *to) {
    /* Opened once and never closed: closing it would let go of the locks that SQLite has on it in this process. */
    static int database = -1;
    char path[PATH_MAX], copied[PATH_MAX];
    must(!mkdir(to, 0700), to);
    path_of(path, getenv("DISK_STORE"), "yaotask.db");
    path_of(copied, to, "yaotask.db");
    database = database < 0 ? open(path, O_RDONLY | O_CLOEXEC) : database;
    must(database >= 0, path);
    copy(database, copied);
    path_of(path, getenv("DISK_STORE"), "yaotask.db-wal");
    path_of(copied, to, "yaotask.db-wal");
    if (!access(path, F_OK))
        copy_file(path, copied);
}

static void cut(const char *disk) {
    char folder[PATH_MAX], path[PATH_MAX];
    must(snprintf(folder, PATH_MAX, "%s/cuts/%d", disk, ++cuts) < PATH_MAX && !mkdir(folder, 0700), folder);
    /* First what was told: all of it must be in what is copied after it. */
    path_of(path, folder, "told");
    copy_file(getenv("DISK_TOLD"), path);
    path_of(path, folder, "written");
    copy_written(path);
    char kept[PATH_MAX];
    path_of(kept, disk, "kept");
    path_of(path, folder, "kept");
    copy_folder(kept, path);
    if (cuts == atoi(getenv("DISK_CUTS"))) {
        path_of(path, disk, "enough");
        close(open(path, O_CREAT | O_WRONLY, 0600));
    }
}

static int power_goes(void) {
    static unsigned seed;
    if (!seed)
        seed = atoi(getenv("DISK_SEED"));
    return cuts < atoi(getenv("DISK_CUTS")) && rand_r(&seed) % ONE_IN == 0;
}

/* Where a file is kept; 0 for one that is not of the store. */
static int place_kept(char kept[PATH_MAX], const char *path) {
    const char *store = getenv("DISK_STORE"), *disk = getenv("DISK");
    size_t length = store ? strlen(store) : 0;
    if (!length || strncmp(path, store, length) || path[length] != '/' || strchr(path + length + 1, '/'))
        return 0;
    must(snprintf(kept, PATH_MAX, "%s/kept%s", disk, path + length) < PATH_MAX, path);
    return 1;
}

static int is_watched(int file, char kept[PATH_MAX]) {
    char link[64], path[PATH_MAX];
    struct stat status;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0 || fstat(file, &status) || !S_ISREG(status.st_mode))
        return 0;
    path[length] = 0;
    return place_kept(kept, path);
}

static int synced(const char *name, int file) {
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    char kept[PATH_MAX];
    if (!is_watched(file, kept))
        return sync(file);
    pthread_mutex_lock(&lock);
    if (power_goes())
        cut(getenv("DISK"));
    int answer = sync(file);
    if (!answer)
        copy(file, kept);
    pthread_mutex_unlock(&lock);
    return answer;
}

int fsync(int file) { return synced("fsync", file); }

int fdatasync(int file) { return synced("fdatasync", file); }

int unlink(const char *path) {
    int (*removed)(const char *) = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
    char kept[PATH_MAX];
    if (!place_kept(kept, path))
        return removed(path);
    pthread_mutex_lock(&lock);
    int answer = removed(path);
    if (!answer)
        removed(kept);
    pthread_mutex_unlock(&lock);
    return answer;
}
