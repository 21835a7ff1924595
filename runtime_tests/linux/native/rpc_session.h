/* One connection of a TVM RPC server: the handshake, and the process that serves it. */
#ifndef THUMBNET_RPC_SESSION_H
#define THUMBNET_RPC_SESSION_H

#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fcntl.h>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace thumbnet {

// tvm/rpc/base.py
constexpr int32_t kRpcMagic = 0xFF271;
constexpr int32_t kRpcMismatch = kRpcMagic + 2;
constexpr int32_t kLongestGreeting = 1 << 10;

constexpr int kHandshakeSeconds = 5;

inline void SendAll(int socket, const void *data, size_t size) {
    const char *next = static_cast<const char *>(data);
    while (size > 0) {
        ssize_t sent = send(socket, next, size, MSG_NOSIGNAL);
        if (sent <= 0) {
            if (sent < 0 && errno == EINTR) {
                continue;
            }
            throw std::runtime_error("connection lost while sending");
        }
        next += sent;
        size -= static_cast<size_t>(sent);
    }
}

inline void ReceiveAll(int socket, void *data, size_t size) {
    char *next = static_cast<char *>(data);
    while (size > 0) {
        ssize_t got = recv(socket, next, size, 0);
        if (got <= 0) {
            if (got < 0 && errno == EINTR) {
                continue;
            }
            throw std::runtime_error("connection lost while receiving");
        }
        next += got;
        size -= static_cast<size_t>(got);
    }
}

inline void SendNumber(int socket, int32_t number) { SendAll(socket, &number, sizeof(number)); }

inline int32_t ReceiveNumber(int socket) {
    int32_t number;
    ReceiveAll(socket, &number, sizeof(number));
    return number;
}

inline void SendText(int socket, const std::string &text) {
    SendNumber(socket, static_cast<int32_t>(text.size()));
    SendAll(socket, text.data(), text.size());
}

inline std::string ReceiveText(int socket, int32_t longest = kLongestGreeting) {
    int32_t size = ReceiveNumber(socket);
    if (size < 0 || size > longest) {
        throw std::runtime_error("a message has an impossible length");
    }
    std::string text(static_cast<size_t>(size), '\0');
    ReceiveAll(socket, text.data(), text.size());
    return text;
}

inline void LimitReceive(int socket, int seconds) {
    timeval limit = {seconds, 0};
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

/* Shakes hands with a client. Returns whether it showed the key; sets how long it may stay, -1 for ever. */
inline bool Accept(int client, const std::string &key, const std::string &own_name, int *milliseconds) {
    LimitReceive(client, kHandshakeSeconds);
    if (ReceiveNumber(client) != kRpcMagic) {
        return false;
    }
    std::string shown = ReceiveText(client); // "client:KEY[ -timeout=SECONDS]"
    size_t end = shown.find(' ');
    if (shown.substr(0, end) != "client:" + key) {
        SendNumber(client, kRpcMismatch);
        return false;
    }
    *milliseconds = -1;
    size_t option = shown.find("-timeout=");
    if (option != std::string::npos) {
        *milliseconds = static_cast<int>(std::strtod(shown.c_str() + option + 9, nullptr) * 1000);
    }
    SendNumber(client, kRpcMagic);
    SendText(client, "server:" + own_name);
    LimitReceive(client, 0);
    int on = 1;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return true;
}

inline void LoadLibraries(const std::vector<std::string> &libraries) {
    for (const std::string &library : libraries) {
        if (!dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL)) {
            throw std::runtime_error(dlerror());
        }
    }
}

/* What one connection may do. Runs in a process of its own, which it ends. */
[[noreturn]] inline void Serve(int client, const std::vector<std::string> &libraries, const std::string &work_folder) {
    using tvm::ffi::Function;
    int status = 1;
    try {
        LoadLibraries(libraries);
        auto place = [work_folder](const std::string &name) { return work_folder + "/" + name; };
        Function::SetGlobal("tvm.rpc.server.workpath", Function::FromTyped(place), true);
        auto load = [place](const std::string &name) { return tvm::ffi::Module::LoadFromFile(place(name)); };
        Function::SetGlobal("tvm.rpc.server.load_module", Function::FromTyped(load), true);
        Function::GetGlobalRequired("rpc.ServerLoop")(static_cast<int64_t>(client));
        status = 0;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "session: %s\n", error.what());
    }
    std::fflush(nullptr);
    _exit(status); // no destructors: libraries that were loaded may be gone before the functions they registered
}

/* Waits until the connection's process ends, its time is over, or there is something to read from the file `stop`,
 * where that isn't negative. Returns false for the last. */
inline bool Await(pid_t process, int end_of_process, int milliseconds, int stop) {
    pollfd watched[2] = {{stop, POLLIN, 0}, {end_of_process, POLLIN, 0}};
    int ready;
    do {
        ready = poll(watched, 2, milliseconds);
    } while (ready < 0 && errno == EINTR);
    if (ready == 0) {
        std::fprintf(stderr, "session: ended after its %d ms\n", milliseconds);
    }
    if (watched[1].revents == 0) {
        kill(process, SIGKILL);
    }
    int status = 0;
    while (waitpid(process, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) {
        std::fprintf(stderr, "session: signal %d, %s\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
    }
    return watched[0].revents == 0;
}

/* Serves one client that has shaken hands, with uploads in a folder of its own inside `folder`. Returns whether to go
 * on, see `Await`. */
inline bool RunSession(int client, const std::string &folder, const std::vector<std::string> &libraries,
                       int milliseconds, int stop) {
    std::string work_folder = folder + "/session-XXXXXX";
    int ends[2];
    if (!mkdtemp(work_folder.data()) || pipe2(ends, O_CLOEXEC) != 0) {
        throw std::runtime_error("no room for a session in " + folder);
    }
    std::fflush(nullptr);
    pid_t process = fork();
    if (process < 0) {
        throw std::runtime_error("can't fork");
    }
    if (process == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]); // ends[1] stays open until this process is gone, which the parent sees
        Serve(client, libraries, work_folder);
    }
    close(ends[1]);
    close(client);
    bool go_on = Await(process, ends[0], milliseconds, stop);
    close(ends[0]);
    std::error_code ignored;
    std::filesystem::remove_all(work_folder, ignored);
    return go_on;
}

} // namespace thumbnet

#endif
