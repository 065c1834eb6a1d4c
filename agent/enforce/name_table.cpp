#include "enforce/name_table.h"

#include <cstring>
#include <map>
#include <unordered_map>

#include "bpf/dns_hash.h"

namespace egressd::enforce {
namespace {

// A length byte no label on the wire can have keeps in-label patterns apart from labels that
// contain a literal `*`.
constexpr std::uint8_t kGlobMark = 0x80;

egressd_dns_node_key hash_child(const NameKey& key, const egressd_dns_node_key& parent,
                                std::uint8_t mark, std::string_view label) {
  std::array<std::uint8_t, 64> bytes{};
  bytes[0] = static_cast<std::uint8_t>(mark | label.size());
  std::memcpy(bytes.data() + 1, label.data(), label.size());
  std::array<__u64, 2> words{key[0], key[1]};
  dns_sip state;
  dns_sip_init(&state, words.data(), 1);
  dns_sip_word(&state, parent.lo);
  dns_sip_word(&state, parent.hi);
  // Whole words of length byte and label; the zeros behind them are dns_head()'s.
  for (std::size_t at = 0; at < label.size() + 1; at += sizeof(__u64)) {
    __u64 word = 0;
    std::memcpy(&word, bytes.data() + at, sizeof(word));
    dns_sip_word(&state, dns_fold(word));
  }
  const __u64 lo = dns_sip_end(&state, 1);
  return {.lo = lo, .hi = dns_sip_end2(&state)};
}

std::vector<std::string_view> labels_of(std::string_view name) {
  std::vector<std::string_view> labels;
  for (;;) {
    const auto dot = name.find('.');
    labels.push_back(name.substr(0, dot));
    if (dot == std::string_view::npos) {
      return labels;
    }
    name.remove_prefix(dot + 1);
  }
}

struct KeyHash {
  std::size_t operator()(const egressd_dns_node_key& k) const { return k.lo ^ k.hi; }
};
struct KeyEqual {
  bool operator()(const egressd_dns_node_key& a, const egressd_dns_node_key& b) const {
    return a.lo == b.lo && a.hi == b.hi;
  }
};

std::unexpected<Error> refuse(const NamePattern& pattern, const std::string& why) {
  return std::unexpected(Error::of("name pattern `" + pattern.text + "`: " + why));
}

class Builder {
 public:
  explicit Builder(const NameKey& key, std::size_t patterns) : key_(key) {
    index_.reserve(patterns * 2);
    table_.nodes.reserve(patterns * 2);
  }

  Result<void> add(const NamePattern& pattern) {
    if (pattern.name_id == 0) {
      return refuse(pattern, "has no id");
    }
    auto labels = labels_of(pattern.text);
    const bool subtree = labels.front() == "*";
    const std::size_t first = subtree ? 1 : 0;
    if (first == labels.size()) {
      return refuse(pattern, "matches every name");
    }
    egressd_dns_node_key at{};
    std::size_t node = kRoot;
    for (std::size_t i = labels.size(); i > first; --i) {
      const std::string_view label = labels[i - 1];
      const auto star = label.find('*');
      if (label.empty() || label.size() > 63) {
        return refuse(pattern, "has a label that is not 1 to 63 bytes long");
      }
      if (star != std::string_view::npos && label.find('*', star + 1) != std::string_view::npos) {
        return refuse(pattern, "has two `*` in one label");
      }
      const bool glob = star != std::string_view::npos;
      at = hash_child(key_, at, glob ? kGlobMark : 0, label);
      const auto [entry, created] = index_.try_emplace(at, table_.nodes.size());
      if (created) {
        table_.nodes.push_back({.key = at, .node = {}});
      }
      if (glob) {
        if (created && !add_glob(node, at, label, star)) {
          return refuse(pattern, "is one in-label pattern too many below the same parent");
        }
      } else if (node != kRoot) {
        table_.nodes[node].node.flags |= EGRESSD_DNS_NODE_CHILDREN;
      }
      node = entry->second;
    }
    return mark(pattern, table_.nodes[node].node, subtree);
  }

  NameTable finish() && {
    for (const auto& [parent, globs] : globs_) {
      auto& node = table_.nodes[parent].node;
      node.glob_start = static_cast<__u32>(table_.globs.size());
      node.glob_count = static_cast<__u16>(globs.size());
      table_.globs.insert(table_.globs.end(), globs.begin(), globs.end());
    }
    return std::move(table_);
  }

 private:
  static constexpr std::size_t kRoot = ~std::size_t{0};

  bool add_glob(std::size_t parent, const egressd_dns_node_key& child, std::string_view label,
                std::size_t star) {
    if (parent == kRoot) {
      return false;  // would match over top-level domains; the kernel's root holds none
    }
    auto& globs = globs_[parent];
    if (globs.size() == EGRESSD_DNS_MAX_GLOBS) {
      return false;
    }
    egressd_dns_glob glob{};
    glob.child = child;
    glob.prefix_len = static_cast<__u8>(star);
    glob.suffix_len = static_cast<__u8>(label.size() - star - 1);
    std::memcpy(glob.text, label.data(), star);
    std::memcpy(glob.text + star, label.data() + star + 1, glob.suffix_len);
    globs.push_back(glob);
    return true;
  }

  static Result<void> mark(const NamePattern& pattern, egressd_dns_node& node, bool subtree) {
    if (pattern.name_id == EGRESSD_DNS_ASK_ONLY) {
      node.flags |= subtree ? EGRESSD_DNS_NODE_ASK_SUBTREE : EGRESSD_DNS_NODE_ASK_EXACT;
      return {};
    }
    __u32& id = subtree ? node.subtree_id : node.exact_id;
    if (id != 0 && id != pattern.name_id) {
      return refuse(pattern, "has two ids");
    }
    id = pattern.name_id;
    if (pattern.allow_private) {
      node.flags |= subtree ? EGRESSD_DNS_NODE_SUBTREE_PRIVATE : EGRESSD_DNS_NODE_EXACT_PRIVATE;
    }
    return {};
  }

  const NameKey& key_;
  NameTable table_;
  std::unordered_map<egressd_dns_node_key, std::size_t, KeyHash, KeyEqual> index_;
  std::map<std::size_t, std::vector<egressd_dns_glob>> globs_;  // by parent's index
};

}  // namespace

egressd_dns_node_key child_key(const NameKey& key, const egressd_dns_node_key& parent,
                               std::string_view label) {
  return hash_child(key, parent, 0, label);
}

Result<NameTable> build_name_table(std::span<const NamePattern> patterns, const NameKey& key) {
  Builder builder(key, patterns.size());
  for (const auto& pattern : patterns) {
    if (auto added = builder.add(pattern); !added) {
      return std::unexpected(std::move(added.error()));
    }
  }
  return std::move(builder).finish();
}

}  // namespace egressd::enforce
