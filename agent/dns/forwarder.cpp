#include "dns/forwarder.h"

#include <netinet/in.h>

#include <algorithm>
#include <string_view>

#include "dns/forwarder_core.h"

namespace egressd::dns {
namespace {

constexpr std::size_t kServersPerQuestion = 3;
// So long after a server kept silent, who means it waits only a moment until another is asked too.
constexpr std::chrono::seconds kAvoidSilent{5};
constexpr std::chrono::milliseconds kMoment{300};
// So long a server is asked by TCP only: eight guesses in an hour at one id of 65536 lead nowhere.
constexpr std::chrono::hours kGuessed{1};
constexpr std::uint16_t kClassIn = 1;

// There is no such name, or nothing of that type: others may know better.
bool says_no(const Message& answer) {
  const Rcode rcode = rcode_of(answer);
  return rcode == Rcode::NxDomain ||
         (rcode == Rcode::NoError && answer[6] == 0 && answer[7] == 0 && !is_truncated(answer));
}

}  // namespace

void ForwarderCore::on_message(std::span<const std::uint8_t> message, Client client,
                               const Way& way) {
  ++counters_.questions;
  const bool tcp = way.stream != 0;
  if (!tcp) identify(client, way.listener);
  Asked asked{client, "", 0, message.size()};
  auto query = parse_query(message);
  if (!query) {
    ++counters_.malformed;
    if (tcp || !query.error().reply.empty()) send(way, client, query.error().reply);
    tell(asked, Finished::How::Malformed, Rcode::FormErr, query.error().reply.size());
    return;
  }
  asked.name = query->question.name;
  asked.type = query->question.type;
  // Who asks over and over is not heard twice; who floods is told nothing.
  std::string repeats;
  if (!tcp) {
    const std::string_view peer(reinterpret_cast<const char*>(&way.peer), sizeof(sockaddr_in6));
    repeats.append(peer).append(reinterpret_cast<const char*>(message.data()), message.size());
    if (repeated_.contains(repeats)) {
      ++counters_.repeated;
      return;
    }
  }
  const auto of_client = questions_of_.find(client.key);
  const bool client_full =
      of_client != questions_of_.end() && of_client->second >= options_.max_questions_of_client;
  if (client_full || pending_.size() >= options_.max_questions) {
    ++(client_full ? counters_.dropped_client : counters_.dropped);
    if (tcp) send(way, client, empty_reply(*query, Rcode::ServFail));
    return;
  }
  if (query->question_class != kClassIn || callbacks_.judge(asked) == Judgement::Refuse) {
    ++counters_.refused;
    const Message reply = empty_reply(*query, Rcode::Refused, ExtendedError::Prohibited);
    send(way, client, reply);
    tell(asked, Finished::How::Refused, Rcode::Refused, reply.size());
    return;
  }

  auto pending = std::make_unique<Pending>();
  pending->way = way;
  pending->query = std::move(*query);
  pending->asked = std::move(asked);
  pending->began = clock_.now();
  pending->repeats = std::move(repeats);
  for (const std::size_t server : servers_for(way.listener)) pending->to_ask.push_back(server);
  if (!tcp) repeated_.insert(pending->repeats);
  ++questions_of_[client.key];
  const std::uint64_t number = next_++;
  const bool was_silent = listeners_[way.listener].silent_until > clock_.now();
  Pending& asking = *pending_.emplace(number, std::move(pending)).first->second;
  if (was_silent)
    asking.next = loop_.after(std::min(kMoment, options_.timeout), [this, number] {
      Pending& waits = *pending_.at(number);
      waits.next = 0;
      if (!waits.to_ask.empty()) ++counters_.retries;
      ask_next(number);
    });
  ask_next(number);
}

std::vector<std::size_t> ForwarderCore::servers_for(std::size_t listener) const {
  std::vector<std::size_t> servers{listener};  // it alone may know what it is meant for
  std::vector<std::size_t> silent;
  const BootTime now = clock_.now();
  const auto add = [&](std::size_t i) {
    (listeners_[i].silent_until <= now ? servers : silent).push_back(i);
  };
  for (std::size_t i = 0; i < options_.servers.size(); ++i)
    if (i != listener && !options_.servers[i].local) add(i);
  servers.insert(servers.end(), silent.begin(), silent.end());
  if (servers.size() > kServersPerQuestion) servers.resize(kServersPerQuestion);
  return servers;
}

void ForwarderCore::ask_next(std::uint64_t number) {
  Pending& pending = *pending_.at(number);
  while (!pending.to_ask.empty()) {
    const BootTime now = clock_.now();
    const std::chrono::nanoseconds left = pending.began + options_.deadline - now;
    if (left <= std::chrono::nanoseconds(0)) break;
    const std::size_t index = pending.to_ask.front();
    pending.to_ask.pop_front();
    const Server& server = options_.servers[index];
    Listener& listener = listeners_[index];
    if (listener.wrong >= Exchange::kMaxWrong && listener.guessed_until <= now) listener.wrong = 0;
    const Exchange::Target target{server.address,
                                  server.port,
                                  listener.wrong != 0 && listener.guessed_until > now
                                      ? net::Protocol::Tcp
                                      : pending.asked.client.protocol,
                                  options_.mark,
                                  std::min<std::chrono::nanoseconds>(options_.timeout, left),
                                  &listener.wrong};
    auto exchange = Exchange::start(loop_, target, pending.query,
                                    [this, number, index](Exchange::Outcome outcome) {
                                      on_outcome(number, index, std::move(outcome));
                                    });
    if (!exchange) continue;
    pending.exchanges[index] = std::move(exchange);
    return;
  }
  if (!pending.exchanges.empty()) return;  // they may still say something
  no_more(number);
  if (!pending.last_answer.empty()) {
    pending.answer = std::move(pending.last_answer);
    pending.finished.server = options_.servers[pending.last_server].address;
    deliver(number);
  } else {
    ++counters_.no_answer;
    fail(number, Finished::How::NoAnswer, ExtendedError::NetworkError);
  }
}

void ForwarderCore::no_more(std::uint64_t number) {
  Pending& pending = *pending_.at(number);
  pending.exchanges.clear();
  loop_.cancel(std::exchange(pending.next, 0));
}

void ForwarderCore::on_outcome(std::uint64_t number, std::size_t server,
                               Exchange::Outcome outcome) {
  Pending& pending = *pending_.at(number);
  pending.exchanges.erase(server);
  Listener& listener = listeners_[server];
  if (!outcome) {
    const bool told = server == pending.way.listener && !pending.last_answer.empty() &&
                      says_no(pending.last_answer);
    if (outcome.error() == Exchange::Failure::Silence) {
      listener.silent_until = clock_.now() + kAvoidSilent;
      // The packet may have been lost: once more, when the others have had their turn.
      if (pending.was_silent.insert(server).second && !told) pending.to_ask.push_back(server);
    } else if (outcome.error() == Exchange::Failure::Guessed) {
      if (listener.guessed_until <= clock_.now()) listener.guessed_until = clock_.now() + kGuessed;
      pending.to_ask.push_front(server);
    }
    if (told && outcome.error() != Exchange::Failure::Guessed) {
      pending.to_ask.clear();
      pending.exchanges.clear();
    }
    if (!pending.to_ask.empty()) ++counters_.retries;
    ask_next(number);
    return;
  }
  listener.silent_until = BootTime(0);
  const Rcode rcode = rcode_of(*outcome);
  const bool no = says_no(*outcome);
  // That there is nothing is believed of another server only when the one meant had its time.
  const bool early =
      no && server != pending.way.listener && pending.exchanges.contains(pending.way.listener);
  if ((rcode == Rcode::NoError || no) && !early) {
    no_more(number);
    on_answer(number, server, std::move(*outcome));
    return;
  }
  if (no || pending.last_answer.empty() || !says_no(pending.last_answer)) {
    pending.last_answer = std::move(*outcome);
    pending.last_server = server;
  }
  if (!pending.to_ask.empty()) ++counters_.retries;
  ask_next(number);
}

void ForwarderCore::on_answer(std::uint64_t number, std::size_t server, Message message) {
  Pending& pending = *pending_.at(number);
  const Question& question = pending.query.question;
  pending.finished.server = options_.servers[server].address;
  const auto type = static_cast<RecordType>(question.type);
  if (is_truncated(message) && pending.way.stream != 0) {  // by TCP there is room for all
    ++counters_.bad_answer;
    fail(number, Finished::How::NoAnswer, ExtendedError::Other);
    return;
  }
  if (rcode_of(message) != Rcode::NoError || is_truncated(message) ||
      (type != RecordType::A && type != RecordType::Aaaa)) {
    pending.answer = std::move(message);
    deliver(number);
    return;
  }
  auto reply = parse_reply(message, question.name, type);
  if (!reply) {
    ++counters_.bad_answer;
    fail(number, Finished::How::NoAnswer, ExtendedError::Other);
    return;
  }
  pending.answer = std::move(message);
  if (reply->addresses.empty()) {
    deliver(number);
    return;
  }
  pending.finished.addresses = reply->addresses;
  pending.learning = true;
  pending.held_since = clock_.now();
  const Answer answer{.source = Answer::Source::Proxy,
                      .fqdn = question.name,
                      .cname_chain = std::move(reply->cname_chain),
                      .addresses = std::move(reply->addresses),
                      .ttl = std::chrono::seconds(reply->ttl),
                      .heard = pending.held_since,
                      .server = pending.finished.server};
  callbacks_.learn(answer, [this, alive = std::weak_ptr(alive_), number](Result<void> result) {
    if (!alive.expired()) on_learned(number, result);
  });
  if (const auto it = pending_.find(number); it != pending_.end())
    it->second->timer =
        loop_.after(it->second->began + options_.deadline - clock_.now(), [this, number] {
          on_learned(number, std::unexpected(Error::of("not acknowledged in time")));
        });
}

void ForwarderCore::on_learned(std::uint64_t number, const Result<void>& result) {
  const auto it = pending_.find(number);
  if (it == pending_.end() || !it->second->learning) return;  // late, or told twice
  it->second->learning = false;
  ++counters_.held;
  counters_.held_for += clock_.now() - it->second->held_since;
  if (result) {
    deliver(number);
    return;
  }
  ++counters_.not_learned;
  it->second->finished.addresses.clear();
  fail(number, Finished::How::NotLearned, ExtendedError::Other);
}

void ForwarderCore::deliver(std::uint64_t number) {
  Pending& pending = *pending_.at(number);
  ++counters_.answered;
  pending.finished.how = Finished::How::Answered;
  pending.finished.rcode = rcode_of(pending.answer);
  Message reply = std::move(pending.answer);
  const bool udp = pending.way.stream == 0;
  const std::size_t room = pending.query.edns ? pending.query.edns->udp_size : 512;
  if (udp && (is_truncated(reply) || reply.size() > room)) {
    ++counters_.truncated;
    pending.finished.addresses.clear();
    conclude(number, truncated_reply(pending.query));
    return;
  }
  reply[0] = static_cast<std::uint8_t>(pending.query.id >> 8);
  reply[1] = static_cast<std::uint8_t>(pending.query.id);
  // In the client's letters: it may insist on them, and names further down point here.
  std::ranges::copy(pending.query.wire_question, reply.begin() + 12);
  conclude(number, reply);
}

void ForwarderCore::fail(std::uint64_t number, Finished::How how,
                         std::optional<ExtendedError> why) {
  Pending& pending = *pending_.at(number);
  pending.finished.how = how;
  pending.finished.rcode = Rcode::ServFail;
  conclude(number, empty_reply(pending.query, Rcode::ServFail, why));
}

void ForwarderCore::tell(const Asked& asked, Finished::How how, Rcode rcode, std::size_t size) {
  if (!callbacks_.finished) return;
  Finished finished;
  finished.how = how;
  finished.rcode = rcode;
  finished.size = size;
  callbacks_.finished(asked, finished);
}

void ForwarderCore::conclude(std::uint64_t number, const Message& reply) {
  const auto it = pending_.find(number);
  const std::unique_ptr<Pending> pending = std::move(it->second);
  pending_.erase(it);
  loop_.cancel(pending->timer);
  loop_.cancel(pending->next);
  repeated_.erase(pending->repeats);
  give_back(questions_of_, pending->asked.client.key);
  send(pending->way, pending->asked.client, reply);
  pending->finished.size = reply.size();
  pending->finished.took = clock_.now() - pending->began;
  if (callbacks_.finished) callbacks_.finished(pending->asked, pending->finished);
}

Result<std::unique_ptr<Forwarder>> Forwarder::create(EventLoop& loop, Options options,
                                                     Callbacks callbacks) {
  auto core = std::make_unique<ForwarderCore>(loop, std::move(options), std::move(callbacks));
  if (auto r = core->open(); !r) return std::unexpected(std::move(r.error()));
  return core;
}

}  // namespace egressd::dns
