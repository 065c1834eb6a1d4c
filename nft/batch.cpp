#include "nft/batch.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "nft/attributes.h"

namespace egressd::nft {
namespace {

// A nested attribute says its length in 16 bits: a message of elements ends well before that.
constexpr std::size_t kMessageMax = 60000;
constexpr std::size_t kScratch = 1 << 17;
constexpr std::uint16_t kFamily = NFPROTO_INET;
constexpr std::uint32_t kDrop = NF_DROP;
constexpr std::uint32_t kAccept = NF_ACCEPT;

template <typename T, void (*Release)(const T*)>
struct Releases {
  void operator()(const T* object) const { Release(object); }
};
using TablePtr = std::unique_ptr<nftnl_table, Releases<nftnl_table, ::nftnl_table_free>>;
using ChainPtr = std::unique_ptr<nftnl_chain, Releases<nftnl_chain, ::nftnl_chain_free>>;
using SetPtr = std::unique_ptr<nftnl_set, Releases<nftnl_set, ::nftnl_set_free>>;
using ObjectPtr = std::unique_ptr<nftnl_obj, Releases<nftnl_obj, ::nftnl_obj_free>>;
using RulePtr = std::unique_ptr<nftnl_rule, Releases<nftnl_rule, ::nftnl_rule_free>>;

// The numbers by which nft knows its types (enum datatypes of nftables), six bits each in a
// concatenation. The kernel keeps them for whoever lists the set.
enum : std::uint32_t {
  kTypeIpv4 = 7,
  kTypeIpv6 = 8,
  kTypeProtocol = 12,
  kTypeService = 13,
  kTypeMark = 19,
};
constexpr std::uint32_t concat(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  return (a << 12) | (b << 6) | c;
}

std::uint32_t data_type(Key key) {
  switch (key) {
    case Key::Ipv4:
      return kTypeIpv4;
    case Key::Ipv6:
      return kTypeIpv6;
    case Key::Flow4:
      return concat(kTypeIpv4, kTypeProtocol, kTypeService);
    case Key::Flow6:
      return concat(kTypeIpv6, kTypeProtocol, kTypeService);
    case Key::Protocol:
      return kTypeProtocol;
    case Key::Port:
      return kTypeService;
    case Key::Interface:
      return 41;  // TYPE_IFNAME
    case Key::Family:
      return 2;  // TYPE_NFPROTO
    case Key::Mark:
      break;
  }
  return kTypeMark;
}

}  // namespace

Batch::Batch(std::string table) : table_(std::move(table)), scratch_(kScratch) {
  ::nftnl_batch_begin(scratch_.data(), 0);
  const auto* header = reinterpret_cast<const nlmsghdr*>(scratch_.data());
  buffer_.assign(scratch_.data(), scratch_.data() + header->nlmsg_len);
}
Batch::~Batch() = default;
Batch::Batch(Batch&&) noexcept = default;
Batch& Batch::operator=(Batch&&) noexcept = default;

std::size_t Batch::open_bytes() const { return open_ == nullptr ? 0 : open_->nlmsg_len; }

nlmsghdr* Batch::begin(std::uint16_t type, std::uint16_t flags, std::string what) {
  close_elements();
  messages_.push_back({buffer_.size(), std::move(what), false, Key::Ipv4});
  return ::nftnl_nlmsg_build_hdr(scratch_.data(), type, kFamily, flags,
                                 static_cast<std::uint32_t>(messages_.size()));
}

void Batch::end() {
  const auto* header = reinterpret_cast<const nlmsghdr*>(scratch_.data());
  buffer_.insert(buffer_.end(), scratch_.data(), scratch_.data() + header->nlmsg_len);
}

void Batch::close_elements() {
  if (open_ == nullptr) return;
  ::mnl_attr_nest_end(open_, reinterpret_cast<nlattr*>(scratch_.data() + nest_));
  open_ = nullptr;
  end();
}

void Batch::add_table() {
  const TablePtr table(::nftnl_table_alloc());
  ::nftnl_table_set_str(table.get(), NFTNL_TABLE_NAME, table_.c_str());
  ::nftnl_table_nlmsg_build_payload(begin(NFT_MSG_NEWTABLE, NLM_F_CREATE, "add the table"),
                                    table.get());
  end();
}

void Batch::delete_table() {
  const TablePtr table(::nftnl_table_alloc());
  ::nftnl_table_set_str(table.get(), NFTNL_TABLE_NAME, table_.c_str());
  ::nftnl_table_nlmsg_build_payload(begin(NFT_MSG_DELTABLE, 0, "delete the table"), table.get());
  end();
}

void Batch::add_set(const Set& set) {
  const SetPtr s(::nftnl_set_alloc());
  ::nftnl_set_set_str(s.get(), NFTNL_SET_TABLE, table_.c_str());
  ::nftnl_set_set_str(s.get(), NFTNL_SET_NAME, set.name.c_str());
  ::nftnl_set_set_u32(s.get(), NFTNL_SET_ID, static_cast<std::uint32_t>(messages_.size() + 1));
  ::nftnl_set_set_u32(s.get(), NFTNL_SET_KEY_TYPE, data_type(set.key));
  ::nftnl_set_set_u32(s.get(), NFTNL_SET_KEY_LEN, static_cast<std::uint32_t>(key_length(set.key)));
  std::uint32_t flags = 0;
  if (set.interval) flags |= NFT_SET_INTERVAL;
  if (set.timeout) flags |= NFT_SET_TIMEOUT;
  if (set.verdicts) {
    flags |= NFT_SET_MAP;
    ::nftnl_set_set_u32(s.get(), NFTNL_SET_DATA_TYPE, NFT_DATA_VERDICT);
    ::nftnl_set_set_u32(s.get(), NFTNL_SET_DATA_LEN, 0);
  }
  ::nftnl_set_set_u32(s.get(), NFTNL_SET_FLAGS, flags);
  if (set.size != 0) ::nftnl_set_set_u32(s.get(), NFTNL_SET_DESC_SIZE, set.size);
  // enum byteorder of nftables: 1 the host's, 2 big endian. Without it nft lists ranges wrong.
  nftnl_udata_buf* udata = ::nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);
  ::nftnl_udata_put_u32(
      udata, NFTNL_UDATA_SET_KEYBYTEORDER,
      set.key == Key::Mark || set.key == Key::Interface || set.key == Key::Family ? 1 : 2);
  ::nftnl_set_set_data(s.get(), NFTNL_SET_USERDATA, ::nftnl_udata_buf_data(udata),
                       ::nftnl_udata_buf_len(udata));
  ::nftnl_udata_buf_free(udata);
  ::nftnl_set_nlmsg_build_payload(begin(NFT_MSG_NEWSET, NLM_F_CREATE, "add set " + set.name),
                                  s.get());
  end();
}

