#pragma once

#include <string>

#include "audit/format.h"

namespace egressd::audit {

// Lines with the columns of Azure Firewall's log tables AZFWNetworkRule, AZFWApplicationRule and
// AZFWDnsQuery, so that one query covers the firewall in the hub and this one. README.md has the
// table of what becomes what.
class AzfwFormat final : public Format {
 public:
  struct Host {
    std::string computer;     // column Computer
    std::string resource_id;  // column _ResourceId, empty: absent
  };
  explicit AzfwFormat(Host host) : host_(std::move(host)) {}

  [[nodiscard]] std::string line(const Record& record) const override;
  [[nodiscard]] std::string line(const Notice& notice) const override;

 private:
  Host host_;
};

}  // namespace egressd::audit
