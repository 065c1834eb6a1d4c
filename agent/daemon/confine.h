#pragma once

#include "base/result.h"

namespace egressd::daemon {

// Gives up, for the rest of the process's life, what a running agent does not need: capabilities
// (all five sets), gaining any by exec, and every system call that is not on a list. What needs
// more comes before: mounting bpffs, loading programs, adopting those of an earlier agent.
//
// Kept: CAP_BPF and CAP_NET_ADMIN, for maps and links; CAP_SYS_PTRACE, without which
// /proc/PID/exe of other processes, and so `exe` in a record, cannot be read (ptrace() itself and
// process_vm_writev() are refused by the filter); CAP_DAC_READ_SEARCH, for a policy file or log
// directory that is not root's, and for finding a cgroup by its number without a walk over all of
// them, which whoever makes cgroups could make long; CAP_LEASE, to see that somebody still writes
// the policy file. CAP_PERFMON is of use only for loading.
//
// A call that is not on the list fails with EPERM and is logged by the kernel (audit, type
// SECCOMP), where sysctl kernel.seccomp.actions_logged says so.
//
// Call it with one thread only: threads that are already there keep their capabilities, which is
// an error. On error some of it may be in effect, or nothing.
Result<void> confine();

}  // namespace egressd::daemon
