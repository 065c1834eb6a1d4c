#pragma once

#include <cstdint>
#include <optional>

#include "base/clock.h"
#include "bpf/egressd_abi.h"
#include "nft/nflog.h"

namespace egressd::enforce {

// A packet that a rule of ours logged, as the event the kernel programs would have made of it.
// Which process sent it is not known, only its user. Nothing if the prefix is not one of ours.
std::optional<egressd_event> event_of(const nft::Nflog::Packet& packet, BootTime now);

}  // namespace egressd::enforce
