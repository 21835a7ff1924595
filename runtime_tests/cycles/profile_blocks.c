/* Which blocks of code a QEMU guest executes, how often, and what its caches miss. A TCG plugin for qemu-system-* and
 * qemu-user.
 *
 *     -plugin libprofile_blocks.so,profile=PATH[,begin=0xADDRESS,end=0xADDRESS]
 *             [,flash=0xORIGIN:SIZE:READ:LINE:INSTRUCTION_LINES:DATA_LINES]
 *
 * PATH is an existing file that plugin and readers map shared, of the layout of `struct profile`, in the host's byte
 * order. What runs is recorded while `armed` and `measuring` are 1. The latter is set between the instructions at
 * `begin` and at `end`, or by a guest under qemu-user that maps the file; each such stretch is a call, and its number
 * in `calls` parts its blocks from the others'. A reader that raises `generation` forgets all that was recorded.
 *
 * A block is a run of instructions that QEMU translates as one, left only at its end. `entered` and `left` say how
 * often it was reached, and left, other than by what stands before and behind it: taken branches, calls, returns.
 *
 * With flash=, two caches before a flash are simulated, of instructions and of data, fully associative, least recently
 * used out first; lines of LINE bytes are filled by reads of READ bytes, those that are asked for, and no more. Misses
 * are counted in such reads, by the block that caused them.
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

#define MOST_BLOCKS 65536
#define MOST_CODE (4 << 20)
#define MOST_LINES 256

struct block {
    uint64_t address, executions, entered, left, fetch_misses, data_misses, unaligned;
    uint32_t length, code_offset; /* bytes, and where they are in `code` */
    uint64_t call;
};

static struct profile {
    uint64_t measuring, calls, armed, generation, blocks, code_bytes, overflowed;
    struct block block[MOST_BLOCKS];
    uint8_t code[MOST_CODE];
} *shared;

/* A translated block; never freed, since QEMU tells of no block's end. */
struct translation {
    uint64_t address;
    uint64_t generation, call; /* for which `record` holds */
    struct block *record;
    uint32_t length;
    uint8_t code[];
};

struct line {
    uint64_t number, last_use;
    uint32_t filled; /* a bit for each read */
};

struct cache {
    uint64_t lines, uses;
    struct line line[MOST_LINES];
};

static struct {
    uint64_t origin, size, read, line;
} flash;
static struct cache instructions, data;
static uint64_t begin_address = UINT64_MAX, end_address = UINT64_MAX;
static bool thumb;
static qemu_info_t qemu;
static struct translation *last;
static struct block unrecorded;

static unsigned misses(struct cache *cache, uint64_t address) {
    uint64_t number = address / flash.line;
    struct line *oldest = &cache->line[0], *line = NULL;
    for (uint64_t i = 0; i < cache->lines && !line; i++) {
        if (cache->line[i].last_use && cache->line[i].number == number) {
            line = &cache->line[i];
        } else if (cache->line[i].last_use < oldest->last_use) {
            oldest = &cache->line[i];
        }
    }
    if (!line) {
        line = oldest;
        line->number = number;
        line->filled = 0;
    }
    line->last_use = ++cache->uses;
    uint32_t bit = 1u << (address % flash.line / flash.read);
    bool hit = line->filled & bit;
    line->filled |= bit;
    return !hit;
}

static unsigned misses_within(struct cache *cache, uint64_t address, uint64_t length) {
    if (!cache->lines || address < flash.origin || address >= flash.origin + flash.size) {
        return 0;
    }
    unsigned missed = 0;
    for (uint64_t at = address - address % flash.read; at < address + length; at += flash.read) {
        missed += misses(cache, at);
    }
    return missed;
}

static struct block *record_of(struct translation *tb) {
    if (tb->record && tb->generation == shared->generation && tb->call == shared->calls) {
        return tb->record;
    }
    tb->generation = shared->generation;
    tb->call = shared->calls;
    if (shared->blocks == MOST_BLOCKS || shared->code_bytes + tb->length > MOST_CODE) {
        shared->overflowed = 1;
        return tb->record = &unrecorded;
    }
    struct block *record = tb->record = &shared->block[shared->blocks++];
    memset(record, 0, sizeof(*record));
    record->address = tb->address;
    record->length = tb->length;
    record->call = tb->call;
    record->code_offset = (uint32_t)shared->code_bytes;
    memcpy(shared->code + shared->code_bytes, tb->code, tb->length);
    shared->code_bytes += tb->length;
    return record;
}

static void execute(unsigned int vcpu_index, void *userdata) {
    (void)vcpu_index;
    struct translation *tb = userdata;
    if (!shared->measuring || !shared->armed || !tb->length) {
        last = NULL;
        return;
    }
    struct block *record = record_of(tb);
    record->executions++;
    if (last && last->address + last->length != tb->address) {
        record_of(last)->left++;
        record->entered++;
    }
    record->fetch_misses += misses_within(&instructions, tb->address, tb->length);
    last = tb;
}

