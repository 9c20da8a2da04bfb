/*
 * Starts a program of the board under the board's own QEMU and CPU model.
 *
 * Two builds of one source:
 *  - without REAL_PROGRAM: the binfmt_misc interpreter of a foreign-architecture board. The kernel
 *    (flag P) calls it as: self, path of the program, the program's argv[0], its arguments.
 *  - with REAL_PROGRAM: takes the place of a program of the host's own architecture, which
 *    binfmt_misc could not tell apart from QEMU itself, and runs REAL_PROGRAM emulated.
 *
 * The CPU model is read from a file, not from the environment, because sshd starts its sessions
 * with a clean environment.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define QEMU "/.qemu/qemu"
#define CPU_FILE "/.qemu/cpu"

static void die(const char *what)
{
    dprintf(2, "assay board: %s\n", what);
    _exit(126);
}

int main(int argc, char **argv)
{
    static char cpu[256];
    int fd = open(CPU_FILE, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, cpu, sizeof cpu - 1);

    if (length <= 0)
        die("cannot read " CPU_FILE);
    close(fd);
    cpu[strcspn(cpu, "\n")] = '\0';

#ifdef REAL_PROGRAM
    const char *program = REAL_PROGRAM;
    char *name = argv[0];
    int first = 1;
#else
    if (argc < 3)
        die("must be called by binfmt_misc with flag P");
    const char *program = argv[1];
    char *name = argv[2];
    int first = 3;
#endif
    char **out = calloc((size_t)argc + 8, sizeof *out);
    int n = 0;

    if (!out)
        die("out of memory");
    out[n++] = QEMU;
    out[n++] = "-cpu";
    out[n++] = cpu;
    out[n++] = "-0";
    out[n++] = name;
    out[n++] = (char *)program;
    for (int i = first; i < argc; i++)
        out[n++] = argv[i];
    execv(QEMU, out);
    die("cannot run " QEMU);
}
