#pragma once

#include "base/result.h"

namespace egressd::enforce {

// Removes `table inet egressd` of this network namespace, and with it all that is enforced by
// nftables. Needs no running agent. False if there was none.
Result<bool> remove_nft_table();

}  // namespace egressd::enforce
