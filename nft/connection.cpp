#include "nft/connection.h"

#include <endian.h>
#include <libmnl/libmnl.h>
#include <libnftnl/common.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "nft/attributes.h"

namespace egressd::nft {
namespace {

constexpr std::size_t kAnswerBytes = 1 << 16;
// For errors: each takes a little over a hundred bytes, and a batch can have one per message.
constexpr int kReceiveBytes = 4 << 20;
// A dump begins anew when somebody changed the ruleset in the middle of it.
constexpr int kDumpTries = 10;
constexpr std::size_t kOverhead = 4096;  // what the kernel adds when it counts a send buffer

// Offset of what was wrong within the message, 0 if the kernel does not say (NLMSGERR_ATTR_OFFS).
std::uint32_t bad_offset(const nlmsghdr* answer) {
  if ((answer->nlmsg_flags & NLM_F_ACK_TLVS) == 0) return 0;
  const auto* error = static_cast<const nlmsgerr*>(::mnl_nlmsg_get_payload(answer));
  std::size_t skip = sizeof(*error);
  if ((answer->nlmsg_flags & NLM_F_CAPPED) == 0) skip += error->msg.nlmsg_len - sizeof(nlmsghdr);
  const nlattr* offset = Attributes::of(answer, skip).find(NLMSGERR_ATTR_OFFS);
  return offset == nullptr ? 0 : number_of<std::uint32_t>(*offset);
}

const nlattr* find_in(const nlattr* outer, unsigned type) {
  return outer == nullptr ? nullptr : Attributes::in(*outer).find(type);
}

std::string text_of(const nlattr* attribute) {
  const auto bytes = bytes_of(attribute);
  return {bytes.begin(), std::ranges::find(bytes, 0)};
}

bool is_of(const std::string& table, const nlmsghdr* message, unsigned table_attribute) {
  return text_of(Attributes::of(message).find(table_attribute)) == table;
}

}  // namespace

void Connection::Free::operator()(mnl_socket* socket) const { ::mnl_socket_close(socket); }
Connection::~Connection() = default;

Result<std::unique_ptr<Connection>> Connection::open(std::string table) {
  mnl_socket* socket = ::mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
  if (socket == nullptr)
    return std::unexpected(Error::from_errno("open a netlink socket to netfilter"));
  std::unique_ptr<Connection> connection(new Connection(socket, std::move(table)));
  if (::mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0)
    return std::unexpected(Error::from_errno("bind a netlink socket"));
  const int one = 1;
  // Which attribute of a message was wrong; and errors without a copy of the message.
  (void)::mnl_socket_setsockopt(socket, NETLINK_EXT_ACK, const_cast<int*>(&one), sizeof(one));
  (void)::mnl_socket_setsockopt(socket, NETLINK_CAP_ACK, const_cast<int*>(&one), sizeof(one));
  (void)::setsockopt(::mnl_socket_get_fd(socket), SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBytes,
                     sizeof(kReceiveBytes));
  connection->answers_.resize(kAnswerBytes);
  return connection;
}

// A netlink message goes into the send buffer as a whole, or not at all (EMSGSIZE).
Result<void> Connection::make_room(std::size_t bytes) {
  if (bytes + kOverhead <= room_) return {};
  const auto wanted = static_cast<int>(bytes + bytes / 8 + kOverhead);
  if (::setsockopt(::mnl_socket_get_fd(socket_.get()), SOL_SOCKET, SO_SNDBUFFORCE, &wanted,
                   sizeof(wanted)) != 0)
    return std::unexpected(Error::from_errno("make room for a netlink message of " +
                                             std::to_string(bytes) + " bytes (CAP_NET_ADMIN?)"));
  room_ = static_cast<std::size_t>(wanted);
  return {};
}

Result<void> Connection::send(const void* data, std::size_t bytes, const char* what) {
  while (::mnl_socket_sendto(socket_.get(), data, bytes) < 0) {
    if (errno != EINTR) return std::unexpected(Error::from_errno(what));
  }
  return {};
}

void Connection::forget_answers() {
  while (::recv(::mnl_socket_get_fd(socket_.get()), answers_.data(), answers_.size(),
                MSG_DONTWAIT) >= 0 ||
         errno == EINTR || errno == ENOBUFS) {
  }
}

Result<void> Connection::commit(Batch& batch) {
  if (batch.empty()) return {};
  std::vector<char>& data = batch.finish();
  if (auto r = make_room(data.size()); !r) return r;
  if (auto r = send(data.data(), data.size(), "change nftables"); !r) return r;

  // Everything the kernel has to say is there by now. Errors come one by one; those of the whole
  // carry the number of its beginning, 0.
  std::optional<Error> first;
  bool done = false;
  std::size_t errors = 0;
  for (;;) {
    const ssize_t n =
        ::recv(::mnl_socket_get_fd(socket_.get()), answers_.data(), answers_.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n < 0) {
      Error lost = Error::from_errno("change nftables: the kernel's answer was lost");
      forget_answers();
      return std::unexpected(std::move(lost));
    }
    auto length = static_cast<int>(n);
    for (auto* answer = reinterpret_cast<nlmsghdr*>(answers_.data());
         ::mnl_nlmsg_ok(answer, length); answer = ::mnl_nlmsg_next(answer, &length)) {
      if (answer->nlmsg_type != NLMSG_ERROR) continue;
      const auto* error = static_cast<const nlmsgerr*>(::mnl_nlmsg_get_payload(answer));
      if (error->error == 0) {
        done = true;
        continue;
      }
      ++errors;
      if (first) continue;
      first = Error::from_errno(
          "nftables: " + batch.describe(error->msg.nlmsg_seq, bad_offset(answer)), -error->error);
    }
  }
  if (first) {
    if (errors > 1) first->message += " (and " + std::to_string(errors - 1) + " more errors)";
    return std::unexpected(std::move(*first));
  }
  if (!done) return std::unexpected(Error{ENOBUFS, "change nftables: the kernel did not answer"});
  return {};
}

Result<void> Connection::dump(std::uint16_t type, const std::function<void(nlmsghdr*)>& fill,
                              const std::function<void(const nlmsghdr*)>& visit, const char* what) {
  for (int i = 0; i < kDumpTries; ++i) {
    forget_answers();
    alignas(nlmsghdr) char request[1024];
    const auto sequence = static_cast<std::uint32_t>(i + 1);
    nlmsghdr* header = ::nftnl_nlmsg_build_hdr(request, type, NFPROTO_INET, NLM_F_DUMP, sequence);
    if (fill) fill(header);
    if (auto r = send(header, header->nlmsg_len, what); !r) return r;
    bool again = false;
    for (bool more = true; more;) {
      const ssize_t n =
          ::recv(::mnl_socket_get_fd(socket_.get()), answers_.data(), answers_.size(), 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == ENOBUFS) {
        again = true;
        break;
      }
      if (n < 0) return std::unexpected(Error::from_errno(what));
      auto length = static_cast<int>(n);
      for (auto* answer = reinterpret_cast<nlmsghdr*>(answers_.data());
           ::mnl_nlmsg_ok(answer, length); answer = ::mnl_nlmsg_next(answer, &length)) {
        if (answer->nlmsg_seq != sequence) continue;
        if ((answer->nlmsg_flags & NLM_F_DUMP_INTR) != 0) again = true;
        if (answer->nlmsg_type == NLMSG_DONE) {
          more = false;
        } else if (answer->nlmsg_type == NLMSG_ERROR) {
          const auto* error = static_cast<const nlmsgerr*>(::mnl_nlmsg_get_payload(answer));
          if (error->error == -ENOENT) return {};  // nothing there, nothing to tell
          return std::unexpected(Error::from_errno(what, -error->error));
        } else if (!again) {
          visit(answer);
        }
      }
    }
    if (!again) return {};
  }
  return std::unexpected(
      Error::of(std::string(what) + ": the ruleset changes again and again; try once more"));
}

Result<std::optional<std::uint64_t>> Connection::table_handle() {
  std::optional<std::uint64_t> handle;
  auto r = dump(
      NFT_MSG_GETTABLE, nullptr,
      [&](const nlmsghdr* message) {
        if (!is_of(table_, message, NFTA_TABLE_NAME)) return;
        const nlattr* number = Attributes::of(message).find(NFTA_TABLE_HANDLE);
        handle = number == nullptr ? 0 : be64toh(number_of<std::uint64_t>(*number));
      },
      "list nftables tables");
  if (!r) return std::unexpected(std::move(r.error()));
  return handle;
}

Result<std::vector<std::string>> Connection::chains() {
  std::vector<std::string> names;
  auto r = dump(
      NFT_MSG_GETCHAIN, nullptr,
      [&](const nlmsghdr* message) {
        if (!is_of(table_, message, NFTA_CHAIN_TABLE)) return;
        if (const nlattr* name = Attributes::of(message).find(NFTA_CHAIN_NAME))
          names.push_back(text_of(name));
      },
      "list nftables chains");
  if (!r) return std::unexpected(std::move(r.error()));
  std::ranges::sort(names);
  const auto repeated = std::ranges::unique(names);
  names.erase(repeated.begin(), repeated.end());
  return names;
}

Result<std::vector<std::string>> Connection::sets() {
  std::vector<std::string> names;
  auto r = dump(
      NFT_MSG_GETSET,
      [&](nlmsghdr* header) { ::mnl_attr_put_strz(header, NFTA_SET_TABLE, table_.c_str()); },
      [&](const nlmsghdr* message) {
        if (!is_of(table_, message, NFTA_SET_TABLE)) return;
        if (const nlattr* name = Attributes::of(message).find(NFTA_SET_NAME))
          names.push_back(text_of(name));
      },
      "list nftables sets");
  if (!r) return std::unexpected(std::move(r.error()));
  std::ranges::sort(names);
  const auto repeated = std::ranges::unique(names);
  names.erase(repeated.begin(), repeated.end());
  return names;
}

Result<std::size_t> Connection::count_rules(const std::string& chain) {
  std::size_t count = 0;
  auto r = dump(
      NFT_MSG_GETRULE,
      [&](nlmsghdr* header) {
        ::mnl_attr_put_strz(header, NFTA_RULE_TABLE, table_.c_str());
        ::mnl_attr_put_strz(header, NFTA_RULE_CHAIN, chain.c_str());
      },
      [&](const nlmsghdr* message) {
        if (!is_of(table_, message, NFTA_RULE_TABLE)) return;
        const nlattr* name = Attributes::of(message).find(NFTA_RULE_CHAIN);
        if (name != nullptr && text_of(name) == chain) ++count;
      },
      "list nftables rules");
  if (!r) return std::unexpected(std::move(r.error()));
  return count;
}

Result<void> Connection::each_element(const std::string& set,
                                      const std::function<void(const Listed&)>& visit) {
  return dump(
      NFT_MSG_GETSETELEM,
      [&](nlmsghdr* header) {
        ::mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_TABLE, table_.c_str());
        ::mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_SET, set.c_str());
      },
      [&](const nlmsghdr* message) {
        const nlattr* list = Attributes::of(message).find(NFTA_SET_ELEM_LIST_ELEMENTS);
        if (list == nullptr) return;
        for (const nlattr& one : Attributes::in(*list)) {
          const nlattr* element = &one;
          Listed listed;
          listed.key = bytes_of(find_in(find_in(element, NFTA_SET_ELEM_KEY), NFTA_DATA_VALUE));
          if (const nlattr* left = find_in(element, NFTA_SET_ELEM_EXPIRATION))
            listed.left = std::chrono::milliseconds(be64toh(number_of<std::uint64_t>(*left)));
          const auto userdata = bytes_of(find_in(element, NFTA_SET_ELEM_USERDATA));
          if (userdata.size() >= 2 && userdata[0] == kUserDataType)
            listed.userdata =
                userdata.subspan(2, std::min<std::size_t>(userdata[1], userdata.size() - 2));
          visit(listed);
        }
      },
      "list an nftables set");
}

