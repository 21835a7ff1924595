"""The plugins in a program that has the functions of one version of QEMU's interface, and no others."""

import subprocess

import pytest

from thumbnet.runtime_tests import instruction_counter
from thumbnet.runtime_tests.cycles import block_profile

#: A QEMU of which nothing is there but one block of two instructions, translated once and executed three times.
HOST = r"""
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef void (*translate_t)(uint64_t, void *);
typedef void (*execute_t)(unsigned, void *);
static translate_t translate;
static struct { execute_t call; void *data; uint64_t *sum; } hooks[16];
static int hook_count;
static const uint8_t code[2][4] = {{0x00, 0xBF, 0x00, 0xBF}, {0x70, 0x47, 0, 0}};

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, translate_t cb) { (void)id; translate = cb; }
static void hook(execute_t call, void *data) { hooks[hook_count].call = call; hooks[hook_count++].data = data; }
void qemu_plugin_register_vcpu_tb_exec_cb(void *tb, execute_t cb, int flags, void *data) { hook(cb, data); }
void qemu_plugin_register_vcpu_insn_exec_cb(void *insn, execute_t cb, int flags, void *data) { hook(cb, data); }
void qemu_plugin_register_vcpu_mem_cb(void *insn, void *cb, int flags, int rw, void *data) {}
size_t qemu_plugin_tb_n_insns(const void *tb) { return 2; }
void *qemu_plugin_tb_get_insn(const void *tb, size_t i) { return (void *)code[i]; }
uint64_t qemu_plugin_insn_vaddr(const void *insn) { return 0x100 + 2 * (insn == code[1]); }
size_t qemu_plugin_insn_size(const void *insn) { return 2; }
unsigned qemu_plugin_mem_size_shift(uint32_t info) { return 2; }
bool qemu_plugin_mem_is_store(uint32_t info) { return false; }
#if API == 1
void qemu_plugin_register_vcpu_insn_exec_inline(void *insn, int op, void *sum, uint64_t imm) {
    hooks[hook_count++].sum = sum;
}
#endif
#if API >= 2
void qemu_plugin_scoreboard_new(void) {}
#endif
#if API >= 3
size_t qemu_plugin_insn_data(const void *insn, void *to, size_t n) { memcpy(to, insn, n); return n; }
#else
const void *qemu_plugin_insn_data(const void *insn) { return insn; }
#endif
#if API >= 4
void qemu_plugin_read_memory_vaddr(void) {}
#endif
#if API >= 5
void qemu_plugin_write_register(void) {}
#endif

int main(int count, char **arguments) {
    void *plugin = dlopen(arguments[1], RTLD_NOW);
    if (!plugin) {
        puts(dlerror());
        return 1;
    }
    struct { const char *name; int min, cur; } info = {"arm", API == 1 ? 0 : 2, API};
    int (*install)(uint64_t, void *, int, char **) =
        (int (*)(uint64_t, void *, int, char **))dlsym(plugin, "qemu_plugin_install");
    printf("%d\n", *(int *)dlsym(plugin, "qemu_plugin_version"));
    if (install(7, &info, count - 2, arguments + 2)) {
        return 2;
    }
    translate(7, NULL);
    for (int run = 0; run < 3; run++) {
        for (int i = 0; i < hook_count; i++) {
            if (hooks[i].sum) {
                ++*hooks[i].sum;
            } else {
                hooks[i].call(0, hooks[i].data);
            }
        }
    }
    return 0;
}
"""
#: Which version the plugin is to call itself, by that of QEMU: the 9.1 that is 3 still takes a 2.
VERSIONS = {1: 1, 2: 2, 3: 2, 4: 4, 5: 5}

pytestmark = pytest.mark.needs_tools("gcc")


@pytest.fixture(scope="module", params=VERSIONS)
def host(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("host")
    (folder / "host.c").write_text(HOST)
    command = ["gcc", f"-DAPI={request.param}", "-rdynamic", "-o", str(folder / "host"), str(folder / "host.c"), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return request.param, folder / "host"


def _run(host, options):
    version, program = host
    plugin, *arguments = options[1].split(",")
    done = subprocess.run([program, plugin, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{VERSIONS[version]}\n")


def test_instructions_are_counted_with_every_interface(host):
    counter = instruction_counter.InstructionCounter([0x102])
    try:
        _run(host, counter.qemu_options)
        assert counter.count == 6
        assert [place for place, _ in counter.read_marks()] == [0x102] * 3
    finally:
        counter.close()


def test_blocks_are_copied_with_every_interface(host):
    profile = block_profile.BlockProfile([0x100, 0x200])
    try:
        profile.start()
        _run(host, profile.qemu_options)
        (block, *_) = profile.stop()
        assert (block.address, block.code) == (0x100, bytes.fromhex("00BF7047"))
    finally:
        profile.close()
