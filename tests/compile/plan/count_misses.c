/* Counts the cache lines that a QEMU guest's loads and stores miss: a first-level cache, a second-level one behind it,
 * both with lines of 64 bytes, the least recently used replaced first, stores bringing lines in. A TCG plugin.
 *
 *     -plugin libcount_misses.so,l1=BYTES,l1ways=N,l2=BYTES,l2ways=N,out=PATH
 *
 * At the guest's end PATH holds "accesses l1_misses l2_misses".
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The declarations of qemu-plugin.h (API version 1) that are used; distributions don't package the header. */
typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
typedef uint32_t qemu_plugin_meminfo_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*qemu_plugin_vcpu_tb_trans_cb_t)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
typedef void (*qemu_plugin_vcpu_mem_cb_t)(unsigned int vcpu_index, qemu_plugin_meminfo_t info, uint64_t vaddr,
                                          void *userdata);
typedef void (*qemu_plugin_udata_cb_t)(qemu_plugin_id_t id, void *userdata);
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
enum qemu_plugin_mem_rw { QEMU_PLUGIN_MEM_R = 1, QEMU_PLUGIN_MEM_W, QEMU_PLUGIN_MEM_RW };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_tb_trans_cb_t cb);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, qemu_plugin_udata_cb_t cb, void *userdata);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t idx);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, qemu_plugin_vcpu_mem_cb_t cb,
                                      enum qemu_plugin_cb_flags flags, enum qemu_plugin_mem_rw rw, void *userdata);
unsigned int qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t info);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

#define LINE_BITS 6

typedef struct {
    uint64_t *lines; /* sets x ways, the most recently used first */
    uint64_t ways, sets, misses;
} cache_t;

static cache_t l1, l2;
static uint64_t accesses;
static const char *out;

static bool holds(cache_t *cache, uint64_t line) {
    uint64_t *set = cache->lines + line % cache->sets * cache->ways;
    uint64_t way = 0;
    while (way < cache->ways - 1 && set[way] != line) {
        ++way;
    }
    const bool hit = set[way] == line;
    memmove(set + 1, set, way * sizeof *set);
    set[0] = line;
    cache->misses += !hit;
    return hit;
}

static void touch(unsigned int vcpu_index, qemu_plugin_meminfo_t info, uint64_t address, void *userdata) {
    (void)vcpu_index, (void)userdata;
    const uint64_t last = address + (UINT64_C(1) << qemu_plugin_mem_size_shift(info)) - 1;
    accesses++;
    for (uint64_t line = address >> LINE_BITS; line <= last >> LINE_BITS; ++line) {
        if (!holds(&l1, line + 1)) { /* 0 is an empty way */
            holds(&l2, line + 1);
        }
    }
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i), touch, QEMU_PLUGIN_CB_NO_REGS,
                                         QEMU_PLUGIN_MEM_RW, NULL);
    }
}

static void report(qemu_plugin_id_t id, void *userdata) {
    (void)id, (void)userdata;
    FILE *file = fopen(out, "w");
    if (file) {
        fprintf(file, "%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", accesses, l1.misses, l2.misses);
        fclose(file);
    }
}

static bool make(cache_t *cache, uint64_t bytes) {
    if (cache->ways == 0 || bytes == 0) {
        return false;
    }
    cache->sets = bytes / cache->ways >> LINE_BITS;
    cache->lines = calloc(cache->sets * cache->ways, sizeof *cache->lines);
    return cache->lines != NULL;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
    (void)info;
    uint64_t l1_bytes = 0, l2_bytes = 0;
    for (int i = 0; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value) {
            return 1;
        }
        *value++ = 0;
        if (strcmp(argv[i], "l1") == 0) {
            l1_bytes = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "l2") == 0) {
            l2_bytes = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "l1ways") == 0) {
            l1.ways = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "l2ways") == 0) {
            l2.ways = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "out") == 0) {
            out = strdup(value);
        } else {
            return 1;
        }
    }
    if (!out || !make(&l1, l1_bytes) || !make(&l2, l2_bytes)) {
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    qemu_plugin_register_atexit_cb(id, report, NULL);
    return 0;
}