Result<std::map<std::string, CounterValue>> Connection::counters() {
  std::map<std::string, CounterValue> values;
  auto r = dump(
      NFT_MSG_GETOBJ,
      [&](nlmsghdr* header) {
        ::mnl_attr_put_strz(header, NFTA_OBJ_TABLE, table_.c_str());
        ::mnl_attr_put_u32(header, NFTA_OBJ_TYPE, htobe32(NFT_OBJECT_COUNTER));
      },
      [&](const nlmsghdr* message) {
        if (!is_of(table_, message, NFTA_OBJ_TABLE)) return;
        const nlattr* name = Attributes::of(message).find(NFTA_OBJ_NAME);
        const nlattr* data = Attributes::of(message).find(NFTA_OBJ_DATA);
        const nlattr* packets = find_in(data, NFTA_COUNTER_PACKETS);
        const nlattr* bytes = find_in(data, NFTA_COUNTER_BYTES);
        if (name == nullptr || packets == nullptr || bytes == nullptr) return;
        values[text_of(name)] = {be64toh(number_of<std::uint64_t>(*packets)),
                                 be64toh(number_of<std::uint64_t>(*bytes))};
      },
      "read nftables counters");
  if (!r) return std::unexpected(std::move(r.error()));
  return values;
}

}  // namespace egressd::nft
