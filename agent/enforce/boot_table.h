#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "enforce/break_glass.h"
#include "enforce/rule_set.h"

namespace egressd::nft {
class Connection;
}

namespace egressd::enforce {

// `table inet egressd_boot`: closes a machine at boot, until an agent is in force. It needs no
// agent, no file and no program to go on; removing it is what ends it.
class BootTable {
 public:
  inline static constexpr const char* kName = "egressd_boot";

  // Of this network namespace. A kernel without nftables has no table and can load none.
  static Result<BootTable> open();
  BootTable(BootTable&&) noexcept;
  BootTable& operator=(BootTable&&) noexcept;
  ~BootTable();

  // What it lets pass besides the rules.
  enum class Besides : std::uint8_t { Nothing, AzurePlatform };
  // Puts it in force, in place of one that is there, in one step: `rules` as the nft engine judges
  // them, for all that is sent from here or forwarded. Names are left out: at boot none has an
  // address; nor is a question judged by its name: where `rules.dns` enforces the filter only root
  // asks its resolvers, and none is asked through here. Answers to what others began pass, also on
  // connections of before. `state_dir`: whose agent takes over.
  Result<void> load(RuleSet rules, const std::string& state_dir, Besides besides);
  Result<bool> is_there();
  // The state directory it was loaded for; none if it is not there.
  Result<std::optional<std::string>> state_dir();
  Result<bool> remove();  // false: there was none

  // Break-glass. False: it is not there.
  Result<bool> open_glass(const Opening& opening, BootTime now);
  Result<std::optional<Opening>> opening(BootTime now);
  // What was open.
  Result<std::optional<Opening>> close_glass(BootTime now);

 private:
  explicit BootTable(std::unique_ptr<nft::Connection> connection);

  std::unique_ptr<nft::Connection> connection_;  // none: the kernel has no nftables
};

// The same of whatever is there, for a command that is called once.
Result<bool> open_boot_glass(const Opening& opening, BootTime now);
Result<std::optional<Opening>> close_boot_glass(BootTime now);
Result<bool> remove_boot_table();
Result<bool> boot_table_is_there();

// Whether `table inet egressd`, the agent's own, judges in this network namespace.
Result<bool> nft_table_in_force();

}  // namespace egressd::enforce
