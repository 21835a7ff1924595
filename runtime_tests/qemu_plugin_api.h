/* The declarations of qemu-plugin.h that are used; distributions don't package the header.
 *
 * A plugin that includes this runs under QEMU 4.2 to 8 (version 1 of the interface) and under 9 and later (2 and more),
 * which took functions away and changed others: what only one of them has is weak, and its address null in the other.
 */
#ifndef THUMBNET_QEMU_PLUGIN_API_H
#define THUMBNET_QEMU_PLUGIN_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
typedef struct {
    const char *target_name;
    struct {
        int min, cur;
    } version;
} qemu_info_t; /* its first fields */
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*qemu_plugin_vcpu_tb_trans_cb_t)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
typedef void (*qemu_plugin_vcpu_udata_cb_t)(unsigned int vcpu_index, void *userdata);
typedef void (*qemu_plugin_vcpu_mem_cb_t)(unsigned int vcpu_index, qemu_plugin_meminfo_t info, uint64_t vaddr,
                                          void *userdata);
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
enum qemu_plugin_mem_rw { QEMU_PLUGIN_MEM_R = 1, QEMU_PLUGIN_MEM_W, QEMU_PLUGIN_MEM_RW };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_tb_trans_cb_t cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, qemu_plugin_vcpu_udata_cb_t cb,
                                          enum qemu_plugin_cb_flags flags, void *userdata);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, qemu_plugin_vcpu_udata_cb_t cb,
                                            enum qemu_plugin_cb_flags flags, void *userdata);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, qemu_plugin_vcpu_mem_cb_t cb,
                                      enum qemu_plugin_cb_flags flags, enum qemu_plugin_mem_rw rw, void *userdata);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t idx);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
unsigned int qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t info);
bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t info);

#define WEAK __attribute__((weak))
/* Version 1 alone. */
WEAK void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn, enum qemu_plugin_op op, void *ptr,
                                                     uint64_t imm);
/* Since versions 2, 4 and 5; looked for, not called. */
WEAK void qemu_plugin_scoreboard_new(void);
WEAK void qemu_plugin_read_memory_vaddr(void);
WEAK void qemu_plugin_write_register(void);
/* Up to version 2 it returns the data, since version 3 it copies them. */
const void *insn_data(const struct qemu_plugin_insn *insn) __asm__("qemu_plugin_insn_data");
size_t copy_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t length) __asm__("qemu_plugin_insn_data");

#define EXPORT __attribute__((visibility("default")))
/* QEMU looks at it before it calls the plugin, and refuses what is older or newer than what it knows. */
EXPORT int qemu_plugin_version = 1;

__attribute__((constructor)) static void choose_version(void) {
    qemu_plugin_version = qemu_plugin_write_register      ? 5
                          : qemu_plugin_read_memory_vaddr ? 4
                          : qemu_plugin_scoreboard_new    ? 2
                                                          : 1;
}

/* Copy the first `length` bytes of an instruction's machine code. */
static inline void copy_insn(const qemu_info_t *info, const struct qemu_plugin_insn *insn, void *to, size_t length) {
    if (info->version.cur >= 3) {
        copy_insn_data(insn, to, length);
    } else {
        memcpy(to, insn_data(insn), length);
    }
}

#endif
