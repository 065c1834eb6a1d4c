#pragma once

#include <string>
#include <vector>

#include "policy/policy.h"
#include "policy/reader.h"

// What only the whole of a policy shows, when each of its rules is right. Private to the parser.
namespace egressd::policy {

// A rule of the file with the node its diagnostics point to.
struct DraftRule {
  Rule rule;
  const YamlNode* node = nullptr;
  bool from_tag = false;
};

struct DraftCollection {
  Collection head;  // rules empty
  std::vector<DraftRule> rules;
};

// `drafts` are in the order they are judged in. Errors and warnings go to `reader`.

// The kernel grants an address by the most specific pattern that matches its name: an error where
// an allowed and a refused pattern cross.
void check_overlaps(Reader& reader, const std::vector<DraftCollection>& drafts);
// An error where the rules of one destination have no room in the kernel.
void check_merged(Reader& reader, const std::vector<DraftCollection>& drafts);
// A warning for a rule that others cover; cheap cases only.
void warn_never_matching(Reader& reader, const std::vector<DraftCollection>& drafts);
// A warning for a name to resolve ahead of use that no rule allows; `nodes` are where `names`
// stand.
void warn_unreachable_resolve(Reader& reader, const std::vector<DraftCollection>& drafts,
                              const std::vector<std::string>& names,
                              const std::vector<const YamlNode*>& nodes);

}  // namespace egressd::policy
