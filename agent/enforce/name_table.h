#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "bpf/egressd_abi.h"

namespace egressd::enforce {

// The secret of a boot's node keys; the same two words as in struct egressd_dns_config.
using NameKey = std::array<std::uint64_t, 2>;

// A pattern as FqdnPattern::text() writes it: canonical, `*.` in front, or `*` inside labels.
struct NamePattern {
  std::string text;
  // > 0; EGRESSD_DNS_ASK_ONLY for names that may be asked but grant nothing, EGRESSD_DNS_REFUSED
  // for patterns whose rules allow nothing.
  std::uint32_t name_id = 0;
  bool allow_private = false;  // its answers may grant private addresses
};

// The name tree in the form the kernel walks (bpf/dns_name.h): what to load into the inner maps of
// egressd_dnodes and egressd_dglobs, the latter by position.
struct NameTable {
  struct Node {
    egressd_dns_node_key key;
    egressd_dns_node node;
  };
  std::vector<Node> nodes;
  std::vector<egressd_dns_glob> globs;
};

// Of the patterns a name matches, those count that are wider than no other of them: the name itself
// hides every other, a `*.` pattern those with fewer labels. A label with `*` inside starts a
// branch of its own, in any label and any number of labels; a narrower pattern behind it hides
// wider ones in front of it, but two branches need not hide each other, so a name can have several
// ids. EGRESSD_DNS_REFUSED hides like any id and leaves the name without one; ask-only patterns
// count only where no other does.
//
// Refused: an id of 0; one text with two ids; a label that is empty, longer than 63, or has two
// `*`; more than EGRESSD_DNS_MAX_GLOBS in-label patterns below one parent.
Result<NameTable> build_name_table(std::span<const NamePattern> patterns, const NameKey& key);

// Key of the node one label (without `*`, lower case) below `parent`; {0, 0} is the root.
egressd_dns_node_key child_key(const NameKey& key, const egressd_dns_node_key& parent,
                               std::string_view label);

}  // namespace egressd::enforce
