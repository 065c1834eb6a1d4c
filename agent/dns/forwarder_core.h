#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "dns/client_stream.h"
#include "dns/exchange.h"
#include "dns/forwarder.h"

namespace egressd::dns {

// Where an answer goes.
struct ForwardedWay {
  std::size_t listener = 0;
  std::uint64_t stream = 0;  // 0: by UDP, to `peer`
  sockaddr_storage peer{};
};

struct ForwardedQuestion {
  ForwardedWay way;
  Query query;
  Forwarder::Asked asked;
  BootTime began{0};
  std::string repeats;             // key of repeated_
  std::deque<std::size_t> to_ask;  // servers
  std::unordered_set<std::size_t> was_silent;
  EventLoop::TimerId next = 0;  // asks another before the one meant has had its time
  Message last_answer;          // no record, passed on if nobody knows better
  std::size_t last_server = 0;
  bool learning = false;
  BootTime held_since{0};  // while it is
  Forwarder::Finished finished;
  Message answer;  // while it is learned from
  EventLoop::TimerId timer = 0;
  std::unordered_map<std::size_t, std::unique_ptr<Exchange>> exchanges;  // by server
};

// Private to the forwarder: forwarder.cpp holds what becomes of a question, forwarder_listen.cpp
// how questions come and replies go.
class ForwarderCore final : public Forwarder {
 public:
  ForwarderCore(EventLoop& loop, Options options, Callbacks callbacks)
      : loop_(loop), options_(std::move(options)), callbacks_(std::move(callbacks)) {}
  ~ForwarderCore() override;
  ForwarderCore(const ForwarderCore&) = delete;
  ForwarderCore& operator=(const ForwarderCore&) = delete;

  Result<void> open();
  [[nodiscard]] const std::vector<Port>& ports() const override { return ports_; }
  [[nodiscard]] const Counters& counters() const override { return counters_; }
  [[nodiscard]] std::size_t under_way() const override { return pending_.size(); }

 private:
  using Way = ForwardedWay;
  using Pending = ForwardedQuestion;
  struct Listener {
    UniqueFd udp;
    UniqueFd tcp;
    std::uint64_t cookie = 0;  // of `udp`
    BootTime silent_until{0};  // the server behind it
    std::uint32_t wrong = 0;   // answers it cannot have given
    BootTime guessed_until{0};
  };
  struct Stream {
    std::shared_ptr<ClientStream> stream;
    Client client;
  };

  Result<UniqueFd> listen_on(const Server& server, int type, std::uint16_t& port);
  void identify(Client& client, std::size_t listener) const;
  void read_datagrams(std::size_t listener);
  void accept_connections(std::size_t listener);
  void on_message(std::span<const std::uint8_t> message, Client client, const Way& way);
  std::vector<std::size_t> servers_for(std::size_t listener) const;
  void ask_next(std::uint64_t number);
  void on_outcome(std::uint64_t number, std::size_t server, Exchange::Outcome outcome);
  void on_answer(std::uint64_t number, std::size_t server, Message message);
  void no_more(std::uint64_t number);
  void on_learned(std::uint64_t number, const Result<void>& result);
  void deliver(std::uint64_t number);
  void fail(std::uint64_t number, Finished::How how, std::optional<ExtendedError> why);
  void tell(const Asked& asked, Finished::How how, Rcode rcode, std::size_t size);
  void conclude(std::uint64_t number, const Message& reply);
  void send(const Way& way, const Client& client, const Message& message);
  static void give_back(std::unordered_map<std::uint64_t, std::size_t>& counts, std::uint64_t key);

  EventLoop& loop_;
  Options options_;
  Callbacks callbacks_;
  SystemClock clock_;
  Counters counters_;
  std::vector<Listener> listeners_;  // as options_.servers
  std::vector<Port> ports_;
  std::uint64_t next_ = 1;
  std::unordered_map<std::uint64_t, std::unique_ptr<Pending>> pending_;
  std::unordered_set<std::string> repeated_;  // questions under way by UDP
  std::unordered_map<std::uint64_t, std::size_t> questions_of_;
  std::unordered_map<std::uint64_t, Stream> streams_;
  std::shared_ptr<ClientStream::Budget> unsent_ = std::make_shared<ClientStream::Budget>();
  std::unordered_map<std::uint64_t, std::size_t> connections_of_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace egressd::dns
