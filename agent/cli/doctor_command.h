#pragma once

#include "cli/commands.h"
#include "doctor/doctor.h"

namespace egressd::cli {

// One line for each thing looked at. kOk: all is well; kDenied: something is degraded; kFailed:
// something is broken.
int doctor(const doctor::Options& options, bool json, Streams io);

}  // namespace egressd::cli
