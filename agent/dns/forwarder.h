#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "dns/answer.h"
#include "dns/query.h"
#include "net/endpoint.h"
#include "net/ip_address.h"

namespace egressd::dns {

// A DNS server on loopback that asks others what the policy lets be asked, and gives an answer
// away only when the addresses in it are reachable. It holds no cache: each question is judged, and
// each answer learned from.
//
//   client -> [parse] -> [judge] -> server asked -> [check] -> learn -> acknowledged -> client
//
// A name that is not allowed gets REFUSED at once, a question that is none FORMERR. What a server
// says is passed on as it came, failures too; without any answer, or if its addresses cannot be
// made reachable, the client gets SERVFAIL. Truncated answers go on without their records, so that
// the client asks again by TCP.
//
// Every server has a port of its own here: whoever meant that one gets its answer, and names that
// only it knows are found. Another one is asked only if it is silent or fails, and none that runs
// on this machine (Server::local): that might come back here with the same question. That there is
// no such name is believed of another one only when the one meant has had its time.
//
// A server in whose name ids are guessed is asked by TCP only for an hour.
class Forwarder {
 public:
  struct Server {
    net::IpAddress address;
    std::uint16_t port = 53;  // host byte order
    bool local = false;       // on this machine
  };
  struct Options {
    std::vector<Server> servers;
    std::uint32_t mark = 0;                    // SO_MARK of its own questions; 0: none
    std::chrono::milliseconds timeout{1500};   // for one server
    std::chrono::milliseconds deadline{5000};  // for all, and for learning
    std::chrono::milliseconds idle{10000};     // of a TCP connection
    std::size_t max_questions = 1024;          // under way
    std::size_t max_questions_of_client = 256;
    std::size_t max_connections = 256;  // TCP
    std::size_t max_connections_of_client = 64;
    std::size_t max_questions_of_connection = 64;  // more are read when these are answered
    std::size_t max_unsent = 256 << 10;            // bytes for one connection; likewise
    std::size_t max_unsent_of_all = 8 << 20;       // above, who does not take its answers is closed
  };

  // Who asks. `key` is what the bounds are counted by.
  struct Client {
    net::IpAddress address;
    std::uint16_t port = 0;  // host byte order
    net::Protocol protocol = net::Protocol::Udp;
    net::IpAddress server;  // meant by the client
    std::uint64_t key = 0;
    std::optional<std::uint32_t> uid = {};
    std::uint64_t cgroup_id = 0;  // 0: not known
  };
  struct Asked {
    Client client;
    std::string name;  // canonical; empty if it could not be read
    std::uint16_t type = 0;
    std::size_t size = 0;  // bytes of the question
  };
  enum class Judgement { Ask, Refuse };
  struct Finished {
    enum class How { Answered, Refused, Malformed, NoAnswer, NotLearned };
    How how = How::Answered;
    Rcode rcode = Rcode::NoError;  // what the client got
    std::vector<net::IpAddress> addresses;
    std::size_t size = 0;  // bytes of the answer
    std::chrono::nanoseconds took{0};
    net::IpAddress server;  // who answered
  };
  using Done = std::function<void(Result<void>)>;
  // They come from the loop, and must not destroy the Forwarder.
  struct Callbacks {
    // Fills in the last three of Client. Without it, every address is one client.
    std::function<void(Client&)> identify;
    std::function<Judgement(const Asked&)> judge;
    // Before a reply by UDP leaves from the socket with this cookie (SO_COOKIE). May be empty.
    std::function<void(std::uint64_t cookie, const Client&)> answering;
    // To make the addresses of an answer reachable; then `done`, at once or later (on the loop's
    // thread, also when the Forwarder is gone). Called for A and AAAA only, not without addresses.
    std::function<void(const Answer&, Done done)> learn;
    std::function<void(const Asked&, const Finished&)> finished;  // may be empty
  };

  struct Counters {
    std::uint64_t questions = 0;       // read, of whatever kind
    std::uint64_t answered = 0;        // as the server said
    std::uint64_t refused = 0;         // name or type not allowed
    std::uint64_t malformed = 0;       // answered with FORMERR, or not at all
    std::uint64_t truncated = 0;       // of those answered
    std::uint64_t no_answer = 0;       // SERVFAIL: no server said anything
    std::uint64_t bad_answer = 0;      // SERVFAIL: what the server said cannot be right
    std::uint64_t not_learned = 0;     // SERVFAIL: the addresses could not be made reachable
    std::uint64_t held = 0;            // answers that waited for their addresses
    std::uint64_t repeated = 0;        // dropped: the same is under way
    std::uint64_t dropped = 0;         // for want of room
    std::uint64_t dropped_client = 0;  // one client had too many under way
    std::uint64_t unsent = 0;          // answers the client was not there for
    std::uint64_t retries = 0;         // another server, or the same once more, was asked
    std::uint64_t connections = 0;     // TCP, accepted
    std::uint64_t connections_refused = 0;

    std::chrono::nanoseconds held_for{0};  // how long those held waited, together
  };

  struct Port {
    net::IpAddress server;   // for whom
    net::IpAddress address;  // 127.0.0.1 or ::1, as the server's family
    std::uint16_t udp = 0;   // host byte order
    std::uint16_t tcp = 0;
  };

  // An error names the address that cannot be listened on.
  static Result<std::unique_ptr<Forwarder>> create(EventLoop& loop, Options options,
                                                   Callbacks callbacks);
  virtual ~Forwarder() = default;

  [[nodiscard]] virtual const std::vector<Port>& ports() const = 0;
  [[nodiscard]] virtual const Counters& counters() const = 0;
  [[nodiscard]] virtual std::size_t under_way() const = 0;
};

}  // namespace egressd::dns
