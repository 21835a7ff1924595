/* Measures networks from inside the process that runs them; loaded into a TVM RPC server, on the board or emulated.
 *
 * Where the environment variable THUMBNET_INSTRUCTION_COUNTER names a file, its first eight bytes are the number of
 * instructions executed so far (an emulator's plugin adds them up), and TVM's timer of the processor is replaced by one
 * that reads it: time evaluators then return executed instructions, as if each took a nanosecond. Elsewhere the timer
 * is TVM's own and costs are nanoseconds.
 *
 * Global functions:
 *     thumbnet.cost_unit()        -> "instructions" or "nanoseconds"
 *     thumbnet.nothing(...)       does nothing: what is measured for it is the overhead of measuring
 *     thumbnet.hwcap()            -> what the kernel says of the processor's instructions, AT_HWCAP
 *     thumbnet.heap_bytes()       -> bytes in use on the heap, -1 where the C library can't tell
 *     thumbnet.profile_calls()    -> instrument for a Relax VM, through vm.set_instrument("thumbnet.profile_calls")
 *     thumbnet.profile_nothing()  -> no instrument
 *     thumbnet.take_profile()     -> the calls since the last time, a line each in order of their end:
 *                                    depth, cost, bytes of storage it allocates, the number under which its blocks are
 *                                    recorded, name; separated by tabs. The first
 *                                    line is the overhead contained in each cost, under the name "overhead".
 */
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/memory.h>
#include <tvm/ffi/object.h>
#include <tvm/ffi/reflection/registry.h>

#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using tvm::ffi::AnyView;
using tvm::ffi::Function;
using tvm::ffi::PackedArgs;

const volatile uint64_t *counter = nullptr;

/* The start of the profile of executed blocks that an emulator's plugin keeps (profile_blocks.c): what it records while
 * `measuring` is 1 stands under the number `calls`. */
struct BlockProfile {
    uint64_t measuring, calls;
};
volatile BlockProfile *profile = nullptr;

void BeginRecording() {
    if (profile) {
        profile->calls = profile->calls + 1;
        profile->measuring = 1;
    }
}

void EndRecording() {
    if (profile) {
        profile->measuring = 0;
    }
}

