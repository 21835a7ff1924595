/* A TVM RPC server for an emulated Linux board or this computer.
 *
 *     thumbnet_rpc_server --folder FOLDER [--load LIBRARY]...
 *
 * The first line of its standard input is the key that every client has to show. It listens on a free port of
 * 127.0.0.1, prints "listening on PORT", and serves one connection at a time, each in a process of its own, so that a
 * network that crashes takes only its own connection with it. Uploads go to a folder inside FOLDER that nobody else may
 * enter and that is removed with the connection. It ends when its standard input ends, so whoever started it takes it
 * along however he dies.
 *
 * TVM RPC runs what it is sent, and every user of the computer reaches its loopback address: hence the key, which is
 * random, on no command line, in no environment and on no tracker.
 *
 * While a connection is served the parent sleeps and executes nothing: an emulator's instruction counter, which sees
 * both processes, counts the connection's alone.
 */
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using tvm::ffi::Function;

// tvm/rpc/base.py
constexpr int32_t kRpcMagic = 0xFF271;
constexpr int32_t kRpcMismatch = kRpcMagic + 2;
constexpr int32_t kLongestMessage = 1 << 10;

constexpr int kHandshakeSeconds = 5;

struct Options {
    std::string key, folder;
    std::vector<std::string> libraries;
};

void SendAll(int socket, const void *data, size_t size) {
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

void ReceiveAll(int socket, void *data, size_t size) {
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

void SendNumber(int socket, int32_t number) { SendAll(socket, &number, sizeof(number)); }

int32_t ReceiveNumber(int socket) {
    int32_t number;
    ReceiveAll(socket, &number, sizeof(number));
    return number;
}

void SendText(int socket, const std::string &text) {
    SendNumber(socket, static_cast<int32_t>(text.size()));
    SendAll(socket, text.data(), text.size());
}

std::string ReceiveText(int socket) {
    int32_t size = ReceiveNumber(socket);
    if (size < 0 || size > kLongestMessage) {
        throw std::runtime_error("a message has an impossible length");
    }
    std::string text(static_cast<size_t>(size), '\0');
    ReceiveAll(socket, text.data(), text.size());
    return text;
}

void LimitReceive(int socket, int seconds) {
    timeval limit = {seconds, 0};
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

/* Reads a line byte by byte: what follows belongs to nobody, but its end has to be seen. */
std::string ReadLine(int file) {
    std::string line;
    char next = 0;
    ssize_t got;
    while ((got = read(file, &next, 1)) != 0 && next != '\n') {
        if (got < 0 && errno != EINTR) {
            throw std::runtime_error("can't read the key");
        }
        if (got > 0) {
            line += next;
        }
    }
    return line;
}

int Listen(int *port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    if (listener < 0 || bind(listener, reinterpret_cast<sockaddr *>(&address), size) != 0 || listen(listener, 8) != 0 ||
        getsockname(listener, reinterpret_cast<sockaddr *>(&address), &size) != 0) {
        throw std::runtime_error("can't listen on 127.0.0.1");
    }
    *port = ntohs(address.sin_port);
    return listener;
}

/* Shakes hands with a client. Returns whether it showed the key; sets how long it may stay, -1 for ever. */
bool Accept(int client, const std::string &key, int *milliseconds) {
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
    SendText(client, "server:thumbnet");
    LimitReceive(client, 0);
    int on = 1;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return true;
}

/* What one connection may do. Runs in a process of its own, which it ends. */
[[noreturn]] void Serve(int client, const Options &options, const std::string &work_folder) {
    int status = 1;
    try {
        for (const std::string &library : options.libraries) {
            if (!dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL)) {
                throw std::runtime_error(dlerror());
            }
        }
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

/* Waits until the connection's process ends, its time is over, or standard input ends. Returns false for the last. */
bool Await(pid_t process, int end_of_process, int milliseconds) {
    pollfd watched[2] = {{STDIN_FILENO, POLLIN, 0}, {end_of_process, POLLIN, 0}};
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

/* Serves one client that has shaken hands. Returns whether to go on. */
bool RunSession(int client, const Options &options, int milliseconds) {
    std::string work_folder = options.folder + "/session-XXXXXX";
    int ends[2];
    if (!mkdtemp(work_folder.data()) || pipe2(ends, O_CLOEXEC) != 0) {
        throw std::runtime_error("no room for a session in " + options.folder);
    }
    std::fflush(nullptr);
    pid_t process = fork();
    if (process < 0) {
        throw std::runtime_error("can't fork");
    }
    if (process == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]); // ends[1] stays open until this process is gone, which the parent sees
        Serve(client, options, work_folder);
    }
    close(ends[1]);
    close(client);
    bool go_on = Await(process, ends[0], milliseconds);
    close(ends[0]);
    std::error_code ignored;
    std::filesystem::remove_all(work_folder, ignored);
    return go_on;
}

void RunServer(const Options &options) {
    int port;
    int listener = Listen(&port);
    std::printf("listening on %d\n", port);
    std::fflush(stdout);
    while (true) {
        pollfd watched[2] = {{STDIN_FILENO, POLLIN, 0}, {listener, POLLIN, 0}};
        if (poll(watched, 2, -1) < 0) {
            continue;
        }
        if (watched[0].revents) { // it says nothing more: it is the end
            return;
        }
        int client = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
        if (client < 0) {
            continue;
        }
        int milliseconds = -1;
        bool accepted = false;
        try {
            accepted = Accept(client, options.key, &milliseconds);
        } catch (const std::exception &error) {
            std::fprintf(stderr, "handshake: %s\n", error.what());
        }
        if (!accepted) {
            close(client);
        } else if (!RunSession(client, options, milliseconds)) {
            return;
        }
    }
}

bool ParseOptions(int argc, char **argv, Options *options) {
    for (int i = 1; i + 1 < argc; i += 2) {
        std::string name = argv[i], value = argv[i + 1];
        if (name == "--folder") {
            options->folder = value;
        } else if (name == "--load") {
            options->libraries.push_back(value);
        } else {
            return false;
        }
    }
    return argc % 2 == 1 && !options->folder.empty();
}

} // namespace

int main(int argc, char **argv) {
    Options options;
    if (!ParseOptions(argc, argv, &options)) {
        std::fprintf(stderr, "usage: %s --folder FOLDER [--load LIBRARY]...\n", argv[0]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    umask(077);
    try {
        options.key = ReadLine(STDIN_FILENO);
        if (options.key.empty()) {
            throw std::runtime_error("no key on standard input");
        }
        RunServer(options);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "server: %s\n", error.what());
        return 1;
    }
    return 0;
}
