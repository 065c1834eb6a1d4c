#include "policy/public_suffix.h"

#include <libpsl.h>

#include <algorithm>
#include <array>

namespace egressd::policy {
namespace {

// Multi-tenant names the Public Suffix List does not carry (or carries only one level further
// down, so that a wildcard above it escapes the look-up).
constexpr std::array<std::string_view, 36> kSharedPlatforms = {
    "amazonaws.com",
    "azure-api.net",
    "azurecr.cn",
    "azurecr.io",
    "azurecr.us",
    "azureedge.net",
    "azurefd.net",
    "blob.core.chinacloudapi.cn",
    "blob.core.usgovcloudapi.net",
    "blob.core.windows.net",
    "blob.storage.azure.net",
    "cloudapp.azure.com",
    "cloudfront.net",
    "core.chinacloudapi.cn",
    "core.usgovcloudapi.net",
    "core.windows.net",
    "database.windows.net",
    "dfs.core.windows.net",
    "documents.azure.com",
    "file.core.windows.net",
    "githubusercontent.com",
    "googleapis.com",
    "kusto.windows.net",
    "queue.core.chinacloudapi.cn",
    "queue.core.usgovcloudapi.net",
    "queue.core.windows.net",
    "s3.amazonaws.com",
    "servicebus.windows.net",
    "storage.googleapis.com",
    "table.core.chinacloudapi.cn",
    "table.core.usgovcloudapi.net",
    "table.core.windows.net",
    "vault.azure.cn",
    "vault.azure.net",
    "vault.usgovcloudapi.net",
    "windows.net",
};
static_assert(std::ranges::is_sorted(kSharedPlatforms));

}  // namespace

std::size_t public_suffix_labels(std::string_view name) {
  std::size_t labels = 1 + static_cast<std::size_t>(std::ranges::count(name, '.'));
  const psl_ctx_t* psl = psl_builtin();
  for (std::string_view suffix = name; labels > 1; --labels) {
    // Without a built-in list only the last label is known to be a registry's; the check that
    // uses this then refuses less, and the names it lets pass are still written out in full.
    if (psl && psl_is_public_suffix2(psl, std::string(suffix).c_str(), PSL_TYPE_ICANN)) break;
    suffix.remove_prefix(suffix.find('.') + 1);
  }
  return labels;
}

bool is_shared_platform(std::string_view suffix) {
  if (std::ranges::binary_search(kSharedPlatforms, suffix)) return true;
  const psl_ctx_t* psl = psl_builtin();
  return psl && psl_is_public_suffix2(psl, std::string(suffix).c_str(),
                                      PSL_TYPE_PRIVATE | PSL_TYPE_NO_STAR_RULE);
}

}  // namespace egressd::policy
