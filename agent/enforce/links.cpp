#include "enforce/links.h"

#include <bpf/bpf.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <ranges>
#include <utility>

namespace egressd::enforce {
namespace {

std::string aside(const std::string& pin) { return pin + "_new"; }

}  // namespace

LinkTransaction::~LinkTransaction() {
  if (committed_) return;
  for (Step& step : std::views::reverse(steps_)) undo(step);
}

Result<void> LinkTransaction::put(int program, bpf_attach_type type, const std::string& pin) {
  Step step;
  step.pin = pin;
  step.old_link = UniqueFd(::bpf_obj_get(pin.c_str()));
  if (step.old_link) {
    bpf_link_info info{};
    __u32 length = sizeof(info);
    const bool here = ::bpf_obj_get_info_by_fd(step.old_link.get(), &info, &length) == 0 &&
                      info.type == BPF_LINK_TYPE_CGROUP && info.cgroup.cgroup_id == cgroup_id_;
    if (here) step.old_program = UniqueFd(::bpf_prog_get_fd_by_id(info.prog_id));
    // Fails on a link that was detached.
    if (here && ::bpf_link_update(step.old_link.get(), program, nullptr) == 0) {
      steps_.push_back(std::move(step));
      return {};
    }
    step.old_program.reset();
  }
  LIBBPF_OPTS(bpf_link_create_opts, options);
  step.new_link = UniqueFd(::bpf_link_create(program, cgroup_, type, &options));
  if (!step.new_link) return std::unexpected(Error::from_errno("attach"));
  ::unlink(aside(pin).c_str());
  const bool pinned = ::bpf_obj_pin(step.new_link.get(), aside(pin).c_str()) == 0;
  const int err = errno;
  if (pinned) step.where = Step::Pin::Aside;
  steps_.push_back(std::move(step));
  if (!pinned) return std::unexpected(Error::from_errno("pin " + aside(pin), err));
  return {};
}

Result<void> LinkTransaction::commit() {
  for (Step& step : steps_) {
    if (!step.new_link) continue;
    // bpffs renames only onto nothing. The old link lives on in its descriptor.
    if (::unlink(step.pin.c_str()) != 0 && errno != ENOENT)
      return std::unexpected(Error::from_errno("remove " + step.pin));
    if (::rename(aside(step.pin).c_str(), step.pin.c_str()) != 0) {
      const int err = errno;
      ::unlink(aside(step.pin).c_str());
      step.where = Step::Pin::None;
      return std::unexpected(Error::from_errno("rename " + aside(step.pin), err));
    }
    step.where = Step::Pin::New;
  }
  committed_ = true;
  return {};
}

void LinkTransaction::undo(Step& step) {
  if (!step.new_link) {
    if (step.old_program) ::bpf_link_update(step.old_link.get(), step.old_program.get(), nullptr);
    return;
  }
  if (step.where == Step::Pin::Aside) ::unlink(aside(step.pin).c_str());
  if (step.where == Step::Pin::New) ::unlink(step.pin.c_str());
  if (step.where == Step::Pin::New || step.where == Step::Pin::None) {
    if (step.old_link) ::bpf_obj_pin(step.old_link.get(), step.pin.c_str());
  }
  // Now, and not when the kernel gets to it after the last reference has gone.
  ::bpf_link_detach(step.new_link.get());
}

}  // namespace egressd::enforce
