// The peer omniORB, both roles. It has no asynchronous calls: so many threads make plain ones, over
// as many connections as are asked for.

#include "Null.hh"
#include "bench.hpp"

namespace {

// Does something, and throws what the standard knows where it throws what CORBA knows: nobody else
// would catch that, least of all in a thread of its own.
void plainly(const std::function<void()>& work) {
    try {
        work();
    } catch (const CORBA::Exception& error) {
        throw std::runtime_error(error._name());
    }
}

class Servant : public POA_peer::Null {
   public:
    CORBA::ULongLong call(CORBA::ULongLong n) override { return n; }

    peer::Bytes* echo(const peer::Bytes& data) override { return new peer::Bytes(data); }
};

CORBA::ORB_var orb(std::uint64_t connections) {
    int count = 0;
    char** arguments = nullptr;
    auto most = std::to_string(connections);
    const char* options[][2] = {
        {"endPoint", "giop:tcp:127.0.0.1:0"},
        {"giopMaxMsgSize", "16777216"},
        {"oneCallPerConnection", "0"},
        {"maxGIOPConnectionPerServer", most.c_str()},
        {"maxServerThreadPerConnection", "1100"},
        {nullptr, nullptr},
    };
    return CORBA::ORB_init(count, arguments, "omniORB4", options);
}

void serve() {
    auto broker = orb(1);
    CORBA::Object_var object = broker->resolve_initial_references("RootPOA");
    PortableServer::POA_var poa = PortableServer::POA::_narrow(object);
    PortableServer::Servant_var<Servant> servant = new Servant();
    PortableServer::ObjectId_var id = poa->activate_object(servant);
    peer::Null_var reference = servant->_this();
    CORBA::String_var address = broker->object_to_string(reference);
    poa->the_POAManager()->activate();
    bench::serve_until_input_ends(std::string(address));
    broker->destroy();
}

void drive(const bench::Options& options) {
    auto connections = options.number("--connections", 1);
    auto broker = orb(connections);
    CORBA::Object_var object = broker->string_to_object(options.text("--address").c_str());
    peer::Null_var null = peer::Null::_narrow(object);
    auto payload = bench::payload(options.number("--bytes", 0));
    auto size = static_cast<CORBA::ULong>(payload.size());
    const peer::Bytes bytes(size, size, payload.data(), false);
    bool echo = options.text("--work") == "echo";
    bench::Recorder recorder(options);
    auto threads = connections * options.number("--outstanding", 1);
    auto call = [&](std::uint64_t n) {
        if (echo) {
            peer::Bytes_var answer = null->echo(bytes);
            bench::compare(payload, answer->get_buffer(), answer->length());
        } else {
            bench::compare(n, null->call(n));
        }
    };
    bench::call_from_threads(threads, recorder, [&](std::uint64_t n) { plainly([&] { call(n); }); });
    recorder.print();
    broker->destroy();
}

}  // namespace

int main(int count, char** arguments) {
    return bench::run(
        count, arguments, [] { plainly(serve); },
        [](const bench::Options& options) { plainly([&] { drive(options); }); });
}
