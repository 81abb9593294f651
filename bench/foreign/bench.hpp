// What the peers in C++ share: options, counting and timing of calls, and how figures are printed.
//
// It does what network/load.rs does for the peers in Rust, with the same options and the same
// output.

#pragma once

#include <sched.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace bench {

using Clock = std::chrono::steady_clock;

// One in so many calls is timed when several are under way. A prime: calls that take turns in the
// same order are then all timed, each in its turn.
constexpr std::uint64_t stride_of_many = 7;

struct Options {
    std::string role;
    std::map<std::string, std::string> values;

    Options(int count, char** arguments) {
        if (count < 2) {
            throw std::runtime_error("expected `serve` or `drive`");
        }
        role = arguments[1];
        for (int at = 2; at + 1 < count; at += 2) {
            values[arguments[at]] = arguments[at + 1];
        }
    }

    std::string text(const std::string& name) const {
        auto found = values.find(name);
        return found == values.end() ? std::string() : found->second;
    }

    std::uint64_t number(const std::string& name, std::uint64_t otherwise) const {
        auto found = values.find(name);
        return found == values.end() ? otherwise : std::stoull(found->second);
    }
};

// Keeps this process to the core of the option, if there is one.
inline void keep_to_core(const Options& options) {
    if (options.text("--core").empty()) {
        return;
    }
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(options.number("--core", 0), &cores);
    if (sched_setaffinity(0, sizeof cores, &cores) != 0) {
        throw std::runtime_error("cannot keep to core " + options.text("--core"));
    }
}

// Says where the server is, and returns when standard input ends.
inline void serve_until_input_ends(const std::string& address) {
    std::cout << "ready " << address << std::endl;
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
}

// Nanoseconds of processor time of the living threads of a process.
inline std::optional<std::uint64_t> cpu_ns(const std::string& pid) {
    std::uint64_t sum = 0;
    std::error_code error;
    std::filesystem::directory_iterator threads("/proc/" + pid + "/task", error);
    if (error) {
        return std::nullopt;
    }
    for (const auto& thread : threads) {
        std::ifstream file(thread.path() / "schedstat");
        std::uint64_t nanoseconds = 0;
        if (file >> nanoseconds) {
            sum += nanoseconds;
        }
    }
    return sum;
}

// What is sent by an echo.
inline std::vector<unsigned char> payload(std::size_t bytes) {
    std::vector<unsigned char> made(bytes);
    for (std::size_t at = 0; at < bytes; ++at) {
        made[at] = static_cast<unsigned char>(at);
    }
    return made;
}

// Fails if an answer is not what was sent: its length, and the bytes at both of its ends.
inline void compare(const std::vector<unsigned char>& sent, const unsigned char* answer,
                    std::size_t length) {
    if (length != sent.size() ||
        (length > 0 && (answer[0] != sent.front() || answer[length - 1] != sent.back()))) {
        throw std::runtime_error(std::to_string(sent.size()) + " bytes came back as " +
                                 std::to_string(length) + " others");
    }
}

inline void compare(std::uint64_t sent, std::uint64_t answer) {
    if (sent != answer) {
        throw std::runtime_error("asked " + std::to_string(sent) + ", answered " +
                                 std::to_string(answer));
    }
}

// Counts and times calls; may be used by several threads.
class Recorder {
   public:
    explicit Recorder(const Options& options)
        : warm_up(options.number("--warm-up-ms", 0)),
          measure(options.number("--measure-ms", 0)),
          server(options.text("--server-pid")) {
        bool alone = options.number("--connections", 1) * options.number("--outstanding", 1) == 1;
        bool large = options.text("--work") == "echo" && options.number("--bytes", 0) > 4096;
        stride = alone || large ? 1 : stride_of_many;
        since = Clock::now();
    }

    // Notes that a call begins; the time if this one is timed.
    std::optional<Clock::time_point> begin() {
        std::lock_guard<std::mutex> guard(mutex);
        if (begun++ % stride != 0) {
            return std::nullopt;
        }
        return Clock::now();
    }

