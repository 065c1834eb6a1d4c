#include "daemon/boot.h"

#include <spdlog/spdlog.h>

#include <exception>
#include <filesystem>
#include <optional>
#include <utility>

#include "daemon/compiler.h"
#include "daemon/last_good.h"
#include "daemon/name_ids.h"
#include "enforce/boot_table.h"
#include "enforce/probe.h"
#include "policy/parser.h"

namespace egressd::daemon {
namespace {

using enforce::BootTable;
using What = BootPlan::What;

constexpr const char* kAzureResolver = "168.63.129.16";

BootPlan minimal(std::string why) {
  BootPlan plan{.what = What::Minimal, .why = std::move(why), .rules = {}};
  plan.rules.enforce = true;
  plan.rules.dns.filter = enforce::RuleSet::Dns::Filter::Enforce;
  plan.rules.dns.resolvers = {*net::IpAddress::parse(kAzureResolver)};
  return plan;
}

BootPlan nothing(std::string why) {
  return {.what = What::Nothing, .why = std::move(why), .rules = {}};
}

std::string first_of(const std::vector<policy::Diagnostic>& diagnostics) {
  return diagnostics.empty() ? "it cannot be read" : diagnostics.front().to_string();
}

BootPlan plan_of(const policy::Policy& policy, std::vector<net::IpAddress> resolvers,
                 const std::string& from) {
  // Numbers of names, which are left out.
  auto ids = NameIds::load("", "boot");
  if (!ids) return minimal(ids.error().message);
  auto compiled =
      compile(policy, 0, {.addresses = std::move(resolvers), .search_domains = {}}, *ids);
  if (!compiled) return minimal(from + " cannot be put in force: " + compiled.error().message);
  compiled->rules.names.clear();
  return {.what = What::Policy, .why = "as " + from + " says", .rules = std::move(compiled->rules)};
}

BootPlan plan_of(const LastGood& last, const std::string& path) {
  const std::string from = "the last good policy (" + path + ")";
  if (!last.enforce) return nothing(from + " was in audit mode: the machine stays open");
  if (!last.whole_host)
    return nothing(from + " was enforced on a cgroup of the machine only: the machine stays open");
  auto parsed = policy::parse_policy(last.text, last.policy_path, policy::TagCatalog::builtin());
  if (!parsed)
    return minimal(from + " cannot be read by this version: " + first_of(parsed.error()));
  parsed->policy.mode = policy::Mode::Enforce;
  return plan_of(parsed->policy, last.resolvers, from);
}

// An agent has run here, but there is no last good policy: an older one, or the file was lost.
BootPlan plan_without(const BootOptions& options, const std::string& missing) {
  auto text = policy::read_policy_file(options.policy_path);
  if (!text) return minimal(missing + ", and so is a policy: " + first_of(text.error()));
  auto parsed = policy::parse_policy(*text, options.policy_path, policy::TagCatalog::builtin());
  if (!parsed) return minimal(missing + ", and the policy has errors: " + first_of(parsed.error()));
  if (parsed->policy.mode == policy::Mode::Audit)
    return nothing(missing + ", and " + options.policy_path +
                   " is in audit mode: the machine stays open");
  auto servers = find_name_servers(parsed->policy, options.resolv_conf);
  return plan_of(parsed->policy,
                 servers ? std::move(servers->dns.addresses) : std::vector<net::IpAddress>{},
                 options.policy_path + " (" + missing + ")");
}

// Whether an agent with this state directory has ever been in force.
bool has_run(const std::string& state_dir) {
  std::error_code ec;
  return std::filesystem::exists(state_dir + "/names", ec) ||
         std::filesystem::exists(state_dir + "/rules", ec);
}

// The state directory is not there: perhaps its disk has not come. An agent that was in force was
// so by the policy file, as far as that can be told: also one with errors may say so.
bool says_enforce(const BootOptions& options) {
  const auto text = policy::read_policy_file(options.policy_path);
  if (!text) return false;
  if (const auto parsed =
          policy::parse_policy(*text, options.policy_path, policy::TagCatalog::builtin()))
    return parsed->policy.mode == policy::Mode::Enforce;
  return text->starts_with("mode: enforce") || text->contains("\nmode: enforce");
}

Result<void> remove(BootTable& table) {
  const auto removed = table.remove();
  if (!removed) return std::unexpected(removed.error());
  spdlog::warn("{}", *removed
                         ? "table inet egressd_boot is removed: the boot table refuses nothing "
                           "any more"
                         : "there is no table inet egressd_boot: nothing to remove");
  return {};
}

Result<bool> agent_in_force(const std::string& bpffs_dir) {
  if (!enforce::pinned_links(bpffs_dir).empty()) return true;
  return enforce::nft_table_in_force();
}

}  // namespace

BootPlan plan_boot(const BootOptions& options) try {
  const std::string path = last_good_path(options.state_dir);
  const auto last = LastGood::load(path);
  if (!last) return minimal(last.error().message);
  if (*last) return plan_of(**last, path);
  if (has_run(options.state_dir)) return plan_without(options, path + " is missing");
  std::error_code ec;
  if (!std::filesystem::exists(options.state_dir, ec) && says_enforce(options))
    return plan_without(options, options.state_dir + " is missing");
  return nothing("no agent has enforced a policy on this machine yet: it stays open");
} catch (const std::exception& error) {
  // Whatever is wrong, it is no reason to leave the machine open.
  return minimal(std::string("what was in force last cannot be made out: ") + error.what());
}

Result<void> boot(const BootOptions& options) {
  auto table = BootTable::open();
  if (!table) return std::unexpected(std::move(table.error()));
  if (options.off) return remove(*table);
  const auto in_force = agent_in_force(options.bpffs_dir);
  // Not known is closed: beside a policy in force the table costs the names, until the next agent.
  if (!in_force)
    spdlog::error("whether an agent's policy is in force is not known: {}",
                  in_force.error().message);
  if (in_force.value_or(false)) {
    spdlog::info("an agent's policy is in force already: nothing to do");
    return {};
  }

  BootPlan plan = plan_boot(options);
  if (plan.what == What::Policy) {
    const auto loaded =
        table->load(std::move(plan.rules), options.state_dir, BootTable::Besides::Nothing);
    if (loaded) {
      spdlog::info("closed until the agent is in force, {}", plan.why);
      return {};
    }
    plan = minimal(plan.why + " cannot be loaded: " + loaded.error().message);
  }
  if (plan.what == What::Nothing) {
    spdlog::warn("not closed at boot: {}", plan.why);
    return {};
  }
  auto loaded =
      table->load(std::move(plan.rules), options.state_dir, BootTable::Besides::AzurePlatform);
  if (!loaded)
    return std::unexpected(
        std::move(loaded.error())
            .context("NOT closed at boot, the machine is open until the agent is in force"));
  spdlog::error(
      "closed until the agent is in force, but for loopback, DHCP, the platform and answers to "
      "what others began: {}",
      plan.why);
  return {};
}

}  // namespace egressd::daemon
