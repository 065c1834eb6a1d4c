#include "enforce/both_backend.h"

#include <cerrno>
#include <string>
#include <utility>

#include "base/clock.h"
#include "enforce/backstop.h"

namespace egressd::enforce {
namespace {

class BothBackend final : public Backend {
 public:
  BothBackend(std::unique_ptr<Backend> bpf, BackstopOptions options) : bpf_(std::move(bpf)) {
    auto opened = Backstop::open(std::move(options));
    if (opened)
      backstop_ = std::move(*opened);
    else
      trouble_ = opened.error().message;
  }

  Result<void> apply(const RuleSet& rules) override { return bpf_->apply(rules); }
  Result<void> attach() override {
    if (backstop_) (void)backstop_->stand_aside();  // put() meets what was in the way
    if (auto r = bpf_->attach(); !r) return r;
    attached_ = true;
    if (backstop_) (void)put();
    return {};
  }
  Result<std::vector<std::string>> detach() override;
  void discard_unused() override { bpf_->discard_unused(); }
  Result<std::uint32_t> generation() override { return bpf_->generation(); }
  Result<std::uint32_t> highest_name_id() override { return bpf_->highest_name_id(); }
  [[nodiscard]] std::string instance() const override { return bpf_->instance(); }
  Result<void> learn(std::span<const LearnedAddress> addresses) override {
    return bpf_->learn(addresses);
  }
  Result<std::vector<LearnedAddress>> learned() override { return bpf_->learned(); }
  Result<std::size_t> count_learned() override { return bpf_->count_learned(); }
  // Often enough to put right what went wrong.
  Result<std::size_t> expire(BootTime now) override {
    if (backstop_ && attached_) {
      if (!backstop_->is_put() && !forbidden_) (void)put();
    }
    return bpf_->expire(now);
  }
  Result<bool> restore(const RuleSet& /*rules*/) override {
    if (!backstop_ || !attached_) return false;
    const auto damaged = backstop_->is_damaged();
    if (!damaged) return std::unexpected(damaged.error());
    if (!*damaged) {
      // At boot the default route often comes after us, and connections from outside by it.
      if (backstop_->is_put()) note(backstop_->follow());
      return false;
    }
    if (auto r = put(); !r) return std::unexpected(std::move(r.error()));
    return true;
  }
  Result<std::vector<LearnedAddress>> next_live(BootTime until) override {
    return bpf_->next_live(until);
  }
  Result<void> forget_learned() override { return bpf_->forget_learned(); }
  Result<void> set_local_addresses(std::span<const net::IpAddress> addresses) override {
    if (backstop_) {
      if (auto r = backstop_->set_local_addresses(addresses); !r) note(r);
    }
    return bpf_->set_local_addresses(addresses);
  }
  Result<void> drain_tally(const std::function<void(const egressd_tally&)>& visit) override {
    return bpf_->drain_tally(visit);
  }
  Result<void> drain_lost(
      const std::function<void(std::uint32_t reason, std::uint64_t count)>& visit) override {
    return bpf_->drain_lost(visit);
  }
  Result<Opening> opening() override { return bpf_->opening(); }
  Result<Counters> counters() override { return bpf_->counters(); }
  std::vector<MapFill> map_fills() override { return bpf_->map_fills(); }
  std::vector<LayerStatus> layers() override;
  [[nodiscard]] int events_fd() const override { return bpf_->events_fd(); }
  [[nodiscard]] int dns_events_fd() const override { return bpf_->dns_events_fd(); }

 private:
  Result<void> put() {
    auto r = backstop_->put();
    forbidden_ = !r && r.error().code == EPERM;
    note(r);
    return r;
  }
  void note(const Result<void>& r) {
    if (r)
      trouble_.clear();
    else
      trouble_ = r.error().message;
  }

  std::unique_ptr<Backend> bpf_;
  std::unique_ptr<Backstop> backstop_;  // none if this kernel has no such thing
  std::string trouble_;                 // why nftables does not do its part
  bool attached_ = false;
  bool forbidden_ = false;  // not to be tried again and again: AKS counts who tries
};

Result<std::vector<std::string>> BothBackend::detach() {
  auto table = backstop_ ? backstop_->remove() : Result<bool>(false);
  auto lines = bpf_->detach();
  if (!lines) return lines;
  if (!table) return std::unexpected(std::move(table.error()));
  if (*table) lines->emplace_back("table inet egressd (deleted)");
  attached_ = false;
  return lines;
}

std::vector<LayerStatus> BothBackend::layers() {
  std::vector<LayerStatus> all = bpf_->layers();
  std::string trouble = trouble_;
  std::string agreement;
  if (trouble.empty() && backstop_) {
    const auto generation = bpf_->generation();
    const auto same = backstop_->compare(generation.value_or(0), SystemClock().now());
    if (same)
      agreement = "table inet egressd asks the maps of eBPF: generation " +
                  std::to_string(generation.value_or(0)) + ", " + std::to_string(*same) +
                  " learned addresses compared";
    else
      trouble = same.error().message;
  }
  for (const char* hook : {"nft output", "nft forward"})
    all.push_back({.program = hook,
                   .attached = trouble.empty(),
                   .needed = false,
                   .detail = trouble.empty()
                                 ? agreement
                                 : trouble + "; eBPF goes on alone" +
                                       (forbidden_ ? " until egressd is restarted" : "")});
  return all;
}

}  // namespace

Result<std::unique_ptr<Backend>> open_both_backend(BpfOptions options) {
  BackstopOptions behind{.cgroup_path = options.cgroup_path,
                         .maps_dir = bpf_maps_dir(options.bpffs_dir)};
  auto bpf = open_bpf_backend(std::move(options));
  if (!bpf) return bpf;
  return std::make_unique<BothBackend>(std::move(*bpf), std::move(behind));
}

}  // namespace egressd::enforce
