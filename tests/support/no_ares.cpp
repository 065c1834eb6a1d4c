// To be preloaded into egressd: c-ares finds no memory for a resolver while the file named by
// EGRESSD_NO_ARES is there.
#include <ares.h>
#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>

extern "C" int ares_init_options(ares_channel* channel, ares_options* options, int mask) {
  const char* flag = std::getenv("EGRESSD_NO_ARES");
  if (flag != nullptr && ::access(flag, F_OK) == 0) return ARES_ENOMEM;
  const auto real =
      reinterpret_cast<decltype(&ares_init_options)>(::dlsym(RTLD_NEXT, "ares_init_options"));
  return real(channel, options, mask);
}