void Batch::delete_set(const Set& set) {
  nlmsghdr* header = begin(NFT_MSG_DELSET, 0, "delete set " + set.name);
  ::mnl_attr_put_strz(header, NFTA_SET_TABLE, table_.c_str());
  ::mnl_attr_put_strz(header, NFTA_SET_NAME, set.name.c_str());
  end();
}

void Batch::flush_set(const Set& set) {
  nlmsghdr* header = begin(NFT_MSG_DELSETELEM, 0, "empty set " + set.name);
  ::mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_TABLE, table_.c_str());
  ::mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_SET, set.name.c_str());
  end();
}

void Batch::add_counter(std::string_view name) {
  const ObjectPtr object(::nftnl_obj_alloc());
  ::nftnl_obj_set_str(object.get(), NFTNL_OBJ_TABLE, table_.c_str());
  ::nftnl_obj_set_str(object.get(), NFTNL_OBJ_NAME, std::string(name).c_str());
  ::nftnl_obj_set_u32(object.get(), NFTNL_OBJ_TYPE, NFT_OBJECT_COUNTER);
  ::nftnl_obj_set_u64(object.get(), NFTNL_OBJ_CTR_PKTS, 0);
  ::nftnl_obj_set_u64(object.get(), NFTNL_OBJ_CTR_BYTES, 0);
  ::nftnl_obj_nlmsg_build_payload(
      begin(NFT_MSG_NEWOBJ, NLM_F_CREATE, "add counter " + std::string(name)), object.get());
  end();
}

