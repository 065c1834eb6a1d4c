#pragma once

namespace egressd::policy {

// Text of deploy/tags/azure.yaml, compiled in by CMakeLists.txt.
extern const char kBuiltinTags[];

}  // namespace egressd::policy