int64_t ReadCost() {
    if (counter) {
        return static_cast<int64_t>(*counter);
    }
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* tvm/runtime/timer.h's class, whose own header needs one that TVM's package leaves out. The runtime calls it through
 * its table of virtual functions: their order is the interface. */
class TimerNode : public tvm::ffi::Object {
  public:
    virtual void Start() = 0;
    virtual void Stop() = 0;
    virtual int64_t SyncAndGetElapsedNanos() = 0;
    virtual ~TimerNode() {}
    static constexpr const bool _type_mutable = true;
    TVM_FFI_DECLARE_OBJECT_INFO("runtime.TimerNode", TimerNode, tvm::ffi::Object);
};

class InstructionTimerNode final : public TimerNode {
  public:
    void Start() final {
        BeginRecording();
        start_ = ReadCost();
    }
    void Stop() final {
        stop_ = ReadCost();
        EndRecording();
    }
    int64_t SyncAndGetElapsedNanos() final { return stop_ - start_; }
    TVM_FFI_DECLARE_OBJECT_INFO_FINAL("thumbnet.InstructionTimer", InstructionTimerNode, TimerNode);

  private:
    int64_t start_ = 0, stop_ = 0;
};

struct Call {
    int depth;
    int64_t start, cost, storage_bytes, recorded;
    std::string name;
};

std::vector<Call> open_calls, calls;

/* The Relax VM calls it around each of its calls with (function, name, before_run, result, arguments...). */
void Instrument(PackedArgs args, tvm::ffi::Any *) {
    int64_t now = ReadCost();
    EndRecording();
    if (args[2].cast<bool>()) {
        Call call{static_cast<int>(open_calls.size()), 0, 0, 0, -1, args[1].cast<std::string>()};
        if (call.name == "vm.builtin.alloc_storage") { // (context, shape in bytes, ...)
            call.storage_bytes = args[5].cast<tvm::ffi::Shape>().Product();
        }
        open_calls.push_back(std::move(call));
        BeginRecording();
        open_calls.back().recorded = profile ? static_cast<int64_t>(profile->calls) - 1 : -1;
        open_calls.back().start = ReadCost();
    } else if (!open_calls.empty()) {
        open_calls.back().cost = now - open_calls.back().start;
        calls.push_back(std::move(open_calls.back()));
        open_calls.pop_back();
    }
}

/* The cost that the instrument finds between two calls of itself with nothing in between. */
int64_t MeasureOverhead() {
    Function instrument = Function::FromPacked(Instrument);
    std::vector<Call> kept;
    kept.swap(calls);
    std::string name = "overhead";
    int64_t least = INT64_MAX;
    for (int i = 0; i < 3; i++) {
        AnyView before[4] = {instrument, name, true, nullptr}, after[4] = {instrument, name, false, nullptr};
        tvm::ffi::Any result;
        instrument.CallPacked(before, 4, &result);
        instrument.CallPacked(after, 4, &result);
        if (calls.back().cost < least) {
            least = calls.back().cost;
        }
    }
    calls.swap(kept);
    return least;
}

std::string TakeProfile() {
    std::string text;
    auto add = [&text](int depth, int64_t cost, int64_t bytes, int64_t recorded, const std::string &name) {
        for (int64_t number : {int64_t{depth}, cost, bytes, recorded}) {
            text += std::to_string(number) + "\t";
        }
        text += name + "\n";
    };
    open_calls.clear();
    add(0, MeasureOverhead(), 0, -1, "overhead");
    for (const Call &call : calls) {
        add(call.depth, call.cost, call.storage_bytes, call.recorded, call.name);
    }
    calls.clear();
    return text;
}

int64_t HeapBytes() {
    // By name: boards with a C library older than glibc 2.33 don't have it, and can still run everything else.
    using MallInfo = struct mallinfo2 (*)();
    auto mallinfo = reinterpret_cast<MallInfo>(dlsym(RTLD_DEFAULT, "mallinfo2"));
    if (!mallinfo) {
        return -1;
    }
    struct mallinfo2 info = mallinfo();
    return static_cast<int64_t>(info.uordblks + info.hblkhd);
}

/* Map the beginning of the file that an environment variable names; null where it names none. */
template <typename T> volatile T *MapShared(const char *variable) {
    const char *path = std::getenv(variable);
    if (!path) {
        return nullptr;
    }
    int file = open(path, O_RDWR | O_CLOEXEC);
    void *memory = file < 0 ? MAP_FAILED : mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) {
        std::perror(path);
        std::abort(); // better than to report nanoseconds of an emulator as instructions
    }
    close(file);
    return static_cast<volatile T *>(memory);
}

TVM_FFI_STATIC_INIT_BLOCK() {
    counter = MapShared<uint64_t>("THUMBNET_INSTRUCTION_COUNTER");
    profile = MapShared<BlockProfile>("THUMBNET_BLOCK_PROFILE");
    if (counter) {
        Function::SetGlobal("runtime.timer.cpu", Function::FromPacked([](PackedArgs, tvm::ffi::Any *timer) {
                                *timer = tvm::ffi::ObjectRef(tvm::ffi::make_object<InstructionTimerNode>());
                            }),
                            true);
    }
    Function::SetGlobal("thumbnet.cost_unit",
                        Function::FromTyped([]() { return std::string(counter ? "instructions" : "nanoseconds"); }),
                        true);
    Function::SetGlobal("thumbnet.nothing", Function::FromPacked([](PackedArgs, tvm::ffi::Any *) {}), true);
    Function::SetGlobal("thumbnet.hwcap",
                        Function::FromTyped([]() { return static_cast<int64_t>(getauxval(AT_HWCAP)); }), true);
    Function::SetGlobal("thumbnet.heap_bytes", Function::FromTyped(HeapBytes), true);
    Function::SetGlobal("thumbnet.profile_calls",
                        Function::FromTyped([]() { return Function::FromPacked(Instrument); }), true);
    Function::SetGlobal("thumbnet.profile_nothing", Function::FromTyped([]() { return Function(nullptr); }), true);
    Function::SetGlobal("thumbnet.take_profile", Function::FromTyped(TakeProfile), true);
}

} // namespace
