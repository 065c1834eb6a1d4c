#include "dns/resolver.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <set>

#include "dns/reply.h"
#include "dns/schedule.h"

// How it hangs together
// - One c-ares channel per server, each told to try once: which server to ask next is decided
//   here, so that a dead first server costs one timeout and not one per name, and an error can say
//   who failed. A channel has one UDP socket, and one TCP socket while truncated answers need it.
// - Nothing of the caller's runs inside c-ares: its callbacks only note an outcome in `finished_`,
//   and settle() looks at that after ares_process_fd() has returned.
// - The callbacks of the loop hold a weak reference: the Resolver may be destroyed by the very
//   AnswerCallback it is calling.

namespace egressd::dns {
namespace {

std::string canonical(std::string name) {
  if (name.ends_with('.')) name.pop_back();
  for (char& c : name)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return name;
}

// What may be put into a question as it is. The backslash is c-ares' escape character, a NUL would
// end the name early: both would ask for another name than the one reported.
bool is_askable(std::string_view name) {
  constexpr std::size_t kMaxText = 253;
  constexpr std::size_t kMaxLabel = 63;
  if (name.empty() || name.size() > kMaxText) return false;
  std::size_t label = 0;
  for (const char c : name) {
    if (c == '.') {
      if (label == 0) return false;
      label = 0;
    } else if (c <= ' ' || c >= 0x7f || c == '\\' || ++label > kMaxLabel) {
      return false;
    }
  }
  return label != 0;
}

// How one question to one server ended.
struct Outcome {
  enum class Kind {
    Addresses,    // at least one
    NoAddress,    // NODATA
    NoName,       // NXDOMAIN
    Refusal,      // the server answers, but not this question: SERVFAIL, REFUSED, nonsense
    Unreachable,  // sending failed, or ICMP says nobody listens
    Silence,      // no answer in time
    Fault,        // ours: out of memory, a name c-ares cannot encode
  };
  Kind kind = Kind::Fault;
  Reply reply;
  std::string text;  // "SERVFAIL from 10.0.0.10"

  [[nodiscard]] bool is_final() const {
    return kind == Kind::Addresses || kind == Kind::NoAddress || kind == Kind::NoName ||
           kind == Kind::Fault;
  }
};

class Core : public std::enable_shared_from_this<Core> {
 public:
  Core(EventLoop& loop, Resolver::Options options, Resolver::AnswerCallback on_answer,
       Resolver::FailureCallback on_failure)
      : loop_(loop),
        options_(std::move(options)),
        on_answer_(std::move(on_answer)),
        on_failure_(std::move(on_failure)),
        generator_(std::random_device{}()) {}
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;
  ~Core() { close(); }

  Result<void> open();
  void close();
  void set_names(std::vector<std::string> fqdns);
  void refresh(const std::string& fqdn, std::chrono::seconds unless_within);
  [[nodiscard]] std::vector<Resolver::NameStatus> status() const;

 private:
  // Served in turn, so that thousands of new or failing names do not hold up the refreshes.
  enum Queue : std::size_t { kRefreshes, kNewcomers, kRetries, kQueues };

  struct Entry {
    enum class State { Waiting, Queued, Asking };
    Resolver::NameStatus status;
    State state = State::Waiting;
    std::uint64_t incarnation = 0;       // tells a name that went and came back
    std::uint32_t partial_failures = 0;  // answers in a row in which one family failed
    bool ask_again = false;              // refresh() while Asking
    BootTime active{0};                  // last asked or answered
  };

  struct Server {
    Core* core = nullptr;
    net::IpAddress address;
    std::string label;
    ares_channel channel = nullptr;
    std::size_t queries = 0;
    EventLoop::TimerId timer = 0;
  };

