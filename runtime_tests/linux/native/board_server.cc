/* The TVM RPC server of a kit that is copied to a board.
 *
 *     thumbnet_board_server --tracker HOST:PORT --key KEY --folder FOLDER [--port PORT] [--load LIBRARY]...
 *     thumbnet_board_server --check [--load LIBRARY]...
 *
 * It registers on the tracker under KEY and listens on PORT, or a free one, of the one address of the board that the
 * tracker is reached from. It serves one connection at a time, each in a process of its own, so that a network that
 * crashes takes only its own connection with it. Uploads go to a folder inside FOLDER that is removed with the
 * connection. A tracker that isn't there, or goes away, is tried again until it is back.
 *
 * With --check it only loads the libraries: whether everything it needs is on this board.
 *
 * TVM RPC has no authentication and runs what it is sent: whoever reaches the tracker, or the board's port with the
 * tracker's random key, owns what this process may do.
 */
#include "rpc_session.h"

#include <netdb.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <memory>

namespace {

using namespace thumbnet;

// tvm/rpc/base.py
constexpr int32_t kTrackerMagic = 0x2F271;
constexpr int kTrackerPut = 3;
constexpr int kTrackerUpdateInfo = 5;
constexpr int kTrackerPendingKeys = 7;
constexpr int32_t kLongestAnswer = 1 << 20;

constexpr int kPingMilliseconds = 2000;
constexpr int kTrackerAnswerSeconds = 10;
constexpr int kRetrySeconds = 5;
// A client that took the key has this many pings to connect; then the key is offered anew.
constexpr int kPingsToConnect = 3;

struct Options {
    std::string tracker_host, tracker_port, key, folder;
    int port = 0;
    std::vector<std::string> libraries;
};

/* Closes a file when it goes. */
class File {
  public:
    explicit File(int number) : number_(number) {}
    ~File() {
        if (number_ >= 0) {
            close(number_);
        }
    }
    File(const File &) = delete;
    File &operator=(const File &) = delete;
    int get() const { return number_; }

  private:
    int number_;
};

/* Notices within a minute that the other side lost power or network. */
void KeepAlive(int socket) {
    int on = 1, idle = 30, interval = 10, count = 3;
    setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

int Connect(const Options &options) {
    std::string place = options.tracker_host + ":" + options.tracker_port;
    addrinfo wanted = {}, *found = nullptr;
    wanted.ai_family = AF_INET;
    wanted.ai_socktype = SOCK_STREAM;
    if (int error = getaddrinfo(options.tracker_host.c_str(), options.tracker_port.c_str(), &wanted, &found)) {
        throw std::runtime_error("no tracker at " + place + " (" + gai_strerror(error) + ")");
    }
    std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
    int tracker = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(tracker, found->ai_addr, found->ai_addrlen) != 0) {
        std::string reason = std::strerror(errno);
        close(tracker);
        throw std::runtime_error("no tracker at " + place + " (" + reason + ")");
    }
    return tracker;
}

/* Listens on the address that a socket has on this side. */
int Listen(int beside, int *port) {
    sockaddr_in address = {};
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    getsockname(beside, reinterpret_cast<sockaddr *>(&address), &size);
    address.sin_port = htons(static_cast<uint16_t>(*port));
    if (bind(listener, reinterpret_cast<sockaddr *>(&address), size) != 0 || listen(listener, 8) != 0 ||
        getsockname(listener, reinterpret_cast<sockaddr *>(&address), &size) != 0) {
        std::string reason = std::strerror(errno);
        close(listener);
        throw std::runtime_error("can't listen on port " + std::to_string(*port) + " (" + reason + ")");
    }
    *port = ntohs(address.sin_port);
    return listener;
}

/* The server's side of the tracker's protocol (tvm/rpc/tracker.py): JSON behind a length. */
class Tracker {
  public:
    explicit Tracker(const Options &options) : key_(options.key), socket_(Connect(options)) {
        KeepAlive(socket());
        LimitReceive(socket(), kTrackerAnswerSeconds);
        SendNumber(socket(), kTrackerMagic);
        if (ReceiveNumber(socket()) != kTrackerMagic) {
            throw std::runtime_error("what listens at " + options.tracker_host + ":" + options.tracker_port +
                                     " is no TVM tracker");
        }
    }

    int socket() const { return socket_.get(); }

    /* Says which port this server listens on. */
    void Register(int port) {
        port_ = port;
        Call("[" + std::to_string(kTrackerUpdateInfo) + ", {\"key\": \"server:" + key_ + "\", \"addr\": [null, " +
             std::to_string(port_) + "]}]");
    }

    /* Offers this server to the tracker's clients and returns the key that the next client has to show. */
    std::string Offer() {
        uint64_t random[2];
        if (getrandom(random, sizeof(random), 0) != sizeof(random)) {
            throw std::runtime_error("no random numbers");
        }
        // The tracker expects one colon before the random part.
        std::string match = key_ + ":0." + std::to_string(random[0]) + std::to_string(random[1]);
        Call("[" + std::to_string(kTrackerPut) + ", \"" + key_ + "\", [" + std::to_string(port_) + ", \"" + match +
             "\"], null]");
        return match;
    }