    // Notes that a call has ended; false if no other shall follow.
    bool end(std::optional<Clock::time_point> call) {
        std::lock_guard<std::mutex> guard(mutex);
        if (phase == Phase::over) {
            return false;
        }
        ++ended;
        if (!call) {
            return true;
        }
        auto now = Clock::now();
        if (phase == Phase::warm_up) {
            if (now - since >= warm_up) {
                warm_up_calls = ended;
                ended = 0;
                client_cpu = cpu_ns(std::to_string(getpid()));
                server_cpu = server.empty() ? std::nullopt : cpu_ns(server);
                since = Clock::now();
                phase = Phase::measure;
            }
            return true;
        }
        auto took = std::chrono::duration_cast<std::chrono::nanoseconds>(now - *call).count();
        ++latencies[top_of_bucket(static_cast<std::uint64_t>(took))];
        if (now - since >= measure) {
            phase = Phase::over;
            seconds = std::chrono::duration<double>(now - since).count();
            client_cpu = used(client_cpu, cpu_ns(std::to_string(getpid())));
            server_cpu = used(server_cpu, server.empty() ? std::nullopt : cpu_ns(server));
            return false;
        }
        return true;
    }

    // Prints the figures as a line of JSON.
    void print() {
        std::lock_guard<std::mutex> guard(mutex);
        if (phase != Phase::over) {
            throw std::runtime_error("the load ended before its time");
        }
        std::cout << "{\"metrics\":{\"rate\":" << ended / seconds << ",\"p50_us\":" << quantile(0.5)
                  << ",\"p99_us\":" << quantile(0.99) << ",\"calls\":" << ended + warm_up_calls;
        if (client_cpu) {
            std::cout << ",\"client_cpu_us\":" << *client_cpu / 1e3 / ended;
        }
        if (server_cpu) {
            std::cout << ",\"server_cpu_us\":" << *server_cpu / 1e3 / ended;
        }
        std::cout << "},\"latencies_ns\":[";
        const char* between = "";
        for (const auto& [nanoseconds, count] : latencies) {
            std::cout << between << "[" << nanoseconds << "," << count << "]";
            between = ",";
        }
        std::cout << "]}" << std::endl;
    }

   private:
    enum class Phase { warm_up, measure, over };

    std::mutex mutex;
    std::chrono::milliseconds warm_up;
    std::chrono::milliseconds measure;
    std::string server;
    std::uint64_t stride = 1;
    std::uint64_t begun = 0;
    std::uint64_t ended = 0;
    std::uint64_t warm_up_calls = 0;
    Phase phase = Phase::warm_up;
    Clock::time_point since;
    double seconds = 0;
    std::optional<std::uint64_t> client_cpu;
    std::optional<std::uint64_t> server_cpu;
    std::map<std::uint64_t, std::uint64_t> latencies;

    static std::optional<std::uint64_t> used(std::optional<std::uint64_t> before,
                                             std::optional<std::uint64_t> now) {
        if (!before || !now) {
            return std::nullopt;
        }
        return *now > *before ? *now - *before : 0;
    }

    // Latencies are told apart to a five-hundredth.
    static std::uint64_t top_of_bucket(std::uint64_t nanoseconds) {
        int doublings = 0;
        while ((nanoseconds >> doublings) >= 1024) {
            ++doublings;
        }
        return (((nanoseconds >> doublings) + 1) << doublings) - 1;
    }

    double quantile(double share) const {
        std::uint64_t total = 0;
        for (const auto& [nanoseconds, count] : latencies) {
            total += count;
        }
        std::uint64_t seen = 0;
        for (const auto& [nanoseconds, count] : latencies) {
            seen += count;
            if (seen >= share * total) {
                return nanoseconds / 1e3;
            }
        }
        return 0;
    }
};

// Calls from so many threads, each until the recorder wants no more.
inline void call_from_threads(std::uint64_t threads, Recorder& recorder,
                              const std::function<void(std::uint64_t)>& call) {
    std::vector<std::thread> running;
    std::mutex mutex;
    std::string failure;
    for (std::uint64_t thread = 0; thread < threads; ++thread) {
        running.emplace_back([&, thread] {
            try {
                for (std::uint64_t n = thread;; n += threads) {
                    auto begun = recorder.begin();
                    call(n);
                    if (!recorder.end(begun)) {
                        return;
                    }
                }
            } catch (const std::exception& error) {
                std::lock_guard<std::mutex> guard(mutex);
                failure = error.what();
            }
        });
    }
    for (auto& thread : running) {
        thread.join();
    }
    if (!failure.empty()) {
        throw std::runtime_error(failure);
    }
}

// The whole program in one of its roles. A failure is said, and makes it fail.
inline int run(int count, char** arguments, const std::function<void()>& serve,
               const std::function<void(const Options&)>& drive) {
    try {
        Options options(count, arguments);
        keep_to_core(options);
        if (options.role == "serve") {
            serve();
        } else {
            drive(options);
        }
        return 0;
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << std::endl;
        return 1;
    }
}

}  // namespace bench