void Batch::add_chain(const Chain& chain) {
  const ChainPtr c(::nftnl_chain_alloc());
  ::nftnl_chain_set_str(c.get(), NFTNL_CHAIN_TABLE, table_.c_str());
  ::nftnl_chain_set_str(c.get(), NFTNL_CHAIN_NAME, chain.name.c_str());
  if (chain.hook != Chain::Hook::None) {
    ::nftnl_chain_set_str(c.get(), NFTNL_CHAIN_TYPE, "filter");
    const bool before_nat = chain.hook == Chain::Hook::BeforeNat;
    ::nftnl_chain_set_u32(c.get(), NFTNL_CHAIN_HOOKNUM,
                          before_nat                          ? NF_INET_PRE_ROUTING
                          : chain.hook == Chain::Hook::Output ? NF_INET_LOCAL_OUT
                                                              : NF_INET_FORWARD);
    // Behind NAT of destinations (-100) what is seen is where it really goes; conntrack is at -200.
    ::nftnl_chain_set_s32(c.get(), NFTNL_CHAIN_PRIO, before_nat ? -101 : 0);
    ::nftnl_chain_set_u32(c.get(), NFTNL_CHAIN_POLICY, chain.drop ? kDrop : kAccept);
  }
  ::nftnl_chain_nlmsg_build_payload(
      begin(NFT_MSG_NEWCHAIN, NLM_F_CREATE, "add chain " + chain.name), c.get());
  end();
}

void Batch::delete_chain(std::string_view name) {
  nlmsghdr* header = begin(NFT_MSG_DELCHAIN, 0, "delete chain " + std::string(name));
  ::mnl_attr_put_strz(header, NFTA_CHAIN_TABLE, table_.c_str());
  ::mnl_attr_put_strz(header, NFTA_CHAIN_NAME, std::string(name).c_str());
  end();
}

void Batch::flush_chain(std::string_view name) {
  nlmsghdr* header = begin(NFT_MSG_DELRULE, 0, "empty chain " + std::string(name));
  ::mnl_attr_put_strz(header, NFTA_RULE_TABLE, table_.c_str());
  ::mnl_attr_put_strz(header, NFTA_RULE_CHAIN, std::string(name).c_str());
  end();
}

void Batch::flush_chains() {
  nlmsghdr* header = begin(NFT_MSG_DELRULE, 0, "empty all chains");
  ::mnl_attr_put_strz(header, NFTA_RULE_TABLE, table_.c_str());
  end();
}

void Batch::add_rule(std::string_view chain, const Rule& rule) {
  ::nftnl_rule_set_str(rule.get(), NFTNL_RULE_TABLE, table_.c_str());
  ::nftnl_rule_set_str(rule.get(), NFTNL_RULE_CHAIN, std::string(chain).c_str());
  ::nftnl_rule_set_u32(rule.get(), NFTNL_RULE_FAMILY, kFamily);
  ::nftnl_rule_nlmsg_build_payload(
      begin(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND,
            "add rule '" + rule.text() + "' to chain " + std::string(chain)),
      rule.get());
  end();
}

