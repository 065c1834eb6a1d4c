#include <algorithm>
#include <nlohmann/json.hpp>
#include <ostream>

#include "cli/commands.h"
#include "cli/table.h"
#include "policy/tags.h"

namespace egressd::cli {
namespace {

using nlohmann::ordered_json;
using policy::Tag;
using policy::TagEntry;

std::string dump(const ordered_json& j) {
  return j.dump(-1, ' ', true, ordered_json::error_handler_t::replace);
}

std::string join(const std::vector<std::string>& parts, const char* separator = ", ") {
  std::string out;
  for (const auto& part : parts) out += (out.empty() ? "" : separator) + part;
  return out;
}

std::vector<std::string> names(const std::vector<net::PortRange>& ports) {
  std::vector<std::string> out;
  for (const auto& port : ports) out.push_back(port.to_string());
  return out;
}

std::vector<std::string> names(const std::vector<net::Protocol>& protocols) {
  std::vector<std::string> out;
  for (const auto protocol : protocols) out.push_back(net::to_string(protocol));
  return out;
}

std::vector<const TagEntry*> entries_of(const Tag& tag, const std::string& cloud) {
  std::vector<const TagEntry*> out;
  for (const auto& entry : tag.entries)
    if (cloud.empty() || entry.cloud == "all" || entry.cloud == cloud) out.push_back(&entry);
  return out;
}

// Of everything the entry opens, each once.
std::vector<std::string> parameters_of(const TagEntry& entry) {
  std::vector<std::string> out;
  for (const auto& text : entry.opens())
    for (auto& name : policy::placeholders(text))
      if (std::ranges::find(out, name) == out.end()) out.push_back(std::move(name));
  return out;
}

std::vector<std::string> parameters_of(const std::vector<const TagEntry*>& entries) {
  std::vector<std::string> out;
  for (const auto* entry : entries)
    for (auto& name : parameters_of(*entry))
      if (std::ranges::find(out, name) == out.end()) out.push_back(std::move(name));
  return out;
}

}  // namespace

int tags_list(const std::string& cloud, bool json, Streams io) {
  std::vector<std::vector<std::string>> rows{{"NAME", "DATE", "HOSTS", "PARAMETERS", "TITLE"}};
  for (const auto& tag : policy::TagCatalog::builtin().tags()) {
    const auto entries = entries_of(tag, cloud);
    if (entries.empty()) continue;
    const auto parameters = parameters_of(entries);
    if (json)
      io.out << dump({{"name", tag.name},
                      {"title", tag.title},
                      {"source", tag.source},
                      {"date", tag.date},
                      {"hosts", entries.size()},
                      {"parameters", parameters}})
             << '\n';
    else
      rows.push_back({tag.name, tag.date, std::to_string(entries.size()),
                      parameters.empty() ? "-" : join(parameters), tag.title});
  }
  if (!json) write_table(io.out, rows);
  return kOk;
}

int tags_show(const std::string& name, const std::string& cloud, bool json, Streams io) {
  const Tag* tag = policy::TagCatalog::builtin().find(name);
  if (tag == nullptr) {
    io.err << "egressctl: no tag of that name; `egressctl tags list` shows all\n";
    return kUsage;
  }
  const auto entries = entries_of(*tag, cloud);
  const auto parameters = parameters_of(entries);
  if (json) {
    auto array = ordered_json::array();
    for (const auto* e : entries)
      array.push_back({{"cloud", e->cloud},
                       {"destination", e->destination},
                       {"opens", e->opens()},
                       {"include_apex", e->include_apex},
                       {"ports", names(e->ports)},
                       {"protocols", names(e->protocols)},
                       {"parameters", parameters_of(*e)},
                       {"purpose", e->purpose},
                       {"exfiltration_risk", e->exfiltration_risk},
                       {"documented", e->documented}});
    io.out << dump({{"name", tag->name},
                    {"title", tag->title},
                    {"source", tag->source},
                    {"date", tag->date},
                    {"notes", tag->notes},
                    {"parameters", parameters},
                    {"hosts", std::move(array)}})
           << '\n';
    return kOk;
  }

  io.out << tag->name << ": " << tag->title << "\nsource: " << tag->source
         << "\ndate: " << tag->date << '\n';
  for (const auto& note : tag->notes) io.out << "note: " << note << '\n';
  if (!parameters.empty()) io.out << "parameters needed: " << join(parameters) << '\n';
  io.out << '\n';

  std::size_t risky = 0;
  std::vector<std::vector<std::string>> rows{
      {"HOST", "CLOUD", "PORTS", "PROTOCOLS", "OPENS", "PURPOSE"}};
  for (const auto* e : entries) {
    risky += e->exfiltration_risk ? 1 : 0;
    auto remarks = e->purpose;
    if (!e->documented) remarks += " [not in the source document]";
    if (e->exfiltration_risk) remarks += " [EXFILTRATION RISK]";
    rows.push_back({e->destination, e->cloud, join(names(e->ports), ","),
                    join(names(e->protocols), ","), join(e->opens()), remarks});
  }
  write_table(io.out, rows);
  if (risky > 0)
    io.out
        << '\n'
        << risky
        << " of these are open to every tenant of the cloud: whoever has an account there can be "
           "sent data. Prefer rules for your own accounts.\n";
  return kOk;
}

}  // namespace egressd::cli
