/* Counts the instructions a QEMU guest executes, exactly. A TCG plugin for qemu-system-* and qemu-user.
 *
 *     -plugin libcount_instructions.so,counter=PATH[,threads=on][,mark=0xADDRESS]...
 *
 * file=PATH means the same as counter=PATH, but has to be written arg=file=PATH: QEMU takes a bare file= for the
 * plugin's own path.
 *
 * PATH is an existing file of at least 16 bytes that plugin and readers map shared:
 *
 *     offset 0   uint64  instructions executed so far
 *     offset 8   uint64  marks passed so far; a reader may set it to 0 while the guest passes none
 *     offset 16  pairs of uint64: address of the mark, instructions executed before it; as many as the file has room
 *                for (further marks are only counted at offset 8)
 *
 * Numbers have the host's byte order. A guest program under qemu-user can map the same file and read its own count.
 *
 * The count is exact: the addition is made in front of every instruction, so that a block left half-way counts only
 * what ran. It holds for one virtual processor at a time: two threads would lose additions. With threads=on several may
 * run at once: a whole block is then added, atomically, when it is entered. With -icount, QEMU executes
 * an instruction that touches a device twice over, and so it would be counted; don't combine the two.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qemu_plugin_api.h"

#define MAX_MARKS 64

static struct {
    uint64_t count;
    uint64_t passed;
    struct {
        uint64_t address, count;
    } log[];
} *shared;
static uint64_t log_room;
static uint64_t marks[MAX_MARKS];
static size_t mark_count;
static bool threads;

static void pass_mark(unsigned int vcpu_index, void *userdata) {
    (void)vcpu_index;
    if (shared->passed < log_room) {
        shared->log[shared->passed].address = *(const uint64_t *)userdata;
        shared->log[shared->passed].count = shared->count;
    }
    shared->passed++;
}

static void count_one(unsigned int vcpu_index, void *userdata) {
    (void)vcpu_index, (void)userdata;
    shared->count++;
}

static void enter_block(unsigned int vcpu_index, void *instructions) {
    (void)vcpu_index;
    __atomic_fetch_add(&shared->count, (uintptr_t)instructions, __ATOMIC_RELAXED);
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    if (threads) {
        uintptr_t instructions = qemu_plugin_tb_n_insns(tb);
        qemu_plugin_register_vcpu_tb_exec_cb(tb, enter_block, QEMU_PLUGIN_CB_NO_REGS, (void *)instructions);
    }
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint64_t address = qemu_plugin_insn_vaddr(insn);
        for (size_t j = 0; j < mark_count; j++) {
            if (marks[j] == address) {
                qemu_plugin_register_vcpu_insn_exec_cb(insn, pass_mark, QEMU_PLUGIN_CB_NO_REGS, &marks[j]);
            }
        }
        if (!threads && qemu_plugin_register_vcpu_insn_exec_inline) {
            qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64, &shared->count, 1);
        } else if (!threads) {
            /* Later versions add in line to memory of QEMU's own alone, which no reader of the file sees. */
            qemu_plugin_register_vcpu_insn_exec_cb(insn, count_one, QEMU_PLUGIN_CB_NO_REGS, NULL);
        }
    }
}

static bool map_file(const char *path) {
    int file = open(path, O_RDWR | O_CLOEXEC);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0 || status.st_size < (off_t)sizeof(*shared)) {
        fprintf(stderr, "count_instructions: %s can't be opened, or has less than %zu bytes\n", path, sizeof(*shared));
        return false;
    }
    shared = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED) {
        perror("count_instructions: mmap");
        return false;
    }
    log_room = ((uint64_t)status.st_size - sizeof(*shared)) / sizeof(shared->log[0]);
    return true;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "counter=", 8) == 0 || strncmp(argv[i], "file=", 5) == 0) {
            if (shared || !map_file(strchr(argv[i], '=') + 1)) {
                return 1;
            }
        } else if (strcmp(argv[i], "threads=on") == 0) {
            threads = true;
        } else if (strncmp(argv[i], "mark=", 5) == 0 && mark_count < MAX_MARKS) {
            marks[mark_count++] = strtoull(argv[i] + 5, NULL, 16);
        } else {
            fprintf(stderr, "count_instructions: what is %s?\n", argv[i]);
            return 1;
        }
    }
    if (!shared) {
        fprintf(stderr, "count_instructions: counter=PATH is missing\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    return 0;
}