void Batch::put_element(std::uint16_t type, std::uint16_t flags, const Set& set,
                        const Element& element) {
  if (open_ != nullptr &&
      (open_type_ != type || open_set_ != set.name || open_->nlmsg_len > kMessageMax))
    close_elements();
  if (open_ == nullptr) {
    open_ = begin(type, flags,
                  (type == NFT_MSG_NEWSETELEM ? "add to set " : "delete from set ") + set.name);
    messages_.back().elements = true;
    messages_.back().key = set.key;
    open_type_ = type;
    open_set_ = set.name;
    ::mnl_attr_put_strz(open_, NFTA_SET_ELEM_LIST_TABLE, table_.c_str());
    ::mnl_attr_put_strz(open_, NFTA_SET_ELEM_LIST_SET, set.name.c_str());
    nest_ = static_cast<std::size_t>(
        reinterpret_cast<char*>(::mnl_attr_nest_start(open_, NFTA_SET_ELEM_LIST_ELEMENTS)) -
        scratch_.data());
  }
  nlattr* one = ::mnl_attr_nest_start(open_, NFTA_LIST_ELEM);
  nlattr* key = ::mnl_attr_nest_start(open_, NFTA_SET_ELEM_KEY);
  ::mnl_attr_put(open_, NFTA_DATA_VALUE, element.key.size(), element.key.data());
  ::mnl_attr_nest_end(open_, key);
  if (element.end) ::mnl_attr_put_u32(open_, NFTA_SET_ELEM_FLAGS, htonl(NFT_SET_ELEM_INTERVAL_END));
  if (element.timeout.count() != 0)
    ::mnl_attr_put_u64(open_, NFTA_SET_ELEM_TIMEOUT,
                       htobe64(static_cast<std::uint64_t>(element.timeout.count())));
  if (!element.chain.empty()) {
    nlattr* data = ::mnl_attr_nest_start(open_, NFTA_SET_ELEM_DATA);
    nlattr* verdict = ::mnl_attr_nest_start(open_, NFTA_DATA_VERDICT);
    ::mnl_attr_put_u32(open_, NFTA_VERDICT_CODE, htonl(static_cast<std::uint32_t>(NFT_GOTO)));
    ::mnl_attr_put_strz(open_, NFTA_VERDICT_CHAIN, std::string(element.chain).c_str());
    ::mnl_attr_nest_end(open_, verdict);
    ::mnl_attr_nest_end(open_, data);
  }
  if (!element.userdata.empty()) {
    const std::size_t length = std::min(element.userdata.size(), kUserDataMax);
    std::uint8_t tagged[2 + kUserDataMax];
    tagged[0] = kUserDataType;
    tagged[1] = static_cast<std::uint8_t>(length);
    std::memcpy(tagged + 2, element.userdata.data(), length);
    ::mnl_attr_put(open_, NFTA_SET_ELEM_USERDATA, 2 + length, tagged);
  }
  ::mnl_attr_nest_end(open_, one);
}

void Batch::add_element(const Set& set, const Element& element) {
  put_element(NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, set, element);
}

void Batch::delete_element(const Set& set, const Element& element) {
  put_element(NFT_MSG_DELSETELEM, 0, set, element);
}

void Batch::make_sure_of_element(const Set& set, const Element& element) {
  close_elements();
  put_element(NFT_MSG_NEWSETELEM, NLM_F_CREATE, set, element);
  close_elements();
}

std::vector<char>& Batch::finish() {
  if (finished_) return buffer_;
  finished_ = true;
  close_elements();
  if (!messages_.empty()) {
    // The kernel's yes to the last one is the yes to all of them.
    auto* last = reinterpret_cast<nlmsghdr*>(buffer_.data() + messages_.back().offset);
    last->nlmsg_flags |= NLM_F_ACK;
  }
  ::nftnl_batch_end(scratch_.data(), static_cast<std::uint32_t>(messages_.size() + 1));
  end();
  return buffer_;
}

std::string Batch::describe(std::uint32_t sequence, std::uint32_t offset) const {
  if (sequence == 0 || sequence > messages_.size()) return "the transaction as a whole";
  const Message& message = messages_[sequence - 1];
  if (!message.elements) return message.what;
  const auto* header = reinterpret_cast<const nlmsghdr*>(buffer_.data() + message.offset);
  const nlattr* list = Attributes::of(header).find(NFTA_SET_ELEM_LIST_ELEMENTS);
  if (list == nullptr) return message.what;
  std::string first;
  std::size_t count = 0;
  for (const nlattr& element : Attributes::in(*list)) {
    ++count;
    const auto at = static_cast<std::uint32_t>(reinterpret_cast<const char*>(&element) -
                                               reinterpret_cast<const char*>(header));
    // What is wrong may be the element or something in it.
    const bool wrong = offset >= at && offset < at + element.nla_len;
    if (!wrong && !first.empty()) continue;
    const nlattr* key = Attributes::in(element).find(NFTA_SET_ELEM_KEY);
    const nlattr* value = key == nullptr ? nullptr : Attributes::in(*key).find(NFTA_DATA_VALUE);
    std::string text = to_string(message.key, bytes_of(value));
    if (wrong) return message.what + ": element " + text;
    first = std::move(text);
  }
  if (count == 1) return message.what + ": element " + first;
  // Before Linux 6.1 the kernel does not say which of them.
  return message.what + ": one of the " + std::to_string(count) + " elements from " + first + " on";
}

}  // namespace egressd::nft
