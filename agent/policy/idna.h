#pragma once

#include <expected>
#include <string>
#include <string_view>

namespace egressd::policy {

// Unicode name (UTF-8) to A-labels: IDNA 2008 with UTS #46 non-transitional mapping. The only
// user of libidn2.
std::expected<std::string, std::string> to_a_labels(std::string_view name);

}  // namespace egressd::policy
