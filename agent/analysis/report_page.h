#pragma once

#include <string>
#include <string_view>

#include "analysis/report.h"

namespace egressd::analysis {

// `text` as it may stand in HTML, in attributes too: printable ASCII (audit::printable), escaped.
std::string html_text(std::string_view text);

std::string report_page(const ReportData& data, const StreamStats& stats,
                        const policy::Policy* policy);

}  // namespace egressd::analysis
