// Preloaded into fsx so that a file system can be unmounted and mounted again under one run of it: every PAUSE_EVERY-th close
// of a file below PAUSE_BELOW makes the file PAUSE_AT and waits until the test removes it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// fsx 0.3.2 does not unmap its mappings for reading, and a mapping keeps the mount busy.
static void unmap(const char *below)
{
    static unsigned long from[65536], to[65536];
    char line[8192];
    int many = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && many < 65536 && fgets(line, sizeof line, maps))
        if (strstr(line, below) && sscanf(line, "%lx-%lx", &from[many], &to[many]) == 2)
            many++;
    if (maps)
        fclose(maps);
    while (many--)
        munmap((void *)from[many], to[many] - from[many]);
}

int close(int descriptor)
{
    static int (*next)(int);
    static long closes;
    const char *below = getenv("PAUSE_BELOW"), *at = getenv("PAUSE_AT"), *every = getenv("PAUSE_EVERY");
    char link[64], path[4096] = "";
    if (!next)
        next = (int (*)(int))dlsym(RTLD_NEXT, "close");
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    if (!below || !at || !every || readlink(link, path, sizeof path - 1) < 0)
        path[0] = 0;
    int result = next(descriptor);
    if (path[0] && !strncmp(path, below, strlen(below)) && ++closes % atol(every) == 0) {
        unmap(below);
        next(open(at, O_CREAT | O_WRONLY, 0600));
        while (access(at, F_OK) == 0)
            usleep(10000);
    }
    return result;
}