    /* Returns whether no client has taken the key yet. */
    bool IsPending(const std::string &match) {
        return Call("[" + std::to_string(kTrackerPendingKeys) + "]").find(match) != std::string::npos;
    }

  private:
    std::string Call(const std::string &message) {
        SendText(socket(), message);
        return ReceiveText(socket(), kLongestAnswer);
    }

    std::string key_;
    File socket_;
    int port_ = 0;
};

/* Serves a client that has connected. Returns whether it was one that showed the key. */
bool ServeClient(int client, const Options &options, const std::string &match) {
    int milliseconds = -1;
    bool accepted = false;
    try {
        KeepAlive(client);
        accepted = Accept(client, match, options.key, &milliseconds);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "handshake: %s\n", error.what());
    }
    if (!accepted) {
        close(client);
        return false;
    }
    RunSession(client, options.folder, options.libraries, milliseconds, -1);
    return true;
}

/* Serves clients of a tracker until that goes away, which it throws. */
[[noreturn]] void ServeTracker(const Options &options, std::string *last_error) {
    Tracker tracker(options);
    int port = options.port;
    File listener(Listen(tracker.socket(), &port));
    tracker.Register(port);
    std::string match = tracker.Offer();
    std::printf("on the tracker as %s, listening on port %d\n", options.key.c_str(), port);
    std::fflush(stdout);
    last_error->clear();
    int unused_pings = 0;
    while (true) {
        pollfd watched[2] = {{tracker.socket(), POLLIN, 0}, {listener.get(), POLLIN, 0}};
        int ready = poll(watched, 2, kPingMilliseconds);
        if (ready < 0 && errno == EINTR) {
            continue;
        }
        if (watched[0].revents) { // it says nothing unasked
            throw std::runtime_error("the tracker went away");
        }
        bool offer = false;
        if (ready == 0) {
            unused_pings = tracker.IsPending(match) ? 0 : unused_pings + 1;
            offer = unused_pings > kPingsToConnect;
        } else {
            int client = accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC);
            offer = client >= 0 && ServeClient(client, options, match);
        }
        if (offer) {
            match = tracker.Offer();
            unused_pings = 0;
        }
    }
}

[[noreturn]] void RunServer(const Options &options) {
    std::string last_error;
    while (true) {
        try {
            ServeTracker(options, &last_error);
        } catch (const std::exception &error) {
            if (error.what() != last_error) { // once, however long it lasts
                std::fprintf(stderr, "server: %s; trying again every %d s\n", error.what(), kRetrySeconds);
                last_error = error.what();
            }
        }
        sleep(kRetrySeconds);
    }
}

bool IsPort(const std::string &text) {
    return !text.empty() && text.size() <= 5 && text.find_first_not_of("0123456789") == std::string::npos &&
           std::stoi(text) > 0 && std::stoi(text) < 1 << 16;
}

/* Takes an option. Returns false for one that isn't known or is malformed. */
bool ParseOption(const std::string &name, const std::string &value, Options *options) {
    if (name == "--tracker") {
        size_t colon = value.rfind(':');
        options->tracker_host = value.substr(0, colon);
        options->tracker_port = colon == std::string::npos ? "" : value.substr(colon + 1);
        return !options->tracker_host.empty() && IsPort(options->tracker_port);
    }
    if (name == "--key") {
        options->key = value; // goes into JSON as it is
        return !value.empty() && value.find_first_of("\"\\: ") == std::string::npos;
    }
    if (name == "--folder") {
        options->folder = value;
        return !value.empty();
    }
    if (name == "--port") {
        bool is_port = IsPort(value);
        options->port = is_port ? std::stoi(value) : 0;
        return is_port;
    }
    if (name == "--load") {
        options->libraries.push_back(value);
        return true;
    }
    return false;
}

} // namespace

int main(int argc, char **argv) {
    Options options;
    bool check = argc > 1 && std::string(argv[1]) == "--check";
    int first = check ? 2 : 1;
    bool valid = (argc - first) % 2 == 0;
    for (int i = first; valid && i + 1 < argc; i += 2) {
        if (!ParseOption(argv[i], argv[i + 1], &options)) {
            std::fprintf(stderr, "%s: %s is no value of it\n", argv[i], argv[i + 1]);
            return 2;
        }
    }
    if (!valid || (!check && (options.tracker_port.empty() || options.key.empty() || options.folder.empty()))) {
        std::fprintf(stderr,
                     "usage: %s --tracker HOST:PORT --key KEY --folder FOLDER [--port PORT] [--load LIBRARY]...\n",
                     argv[0]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    umask(077);
    if (check) {
        try {
            LoadLibraries(options.libraries);
        } catch (const std::exception &error) {
            std::fprintf(stderr, "%s\n", error.what());
            return 1;
        }
        return 0;
    }
    RunServer(options);
}
