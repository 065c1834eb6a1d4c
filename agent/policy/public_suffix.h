#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace egressd::policy {

// How many labels at the end of `name` (canonical, without wildcards) anyone may register under:
// 1 for contoso.com, 2 for contoso.co.uk. From the ICANN section of the Public Suffix List
// only: blob.core.windows.net is a platform, not a registry. The only user of libpsl.
std::size_t public_suffix_labels(std::string_view name);

// True if anyone may have a name of their own directly under `suffix` because a platform hands
// them out: the private section of the Public Suffix List, and the clouds' multi-tenant domains
// that are not in it.
bool is_shared_platform(std::string_view suffix);

}  // namespace egressd::policy
