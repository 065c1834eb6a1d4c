#pragma once

#include <linux/bpf.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace egressd::enforce {

// Puts programs on one cgroup, each held by a pinned link, all of them or none: unless commit()
// has returned, the destructor takes away the links made and gives those found back their
// programs. Nothing opens meanwhile: what is replaced goes only when its successor is in place.
class LinkTransaction {
 public:
  LinkTransaction(int cgroup, std::uint64_t cgroup_id) : cgroup_(cgroup), cgroup_id_(cgroup_id) {}
  ~LinkTransaction();
  LinkTransaction(const LinkTransaction&) = delete;
  LinkTransaction& operator=(const LinkTransaction&) = delete;

  // `pin` is the path of the link. One found there on the same cgroup is kept and gets the
  // program; one of another cgroup, or of one that is gone, is replaced by commit().
  Result<void> put(int program, bpf_attach_type type, const std::string& pin);
  Result<void> commit();

 private:
  struct Step {
    std::string pin;
    UniqueFd old_link;     // found pinned
    UniqueFd old_program;  // in it; not open where the kernel hands out none (no CAP_SYS_ADMIN)
    UniqueFd new_link;     // not open: old_link has the new program
    enum class Pin { Old, Aside, None, New } where = Pin::Old;  // what is pinned
  };

  void undo(Step& step);

  int cgroup_;
  std::uint64_t cgroup_id_;
  std::vector<Step> steps_;
  bool committed_ = false;
};

}  // namespace egressd::enforce
