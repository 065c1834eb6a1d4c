#include "audit/record.h"

namespace egressd::audit {
namespace {

struct Names {
  const char* name;
  const char* text;
};

constexpr Names kUnknown{"unknown", "this version of egressd does not know the reason"};

// Names are what dashboards and `status` filter on: never rename one. No default: -Wswitch makes
// the build fail when the ABI gets a reason that has no name here.
Names look_up(std::uint32_t reason) {
  if (reason >= EGRESSD_REASON_MAX) return kUnknown;
  switch (static_cast<egressd_reason>(reason)) {
    case EGRESSD_ALLOW_NETWORK_RULE:
      return {"network_rule", "a network rule allows it"};
    case EGRESSD_ALLOW_FQDN_RULE:
      return {"fqdn_rule", "a rule for a name with this address allows it"};
    case EGRESSD_ALLOW_ESTABLISHED:
      return {"established", "part of a connection that was allowed"};
    case EGRESSD_ALLOW_LOOPBACK:
      return {"loopback", "loopback or one of the host's own addresses"};
    case EGRESSD_ALLOW_RESOLVER:
      return {"resolver", "DNS to a configured resolver"};
    case EGRESSD_ALLOW_INBOUND:
      return {"inbound", "answer on a connection the other side opened"};
    case EGRESSD_ALLOW_KERNEL:
      return {"kernel", "the kernel's own answer, with no process behind it"};
    case EGRESSD_ALLOW_AUDIT:
      return {"audit", "would have been denied, passed because of audit mode"};
    case EGRESSD_ALLOW_OPEN:
      return {"break_glass", "would have been denied, passed because break-glass is open"};
    case EGRESSD_DENY_NO_POLICY:
      return {"no_policy", "no policy is in force yet"};
    case EGRESSD_DENY_DEFAULT:
      return {"default_deny", "no rule knows this address"};
    case EGRESSD_DENY_PORT:
      return {"port_not_allowed", "rules know this address, but not with this port or protocol"};
    case EGRESSD_DENY_RULE:
      return {"deny_rule", "a deny rule"};
    case EGRESSD_DENY_EXPIRED:
      return {"expired", "every name that had this address has expired"};
    case EGRESSD_DENY_MALFORMED:
      return {"malformed", "the packet's headers cannot be parsed"};
    case EGRESSD_DENY_FRAGMENT:
      return {"fragment", "a raw socket's own fragment: its ports are unknown"};
    case EGRESSD_DENY_INTERNAL:
      return {"internal", "an internal error in the kernel programs, closed"};
    case EGRESSD_DENY_DNS_NAME:
      return {"dns_name_not_allowed", "a DNS question that no rule allows to ask"};
    case EGRESSD_DENY_DNS_SERVER:
      return {"dns_server_not_allowed", "DNS to something that is no trusted resolver"};
    case EGRESSD_DENY_DNS_MALFORMED:
      return {"dns_malformed", "sent to a resolver, but no DNS question that can be judged"};
    case EGRESSD_REASON_MAX:
      break;
  }
  return kUnknown;
}

}  // namespace

const char* reason_name(std::uint32_t reason) { return look_up(reason).name; }
const char* reason_text(std::uint32_t reason) { return look_up(reason).text; }

}  // namespace egressd::audit