  // One name being asked for: both families, each on its own way through the servers.
  struct Lookup {
    std::string fqdn;
    std::uint64_t incarnation = 0;
    std::size_t first_server = 0;
    struct Family {
      RecordType type = RecordType::A;
      int attempts = 0;
      std::map<std::size_t, Outcome> by_server;  // the last of each
      std::optional<Outcome> result;
    };
    std::array<Family, 2> families{Family{.type = RecordType::A, .by_server = {}, .result = {}},
                                   Family{.type = RecordType::Aaaa, .by_server = {}, .result = {}}};
  };

  struct Query {
    Core* core = nullptr;
    std::shared_ptr<Lookup> lookup;
    std::size_t family = 0;
    std::size_t server = 0;
    Outcome outcome;
  };

  static int mark_socket(ares_socket_t fd, int type, void* data);
  static void on_socket_state(void* data, ares_socket_t fd, int readable, int writable);
  static void on_reply(void* arg, int status, int timeouts, unsigned char* message, int size);
  Outcome outcome_of(const Query& query, int status, const unsigned char* message, int size) const;

  Result<void> open_server(Server& server) const;
  void process(Server& server, ares_socket_t readable, ares_socket_t writable);
  void arm_query_timer(Server& server);
  void arm_schedule();
  void run_schedule();
  void enqueue(Entry& entry, bool at_front = false);
  void forget(Entry& entry);
  void wait(Entry& entry, std::chrono::nanoseconds delay);
  void start_lookups();
  void ask(const std::shared_ptr<Lookup>& lookup, std::size_t family);
  void settle();
  void advance(Query query);
  void conclude(const Lookup& lookup);
  static std::string failure_text(const Lookup& lookup);
  double random() { return std::uniform_real_distribution<double>(0, 1)(generator_); }

  EventLoop& loop_;
  const Resolver::Options options_;
  Resolver::AnswerCallback on_answer_;
  Resolver::FailureCallback on_failure_;
  std::mt19937_64 generator_;
  SystemClock clock_;

  bool library_ready_ = false;
  bool closed_ = false;
  bool settling_ = false;
  std::vector<std::unique_ptr<Server>> servers_;  // c-ares keeps a pointer to each
  std::size_t preferred_server_ = 0;