static void access_memory(unsigned int vcpu_index, qemu_plugin_meminfo_t info, uint64_t address, void *userdata) {
    (void)vcpu_index, (void)userdata;
    if (!last || !shared->measuring) {
        return;
    }
    struct block *record = record_of(last);
    uint64_t bytes = UINT64_C(1) << qemu_plugin_mem_size_shift(info);
    record->unaligned += bytes <= 4 && address % bytes != 0;
    if (!qemu_plugin_mem_is_store(info)) {
        record->data_misses += misses_within(&data, address, bytes);
    }
}

/* `userdata` is what of the block lies behind the mark. */
static void pass_begin(unsigned int vcpu_index, void *userdata) {
    shared->measuring = 1;
    shared->calls++;
    last = NULL;
    execute(vcpu_index, userdata);
}

static void pass_end(unsigned int vcpu_index, void *userdata) {
    (void)vcpu_index, (void)userdata;
    shared->measuring = 0;
}

/* QEMU adds to a Thumb block's last instruction at a page's end the two bytes that it looked at behind it. */
static size_t size_of(const struct qemu_plugin_insn *insn) {
    size_t size = qemu_plugin_insn_size(insn);
    uint16_t first;
    copy_insn(&qemu, insn, &first, sizeof(first));
    return !thumb ? size : first < 0xE800 ? 2 : 4;
}

/* Return the instructions of a block from the first on, and before the end's mark, as one. */
static struct translation *copy_from(const struct qemu_plugin_tb *tb, size_t first) {
    size_t count = first, length = 0;
    while (count < qemu_plugin_tb_n_insns(tb) &&
           qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, count)) != end_address) {
        count++;
    }
    for (size_t i = first; i < count; i++) {
        length += size_of(qemu_plugin_tb_get_insn(tb, i));
    }
    struct translation *translation = calloc(1, sizeof(*translation) + length);
    if (!translation) {
        perror("profile_blocks");
        abort();
    }
    translation->address = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, first));
    for (size_t i = first; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        copy_insn(&qemu, insn, translation->code + translation->length, size_of(insn));
        translation->length += (uint32_t)size_of(insn);
    }
    return translation;
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint64_t address = qemu_plugin_insn_vaddr(insn);
        if (address == begin_address) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, pass_begin, QEMU_PLUGIN_CB_NO_REGS, copy_from(tb, i));
        } else if (address == end_address) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, pass_end, QEMU_PLUGIN_CB_NO_REGS, NULL);
        }
        if (thumb) {
            qemu_plugin_register_vcpu_mem_cb(insn, access_memory, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW, NULL);
        }
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, execute, QEMU_PLUGIN_CB_NO_REGS, copy_from(tb, 0));
}

static bool map_file(const char *path) {
    int file = open(path, O_RDWR | O_CLOEXEC);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0 || status.st_size < (off_t)sizeof(*shared)) {
        fprintf(stderr, "profile_blocks: %s can't be opened, or has less than %zu bytes\n", path, sizeof(*shared));
        return false;
    }
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED) {
        perror("profile_blocks: mmap");
        return false;
    }
    return true;
}

static bool read_flash(const char *text) {
    const char *format = "0x%" SCNx64 ":%" SCNu64 ":%" SCNu64 ":%" SCNu64 ":%" SCNu64 ":%" SCNu64;
    return sscanf(text, format, &flash.origin, &flash.size, &flash.read, &flash.line, &instructions.lines,
                  &data.lines) == 6 &&
           flash.read && flash.line >= flash.read && flash.line / flash.read <= 32 &&
           instructions.lines <= MOST_LINES && data.lines <= MOST_LINES;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
    qemu = *info;
    thumb = strcmp(info->target_name, "arm") == 0;
    for (int i = 0; i < argc; i++) {
        const char *value = strchr(argv[i], '=');
        bool understood = value != NULL;
        if (understood && strncmp(argv[i], "profile=", 8) == 0) {
            understood = !shared && map_file(value + 1);
        } else if (understood && strncmp(argv[i], "begin=", 6) == 0) {
            begin_address = strtoull(value + 1, NULL, 16);
        } else if (understood && strncmp(argv[i], "end=", 4) == 0) {
            end_address = strtoull(value + 1, NULL, 16);
        } else {
            understood = understood && strncmp(argv[i], "flash=", 6) == 0 && read_flash(value + 1);
        }
        if (!understood) {
            fprintf(stderr, "profile_blocks: what is %s?\n", argv[i]);
            return 1;
        }
    }
    if (!shared) {
        fprintf(stderr, "profile_blocks: profile=PATH is missing\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    return 0;
}
