#include "policy/public_suffix.h"

#include <libpsl.h>

#include <algorithm>
#include <array>

namespace egressd::policy {
namespace {

// Multi-tenant names the Public Suffix List does not carry (or carries only one level further
// down, so that a wildcard above it escapes the look-up), and hosts of what anyone may publish.
// `*` stands for one label, a region mostly.
constexpr std::array<std::string_view, 85> kSharedPlatforms = {
    "amazonaws.com",
    "anaconda.com",
    "anaconda.org",
    "azure-api.net",
    "azurecr.cn",
    "azurecr.io",
    "azurecr.us",
    "azureedge.net",
    "*.azurefd.net",
    "azurefd.net",
    "*.batch.azure.com",
    "*.batch.chinacloudapi.cn",
    "*.batch.usgovcloudapi.net",
    "batchai.core.windows.net",
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
    "docker.com",
    "docker.io",
    "documents.azure.com",
    "file.core.windows.net",
    "gallerycdn.vsassets.io",
    "githubusercontent.com",
    "googleapis.com",
    "hcp.*.azmk8s.io",
    "hcp.*.cx.aks.containerservice.azure.us",
    "hcp.*.cx.prod.service.azk8s.cn",
    "hf.co",
    "huggingface.co",
    "in.applicationinsights.azure.com",
    "*.inference.ml.azure.com",
    "ingest.monitor.azure.cn",
    "ingest.monitor.azure.com",
    "ingest.monitor.azure.us",
    "instances.azureml.cn",
    "instances.azureml.ms",
    "instances.azureml.net",
    "instances.azureml.us",
    "kusto.windows.net",
    "metrics.ingest.monitor.azure.cn",
    "metrics.ingest.monitor.azure.com",
    "metrics.ingest.monitor.azure.us",
    "monitoring.azure.com",
    "*.notebooks.azure.net",
    "notebooks.azure.net",
    "notebooks.chinacloudapi.cn",
    "notebooks.usgovcloudapi.net",
    "ods.opinsights.azure.cn",
    "ods.opinsights.azure.com",
    "ods.opinsights.azure.us",
    "oms.opinsights.azure.cn",
    "oms.opinsights.azure.com",
    "oms.opinsights.azure.us",
    "pypi.org",
    "pythonhosted.org",
    "queue.core.chinacloudapi.cn",
    "queue.core.usgovcloudapi.net",
    "queue.core.windows.net",
    "s3.amazonaws.com",
    "*.service.batch.azure.com",
    "servicebus.windows.net",
    "storage.googleapis.com",
    "table.core.chinacloudapi.cn",
    "table.core.usgovcloudapi.net",
    "table.core.windows.net",
    "trafficmanager.net",
    "tun.*.cx.prod.service.azk8s.cn",
    "tundra.*.api.azureml.ms",
    "vault.azure.cn",
    "vault.azure.net",
    "vault.usgovcloudapi.net",
    "vo.msecnd.net",
    "vscode-unpkg.net",
    "windows.net",
    "workspace.*.api.azureml.ms",
    "workspace.*.api.ml.azure.cn",
    "workspace.*.api.ml.azure.us",
};

// Labels of two names compared from the top-level domain on, until one of them ends.
// True if they do not differ up to there; `rest` is what is left of `platform`.
bool same_so_far(std::string_view name, std::string_view platform, std::string_view& rest) {
  const auto pop = [](std::string_view& text) {
    const auto dot = text.rfind('.');
    const std::string_view label = dot == std::string_view::npos ? text : text.substr(dot + 1);
    text = text.substr(0, dot == std::string_view::npos ? 0 : dot);
    return label;
  };
  while (!name.empty() && !platform.empty()) {
    const std::string_view label = pop(platform);
    const std::string_view own = pop(name);
    if (label != "*" && label != own) return false;
  }
  rest = platform;
  return name.empty();
}

// No platform has a `*` there: what does not end in them is told apart quickly.
std::string_view last_two_labels(std::string_view name) {
  const auto last = name.rfind('.');
  const auto second = last == std::string_view::npos || last == 0 ? std::string_view::npos
                                                                  : name.rfind('.', last - 1);
  return second == std::string_view::npos ? name : name.substr(second + 1);
}

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

std::string shared_platform_at(std::string_view suffix) {
  std::string_view rest;
  const std::string_view end = last_two_labels(suffix);
  for (const std::string_view platform : kSharedPlatforms)
    if (platform.ends_with(end) && same_so_far(suffix, platform, rest) && rest.empty())
      return std::string(suffix);
  const psl_ctx_t* psl = psl_builtin();
  if (psl && psl_is_public_suffix2(psl, std::string(suffix).c_str(),
                                   PSL_TYPE_PRIVATE | PSL_TYPE_NO_STAR_RULE))
    return std::string(suffix);
  return "";
}

std::string shared_platform_below(std::string_view suffix) {
  std::string_view rest;
  const std::string_view end = last_two_labels(suffix);
  for (const std::string_view platform : kSharedPlatforms)
    if (platform.ends_with(end) && same_so_far(suffix, platform, rest))
      return std::string(platform);
  return "";
}

}  // namespace egressd::policy
