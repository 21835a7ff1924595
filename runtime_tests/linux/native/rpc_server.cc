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
#include "rpc_session.h"

#include <arpa/inet.h>
#include <sys/stat.h>

namespace {

using namespace thumbnet;

struct Options {
    std::string key, folder;
    std::vector<std::string> libraries;
};

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
            accepted = Accept(client, options.key, "thumbnet", &milliseconds);
        } catch (const std::exception &error) {
            std::fprintf(stderr, "handshake: %s\n", error.what());
        }
        if (!accepted) {
            close(client);
        } else if (!RunSession(client, options.folder, options.libraries, milliseconds, STDIN_FILENO)) {
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
