// The peer Ice, both roles. Calls under way at once are asynchronous, as its manual recommends; a
// lone call is a plain one. Its settings are its own but for the largest message.

#include <Ice/Ice.h>

#include <condition_variable>

#include "Null.h"
#include "bench.hpp"

namespace {

class Servant : public peer::Null {
   public:
    long long call(long long n, const Ice::Current&) override { return n; }

    peer::Bytes echo(std::pair<const Ice::Byte*, const Ice::Byte*> data,
                     const Ice::Current&) override {
        return peer::Bytes(data.first, data.second);
    }
};

std::shared_ptr<Ice::Communicator> communicator() {
    Ice::InitializationData data;
    data.properties = Ice::createProperties();
    data.properties->setProperty("Ice.MessageSizeMax", "16384");
    return Ice::initialize(data);
}

void serve() {
    auto ice = communicator();
    auto adapter = ice->createObjectAdapterWithEndpoints("bench", "tcp -h 127.0.0.1 -p 0");
    adapter->add(std::make_shared<Servant>(), Ice::stringToIdentity("null"));
    adapter->activate();
    auto info = adapter->getEndpoints().at(0)->getInfo();
    auto tcp = std::dynamic_pointer_cast<Ice::TCPEndpointInfo>(info->underlying ? info->underlying : info);
    auto ip = std::dynamic_pointer_cast<Ice::IPEndpointInfo>(tcp ? std::shared_ptr<Ice::EndpointInfo>(tcp) : info);
    bench::serve_until_input_ends("127.0.0.1:" + std::to_string(ip->port));
    ice->destroy();
}

// Calls under way: each answer begins the next call.
class Load {
   public:
    Load(const bench::Options& options, std::vector<std::shared_ptr<peer::NullPrx>> proxies)
        : recorder(options),
          echo(options.text("--work") == "echo"),
          payload(bench::payload(options.number("--bytes", 0))),
          proxies(std::move(proxies)) {}

    void run(std::uint64_t outstanding) {
        under_way = outstanding * proxies.size();
        for (auto& proxy : proxies) {
            for (std::uint64_t n = 0; n < outstanding; ++n) {
                begin(proxy, n);
            }
        }
        std::unique_lock<std::mutex> lock(mutex);
        done.wait(lock, [this] { return under_way == 0; });
        if (!failure.empty()) {
            throw std::runtime_error(failure);
        }
        recorder.print();
    }

   private:
    void begin(const std::shared_ptr<peer::NullPrx>& proxy, std::uint64_t n) {
        auto begun = recorder.begin();
        auto failed = [this](std::exception_ptr error) {
            try {
                std::rethrow_exception(error);
            } catch (const std::exception& known) {
                end(known.what());
            }
        };
        if (echo) {
            auto ended = [this, proxy, n, begun](peer::Bytes answer) {
                next(proxy, n, begun, [&] { bench::compare(payload, answer.data(), answer.size()); });
            };
            proxy->echoAsync({payload.data(), payload.data() + payload.size()}, ended, failed);
        } else {
            auto ended = [this, proxy, n, begun](long long answer) {
                next(proxy, n, begun, [&] { bench::compare(n, static_cast<std::uint64_t>(answer)); });
            };
            proxy->callAsync(static_cast<long long>(n), ended, failed);
        }
    }

    void next(const std::shared_ptr<peer::NullPrx>& proxy, std::uint64_t n,
              std::optional<bench::Clock::time_point> begun, const std::function<void()>& check) {
        try {
            check();
            if (recorder.end(begun)) {
                begin(proxy, n + 1);
                return;
            }
            end("");
        } catch (const std::exception& error) {
            end(error.what());
        }
    }

    void end(const std::string& error) {
        std::lock_guard<std::mutex> guard(mutex);
        if (!error.empty()) {
            failure = error;
        }
        --under_way;
        done.notify_one();
    }

    bench::Recorder recorder;
    bool echo;
    std::vector<unsigned char> payload;
    std::vector<std::shared_ptr<peer::NullPrx>> proxies;
    std::mutex mutex;
    std::condition_variable done;
    std::uint64_t under_way = 0;
    std::string failure;
};

void drive(const bench::Options& options) {
    auto ice = communicator();
    auto address = options.text("--address");
    auto colon = address.rfind(':');
    auto base = ice->stringToProxy("null:tcp -h " + address.substr(0, colon) + " -p " +
                                   address.substr(colon + 1));
    // A connection for each id.
    auto connect = [&](std::uint64_t id) {
        auto proxy = base->ice_connectionId(std::to_string(id));
        return Ice::uncheckedCast<peer::NullPrx>(proxy);
    };
    auto connections = options.number("--connections", 1);
    auto outstanding = options.number("--outstanding", 1);
    auto work = options.text("--work");
    if (work == "connect") {
        bench::Recorder recorder(options);
        bench::call_from_threads(1, recorder, [&](std::uint64_t n) {
            auto proxy = connect(n);
            bench::compare(n, static_cast<std::uint64_t>(proxy->call(static_cast<long long>(n))));
            proxy->ice_getConnection()->close(Ice::ConnectionClose::GracefullyWithWait);
        });
        recorder.print();
    } else if (work == "null" && connections * outstanding == 1) {
        bench::Recorder recorder(options);
        auto proxy = connect(0);
        bench::call_from_threads(1, recorder, [&](std::uint64_t n) {
            bench::compare(n, static_cast<std::uint64_t>(proxy->call(static_cast<long long>(n))));
        });
        recorder.print();
    } else {
        std::vector<std::shared_ptr<peer::NullPrx>> proxies;
        for (std::uint64_t id = 0; id < connections; ++id) {
            proxies.push_back(connect(id));
        }
        Load(options, proxies).run(outstanding);
    }
    ice->destroy();
}

}  // namespace

int main(int count, char** arguments) { return bench::run(count, arguments, serve, drive); }