  std::map<std::string, Entry> entries_;  // pointers to its values stay good
  std::set<std::pair<BootTime, Entry*>> schedule_;
  std::array<std::deque<Entry*>, kQueues> queues_;
  std::size_t next_queue_ = 0;
  std::uint64_t next_incarnation_ = 1;
  std::size_t lookups_in_flight_ = 0;
  EventLoop::TimerId schedule_timer_ = 0;
  BootTime schedule_timer_at_{0};
  std::vector<std::unique_ptr<Query>> finished_;
};

// --- c-ares ---

Result<void> Core::open() {
  if (const int status = ares_library_init(ARES_LIB_INIT_ALL); status != ARES_SUCCESS)
    return std::unexpected(Error::of(std::string("c-ares: ") + ares_strerror(status)));
  library_ready_ = true;
  for (const net::IpAddress& address : options_.servers) {
    auto server = std::make_unique<Server>();
    server->core = this;
    server->address = address;
    server->label = address.to_string();
    if (options_.server_port != NS_DEFAULTPORT) {
      if (!address.is_v4()) server->label = "[" + server->label + "]";
      server->label += ":" + std::to_string(options_.server_port);
    }
    if (auto r = open_server(*server); !r)
      return std::unexpected(std::move(r.error()).context("c-ares, server " + server->label));
    servers_.push_back(std::move(server));
  }
  return {};
}

Result<void> Core::open_server(Server& server) const {
  // Every option c-ares would otherwise read from a file or the environment is given, so that
  // /etc/resolv.conf, /etc/hosts, LOCALDOMAIN and RES_OPTIONS have no say. No EDNS: the few
  // answers over 512 bytes come by TCP, and no middlebox can object.
  ares_options options{};
  std::string lookups = "b";
  in_addr placeholder{};  // replaced below: this field cannot hold IPv6
  // NOCHECKRESP hands out SERVFAIL and REFUSED as they are, for the error text.
  options.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_NOCHECKRESP;
  options.timeout = static_cast<int>(options_.timeout.count());
  options.tries = 1;
  options.ndots = 1;
  options.servers = &placeholder;
  options.nservers = 1;
  options.lookups = lookups.data();
  options.sock_state_cb = &Core::on_socket_state;
  options.sock_state_cb_data = &server;
  constexpr int kMask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS |
                        ARES_OPT_SERVERS | ARES_OPT_DOMAINS | ARES_OPT_LOOKUPS | ARES_OPT_SORTLIST |
                        ARES_OPT_SOCK_STATE_CB | ARES_OPT_NOROTATE;
  if (const int status = ares_init_options(&server.channel, &options, kMask);
      status != ARES_SUCCESS) {
    server.channel = nullptr;
    return std::unexpected(Error::of(ares_strerror(status)));
  }
  if (options_.mark != 0)
    ares_set_socket_configure_callback(server.channel, &Core::mark_socket, &server);
  ares_addr_port_node node{};
  node.udp_port = node.tcp_port = options_.server_port;
  const auto& bytes = server.address.bytes();
  if (server.address.is_v4()) {
    node.family = AF_INET;
    std::memcpy(&node.addr.addr4, bytes.data() + 12, sizeof(node.addr.addr4));
  } else {
    node.family = AF_INET6;
    std::memcpy(&node.addr.addr6, bytes.data(), sizeof(node.addr.addr6));
  }
  const int status = ares_set_servers_ports(server.channel, &node);
  if (status == ARES_SUCCESS) return {};
  ares_destroy(std::exchange(server.channel, nullptr));
  return std::unexpected(Error::of(ares_strerror(status)));
}

void Core::close() {
  if (std::exchange(closed_, true)) return;
  loop_.cancel(schedule_timer_);
  for (const auto& server : servers_) {
    loop_.cancel(server->timer);
    // Unwatches its sockets and ends its queries with ARES_EDESTRUCTION.
    ares_destroy(server->channel);
  }
  servers_.clear();
  finished_.clear();
  if (library_ready_) ares_library_cleanup();
}

int Core::mark_socket(ares_socket_t fd, int /*type*/, void* data) {
  const std::uint32_t mark = static_cast<Server*>(data)->core->options_.mark;
  (void)::setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
  return 0;
}

void Core::on_socket_state(void* data, ares_socket_t fd, int readable, int writable) {
  Server& server = *static_cast<Server*>(data);
  Core& core = *server.core;
  if (readable == 0 && writable == 0) {
    core.loop_.unwatch(fd);
    return;
  }
  std::uint32_t events = 0;
  if (readable != 0) events |= EPOLLIN;
  if (writable != 0) events |= EPOLLOUT;
  // `server` lives as long as the core, and its sockets are unwatched before it goes. A socket
  // that cannot be watched leaves its queries to their timeout.
  (void)core.loop_.watch(
      fd, events, [weak = core.weak_from_this(), &server, fd](std::uint32_t ready) {
        const auto self = weak.lock();
        if (!self || self->closed_) return;
        const bool in = (ready & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0;
        const bool out = (ready & EPOLLOUT) != 0;
        self->process(server, in ? fd : ARES_SOCKET_BAD, out ? fd : ARES_SOCKET_BAD);
      });
}

void Core::on_reply(void* arg, int status, int /*timeouts*/, unsigned char* message, int size) {
  std::unique_ptr<Query> query(static_cast<Query*>(arg));
  Query& q = *query;
  Core& core = *q.core;
  if (core.closed_) return;
  --core.servers_[q.server]->queries;
  q.outcome = core.outcome_of(q, status, message, size);
  core.finished_.push_back(std::move(query));
}

Outcome Core::outcome_of(const Query& query, int status, const unsigned char* message,
                         int size) const {
  using Kind = Outcome::Kind;
  const std::string& server = servers_[query.server]->label;
  switch (status) {
    case ARES_SUCCESS:
    case ARES_ENODATA: {
      if (message == nullptr || size < 0) return {Kind::Refusal, {}, "empty answer from " + server};
      auto reply = parse_reply({message, static_cast<std::size_t>(size)}, query.lookup->fqdn,
                               query.lookup->families[query.family].type);
      if (!reply) return {Kind::Refusal, {}, reply.error() + " from " + server};
      if (!reply->addresses.empty()) return {Kind::Addresses, std::move(*reply), ""};
      std::string text = "NODATA from " + server;
      if (!reply->cname_chain.empty()) text += " (alias of " + reply->cname_chain.back() + ")";
      return {Kind::NoAddress, {}, std::move(text)};
    }
    case ARES_ENOTFOUND:
      return {Kind::NoName, {}, "NXDOMAIN from " + server};
    case ARES_ESERVFAIL:
      return {Kind::Refusal, {}, "SERVFAIL from " + server};
    case ARES_EREFUSED:
      return {Kind::Refusal, {}, "REFUSED from " + server};
    case ARES_ENOTIMP:
      return {Kind::Refusal, {}, "NOTIMP from " + server};
    case ARES_EFORMERR:
      return {Kind::Refusal, {}, "FORMERR from " + server};
    case ARES_ECONNREFUSED:
      return {Kind::Unreachable, {}, server + " refused or unreachable"};
    case ARES_ETIMEOUT:
      return {Kind::Silence, {}, "no answer from " + server};
    case ARES_ENOMEM:
    case ARES_EBADNAME:
      return {Kind::Fault, {}, ares_strerror(status)};
    default:
      return {Kind::Refusal, {}, std::string(ares_strerror(status)) + ", " + server};
  }
}

void Core::process(Server& server, ares_socket_t readable, ares_socket_t writable) {
  ares_process_fd(server.channel, readable, writable);
  settle();
}

void Core::arm_query_timer(Server& server) {
  if (server.timer != 0 || server.queries == 0) return;
  // A deadline later than an armed one needs no timer of its own, and one that was answered
  // meanwhile only makes the timer fire for nothing: all timeouts are of one length.
  timeval left{};
  if (ares_timeout(server.channel, nullptr, &left) == nullptr) return;
  const auto delay = std::chrono::seconds(left.tv_sec) + std::chrono::microseconds(left.tv_usec) +
                     std::chrono::milliseconds(1);  // c-ares rounds down
  server.timer = loop_.after(delay, [weak = weak_from_this(), &server] {
    const auto self = weak.lock();
    if (!self || self->closed_) return;
    server.timer = 0;
    self->process(server, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    if (!self->closed_) self->arm_query_timer(server);
  });
}

// --- the schedule ---

void Core::arm_schedule() {
  if (closed_ || settling_) return;  // settle() ends with it
  const bool work = lookups_in_flight_ < options_.max_in_flight &&
                    std::ranges::any_of(queues_, [](const auto& queue) { return !queue.empty(); });
  if (!work && schedule_.empty() && finished_.empty()) return;
  const BootTime at = work || !finished_.empty() ? BootTime{0} : schedule_.begin()->first;
  if (schedule_timer_ != 0 && schedule_timer_at_ <= at) return;
  loop_.cancel(schedule_timer_);
  schedule_timer_at_ = at;
  schedule_timer_ = loop_.after(at - clock_.now(), [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self || self->closed_) return;
    self->schedule_timer_ = 0;
    self->run_schedule();
  });
}

void Core::run_schedule() {
  const BootTime now = clock_.now();
  while (!schedule_.empty() && schedule_.begin()->first <= now) {
    Entry& entry = *schedule_.begin()->second;
    schedule_.erase(schedule_.begin());
    enqueue(entry);
  }
  settle();
}

void Core::enqueue(Entry& entry, bool at_front) {
  Queue queue = kRefreshes;
  if (!at_front && entry.status.consecutive_failures != 0)
    queue = kRetries;
  else if (!at_front && !entry.status.resolved)
    queue = kNewcomers;
  entry.state = Entry::State::Queued;
  if (at_front)
    queues_[queue].push_front(&entry);
  else
    queues_[queue].push_back(&entry);
}

// Takes the entry off the schedule and the queues.
void Core::forget(Entry& entry) {
  if (entry.state == Entry::State::Waiting) schedule_.erase({entry.status.next_attempt, &entry});
  if (entry.state == Entry::State::Queued)
    for (auto& queue : queues_) std::erase(queue, &entry);
}

void Core::wait(Entry& entry, std::chrono::nanoseconds delay) {
  entry.state = Entry::State::Waiting;
  entry.status.next_attempt = clock_.now() + delay;
  schedule_.insert({entry.status.next_attempt, &entry});
}

// --- asking ---

void Core::start_lookups() {
  while (lookups_in_flight_ < options_.max_in_flight) {
    std::size_t turns = 0;
    while (turns < kQueues && queues_[next_queue_].empty()) {
      next_queue_ = (next_queue_ + 1) % kQueues;
      ++turns;
    }
    if (turns == kQueues) return;
    auto& queue = queues_[next_queue_];
    next_queue_ = (next_queue_ + 1) % kQueues;
    Entry& entry = *queue.front();
    queue.pop_front();
    entry.state = Entry::State::Asking;
    entry.active = clock_.now();

    const auto lookup = std::make_shared<Lookup>();
    lookup->fqdn = entry.status.fqdn;
    lookup->incarnation = entry.incarnation;
    lookup->first_server = preferred_server_;
    ++lookups_in_flight_;
    for (std::size_t family = 0; family < lookup->families.size(); ++family) ask(lookup, family);
  }
}

void Core::ask(const std::shared_ptr<Lookup>& lookup, std::size_t family) {
  auto query = std::make_unique<Query>();
  Lookup::Family& f = lookup->families[family];
  query->core = this;
  query->lookup = lookup;
  query->family = family;
  query->server = (lookup->first_server + static_cast<std::size_t>(f.attempts)) % servers_.size();
  ++f.attempts;
  Server& server = *servers_[query->server];
  ++server.queries;
  if (!is_askable(lookup->fqdn)) {
    --server.queries;
    query->outcome = {Outcome::Kind::Fault, {}, "not a name that DNS can ask for"};
    finished_.push_back(std::move(query));
    return;
  }
  // May call on_reply() before it returns.
  ares_query(server.channel, lookup->fqdn.c_str(), ns_c_in, static_cast<int>(f.type),
             &Core::on_reply, query.release());
  arm_query_timer(server);
}

// Works off what has finished and fills the free places: one batch a round of the loop, so that
// thousands of names that fail at once (no route) do not keep the others from their turn.
void Core::settle() {
  if (settling_) return;
  settling_ = true;
  for (auto& query : std::exchange(finished_, {})) {
    advance(std::move(*query));
    if (closed_) return;
  }
  start_lookups();
  settling_ = false;
  arm_schedule();
}

void Core::advance(Query query) {
  using Kind = Outcome::Kind;
  Lookup::Family& family = query.lookup->families[query.family];
  const Outcome::Kind kind = query.outcome.kind;
  if (!query.outcome.is_final()) {
    if ((kind == Kind::Silence || kind == Kind::Unreachable) && query.server == preferred_server_)
      preferred_server_ = (preferred_server_ + 1) % servers_.size();
    family.by_server.insert_or_assign(query.server, std::move(query.outcome));
    // Silence may be a lost packet and is worth `tries` rounds. Whoever has answered, or is not
    // there at all, would do the same again at once: one round of the servers, then the backoff.
    const int rounds = kind == Kind::Silence ? options_.tries : 1;
    if (family.attempts < rounds * static_cast<int>(servers_.size())) {
      ask(query.lookup, query.family);
      return;
    }
    Outcome all{kind, {}, ""};
    for (const auto& [server, outcome] : family.by_server) {
      if (!all.text.empty()) all.text += "; ";
      all.text += outcome.text;
      if (outcome.kind == Kind::Silence)
        all.text += " within " + std::to_string(options_.timeout.count()) + " ms (" +
                    std::to_string(options_.tries) + " tries)";
    }
    family.result = std::move(all);
  } else {
    family.result = std::move(query.outcome);
  }
  const auto& families = query.lookup->families;
  if (std::ranges::any_of(families, [](const auto& f) { return !f.result; })) return;
  --lookups_in_flight_;
  conclude(*query.lookup);
}

std::string Core::failure_text(const Lookup& lookup) {
  const Lookup::Family& a = lookup.families[0];
  const Lookup::Family& aaaa = lookup.families[1];
  if (a.result->text == aaaa.result->text) return a.result->text;
  return "A: " + a.result->text + "; AAAA: " + aaaa.result->text;
}

void Core::conclude(const Lookup& lookup) {
  using Kind = Outcome::Kind;
  const auto found = entries_.find(lookup.fqdn);
  if (found == entries_.end() || found->second.incarnation != lookup.incarnation) return;
  Entry& entry = found->second;
  Resolver::NameStatus& status = entry.status;
  entry.active = clock_.now();

  Answer answer;
  answer.fqdn = lookup.fqdn;
  std::uint32_t ttl = UINT32_MAX;
  std::string partial_error;
  for (const Lookup::Family& family : lookup.families) {
    const Outcome& outcome = *family.result;
    if (outcome.kind == Kind::Addresses) {
      ttl = std::min(ttl, outcome.reply.ttl);
      for (const std::string& name : outcome.reply.cname_chain)
        if (std::ranges::find(answer.cname_chain, name) == answer.cname_chain.end())
          answer.cname_chain.push_back(name);
      answer.addresses.insert(answer.addresses.end(), outcome.reply.addresses.begin(),
                              outcome.reply.addresses.end());
    } else if (outcome.kind != Kind::NoAddress && outcome.kind != Kind::NoName) {
      // NXDOMAIN for one family only is what some load balancers say for NODATA.
      partial_error = std::string(to_string(family.type)) + ": " + outcome.text;
    }
  }

  const bool good = !answer.addresses.empty();
  if (good) {
    answer.ttl = std::chrono::seconds(ttl);
    status.resolved = true;
    status.last_answer = clock_.now();
    status.consecutive_failures = 0;
    status.last_error = partial_error;
    entry.partial_failures = partial_error.empty() ? 0 : entry.partial_failures + 1;
  } else {
    ++status.consecutive_failures;
    status.last_error = failure_text(lookup);
  }

  if (std::exchange(entry.ask_again, false)) {
    enqueue(entry, true);
  } else if (!good) {
    wait(entry, retry_delay(status.consecutive_failures, options_.max_backoff, random()));
  } else {
    auto delay = refresh_delay(answer.ttl, options_.min_ttl, options_.max_ttl, random());
    if (entry.partial_failures != 0)
      delay = std::min(delay, retry_delay(entry.partial_failures, options_.max_backoff, random()));
    wait(entry, delay);
  }

  // Last, and on copies: the caller may change the names or destroy the Resolver from here.
  if (good) {
    if (on_answer_) on_answer_(answer);
  } else if (on_failure_) {
    const std::string fqdn = lookup.fqdn;
    const std::string error = status.last_error;
    on_failure_(fqdn, error);
  }
}

// --- the caller's side: only notes what to do, the loop does it ---

void Core::set_names(std::vector<std::string> fqdns) {
  std::set<std::string> wanted;
  for (std::string& fqdn : fqdns) wanted.insert(canonical(std::move(fqdn)));

  std::set<const Entry*> gone;
  for (auto& [fqdn, entry] : entries_) {
    if (wanted.contains(fqdn)) continue;
    if (entry.state == Entry::State::Waiting) schedule_.erase({entry.status.next_attempt, &entry});
    gone.insert(&entry);
  }
  for (auto& queue : queues_)
    std::erase_if(queue, [&](const Entry* entry) { return gone.contains(entry); });
  std::erase_if(entries_, [&](const auto& item) { return gone.contains(&item.second); });

  for (const std::string& fqdn : wanted) {
    const auto [it, inserted] = entries_.try_emplace(fqdn);
    if (!inserted) continue;
    Entry& entry = it->second;
    entry.status.fqdn = fqdn;
    entry.status.next_attempt = clock_.now();
    entry.incarnation = next_incarnation_++;
    enqueue(entry);
  }
  arm_schedule();
}

void Core::refresh(const std::string& fqdn, std::chrono::seconds unless_within) {
  const auto it = entries_.find(canonical(fqdn));
  if (it == entries_.end()) return;
  Entry& entry = it->second;
  if (unless_within > std::chrono::seconds(0) &&
      (entry.state != Entry::State::Waiting || clock_.now() - entry.active < unless_within))
    return;
  if (entry.state == Entry::State::Asking) {
    entry.ask_again = true;
    return;
  }
  forget(entry);
  entry.status.next_attempt = clock_.now();
  enqueue(entry, true);
  arm_schedule();
}

std::vector<Resolver::NameStatus> Core::status() const {
  std::vector<Resolver::NameStatus> result;
  result.reserve(entries_.size());
  for (const auto& [fqdn, entry] : entries_) result.push_back(entry.status);
  return result;
}

class AresResolver final : public Resolver {
 public:
  explicit AresResolver(std::shared_ptr<Core> core) : core_(std::move(core)) {}
  AresResolver(const AresResolver&) = delete;
  AresResolver& operator=(const AresResolver&) = delete;
  ~AresResolver() override { core_->close(); }

  void set_names(std::vector<std::string> fqdns) override { core_->set_names(std::move(fqdns)); }
  void refresh(const std::string& fqdn, std::chrono::seconds unless_within) override {
    core_->refresh(fqdn, unless_within);
  }
  [[nodiscard]] std::vector<NameStatus> status() const override { return core_->status(); }

 private:
  std::shared_ptr<Core> core_;
};

Result<void> check(const Resolver::Options& options) {
  const auto refuse = [](const char* why) {
    return std::unexpected(Error::of(std::string("resolver options: ") + why));
  };
  if (options.servers.empty()) return refuse("no DNS server");
  if (options.server_port == 0) return refuse("server_port is 0");
  if (options.timeout <= std::chrono::milliseconds(0) || options.timeout > std::chrono::minutes(1))
    return refuse("timeout must be 1 ms to 60 s");
  if (options.tries < 1 || options.tries > 10) return refuse("tries must be 1 to 10");
  // A TTL of 0 with no minimum would ask without pause.
  if (options.min_ttl < std::chrono::seconds(1)) return refuse("min_ttl is less than 1 s");
  if (options.max_ttl < options.min_ttl) return refuse("max_ttl is less than min_ttl");
  if (options.max_backoff < std::chrono::seconds(1)) return refuse("max_backoff is less than 1 s");
  if (options.max_in_flight == 0) return refuse("max_in_flight is 0");
  return {};
}

}  // namespace

Result<std::unique_ptr<Resolver>> Resolver::create(EventLoop& loop, Options options,
                                                   AnswerCallback on_answer,
                                                   FailureCallback on_failure) {
  if (auto r = check(options); !r) return std::unexpected(std::move(r.error()));
  auto core =
      std::make_shared<Core>(loop, std::move(options), std::move(on_answer), std::move(on_failure));
  if (auto r = core->open(); !r) return std::unexpected(std::move(r.error()));
  return std::make_unique<AresResolver>(std::move(core));
}

}  // namespace egressd::dns
