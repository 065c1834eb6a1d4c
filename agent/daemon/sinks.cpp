#include "daemon/sinks.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "audit/azfw_format.h"
#include "audit/format.h"
#include "audit/journal_sink.h"
#include "audit/json_lines_sink.h"
#include "audit/syslog_sink.h"

namespace egressd::daemon {
namespace {

std::string host_name() {
  utsname host{};
  return ::uname(&host) == 0 ? host.nodename : "";
}

Result<std::shared_ptr<const audit::Format>> format_of(const AuditOptions& options) {
  if (options.format == "json") return std::make_shared<audit::JsonFormat>();
  if (options.format == "azfw")
    return std::make_shared<audit::AzfwFormat>(
        audit::AzfwFormat::Host{host_name(), options.resource_id});
  return std::unexpected(
      Error::of("no format is called '" + options.format + "': --audit-format json or azfw"));
}

Result<std::unique_ptr<audit::JsonLinesSink>> open_log(const AuditOptions& options,
                                                       const std::string& path) {
  auto format = format_of(options);
  if (!format) return std::unexpected(std::move(format.error()));
  if (path != "-")
    return audit::JsonLinesSink::open_file(path,
                                           {std::move(*format), {options.max_size, options.keep}});
  return audit::JsonLinesSink::open_descriptor(STDOUT_FILENO, std::move(*format));
}

}  // namespace

Result<std::unique_ptr<audit::FanOutSink>> open_sinks(const AuditOptions& options) {
  if (options.max_size != 0 && (!options.log || *options.log == "-"))
    return std::unexpected(Error::of("--audit-max-size needs --audit-log FILE"));
  std::vector<std::unique_ptr<audit::Sink>> sinks;
  if (options.log || (!options.journal && options.syslog.empty())) {
    auto log = open_log(options, options.log.value_or("-"));
    if (!log) return std::unexpected(std::move(log.error()).context("audit log"));
    sinks.push_back(std::move(*log));
  }
  if (options.journal) {
    auto journal = audit::JournalSink::open();
    if (!journal) return std::unexpected(std::move(journal.error()).context("audit journal"));
    sinks.push_back(std::move(*journal));
  }
  if (!options.syslog.empty()) {
    auto format = format_of(options);
    if (!format) return std::unexpected(std::move(format.error()));
    auto syslog = audit::SyslogSink::open(options.syslog, {std::move(*format), host_name()});
    if (!syslog) return std::unexpected(std::move(syslog.error()).context("audit syslog"));
    sinks.push_back(std::move(*syslog));
  }
  return std::make_unique<audit::FanOutSink>(std::move(sinks));
}

}  // namespace egressd::daemon
