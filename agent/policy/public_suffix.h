#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace egressd::policy {

// How many labels at the end of `name` (canonical, without wildcards) anyone may register under:
// 1 for contoso.com, 2 for contoso.co.uk. From the ICANN section of the Public Suffix List
// only: blob.core.windows.net is a platform, not a registry. The only user of libpsl.
std::size_t public_suffix_labels(std::string_view name);

// `suffix` if anyone may have a name of their own directly under it because a platform hands them
// out: the private section of the Public Suffix List, and the clouds' multi-tenant domains and
// publishing hosts that are not in it. Else "".
std::string shared_platform_at(std::string_view suffix);

// Such a platform of the second kind that is `suffix` or below it; "" if there is none. `*` in it
// stands for one label.
std::string shared_platform_below(std::string_view suffix);

}  // namespace egressd::policy
