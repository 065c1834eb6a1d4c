#include "cli/completion.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <ostream>
#include <vector>

#include "cli/record_filter.h"
#include "policy/tags.h"

namespace egressd::cli {
namespace {

// What may stand for a value.
struct Value {
  enum class Kind { None, File, Directory, User, Command, Words } kind = Kind::None;
  std::vector<std::string> words = {};
};

struct Option {
  std::vector<std::string> names;  // "-h", "--help"
  std::string text;
  bool takes_value = false;
  Value value;
};

struct Positional {
  std::string name;
  Value value;
  bool repeats = false;
};

struct Command {
  std::vector<std::string> path;  // empty: the program itself
  std::string text;
  std::vector<Option> options;
  std::vector<Positional> positionals;
  std::vector<std::pair<std::string, std::string>> below;  // name, text

  [[nodiscard]] std::string joined(const char* separator) const {
    std::string out;
    for (const auto& word : path) out += (out.empty() ? "" : separator) + word;
    return out;
  }
};

// "TEXT:{bash,zsh}" -> bash, zsh
std::vector<std::string> choices(const std::string& type) {
  std::vector<std::string> out;
  const auto open = type.find('{');
  const auto close = type.find('}', open);
  if (close == std::string::npos) return out;
  std::string word;
  for (const char c : type.substr(open + 1, close - open - 1)) {
    if (c == ',') out.push_back(std::exchange(word, {}));
    if (c != ',' && c != ' ') word += c;
  }
  out.push_back(word);
  return out;
}

// Most values are files; those that are not are known by their names.
Value value_of(const CLI::Option& option, const std::string& name, const std::string& path) {
  using enum Value::Kind;
  if (auto words = choices(option.get_type_name()); !words.empty()) return {Words, words};
  static const std::map<std::string, Value::Kind> kKinds{
      {"--bpffs", Directory}, {"--cgroup", Directory}, {"--state-dir", Directory},
      {"--user", User},       {"COMMAND", Command},    {"DEST", None},
      {"TARGET", None},       {"--reason", None},      {"--name", None},
      {"--fqdn", None},       {"--destination", None}, {"--port", None},
      {"--pid", None},        {"--comm", None},        {"--pod", None},
      {"--rule", None}};
  if (path == "tags show" && name == "NAME") {
    Value tags{Words};
    for (const auto& tag : policy::TagCatalog::builtin().tags()) tags.words.push_back(tag.name);
    return tags;
  }
  if (path == "watch" || path == "top") {
    Value reasons{Words};
    for (const auto reason : refusal_reasons()) reasons.words.emplace_back(reason);
    if (name == "--reason") return reasons;
    if (name == "--cgroup") return {};  // a glob of paths below the mount
  }
  if (const auto known = kKinds.find(name); known != kKinds.end()) return {known->second};
  return {option.get_type_name().starts_with("TEXT") ? File : None};
}

void collect(const CLI::App& app, const std::vector<std::string>& path, std::vector<Command>& out) {
  Command command{
      .path = path, .text = app.get_description(), .options = {}, .positionals = {}, .below = {}};
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;  // hidden
    if (option->nonpositional()) {
      Option o;
      for (const auto& name : option->get_snames()) o.names.push_back("-" + name);
      for (const auto& name : option->get_lnames()) o.names.push_back("--" + name);
      o.text = option->get_description();
      o.takes_value = option->get_items_expected_max() > 0;
      if (o.takes_value) o.value = value_of(*option, o.names.back(), command.joined(" "));
      command.options.push_back(std::move(o));
    } else {
      const std::string name = option->get_name(true);
      command.positionals.push_back({name, value_of(*option, name, command.joined(" ")),
                                     option->get_items_expected_max() > 1});
    }
  }
  const auto below = app.get_subcommands(
      [](const CLI::App* sub) { return !sub->get_name().empty() && !sub->get_group().empty(); });
  for (const CLI::App* sub : below)
    command.below.emplace_back(sub->get_name(), sub->get_description());
  out.push_back(std::move(command));
  for (const CLI::App* sub : below) {
    auto longer = path;
    longer.push_back(sub->get_name());
    collect(*sub, longer, out);
  }
}

std::string replaced(std::string text, const std::string& what, const std::string& with) {
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size()))
    text.replace(at, what.size(), with);
  return text;
}

// For all three shells. Not `quoted`: for a std::string that is <iomanip>'s.
std::string shell_quoted(const std::string& text) {
  return "'" + replaced(text, "'", "'\\''") + "'";
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const auto& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
}

// --- bash

std::string bash_action(const Value& value) {
  const auto compgen = [](const std::string& what) {
    return "mapfile -t COMPREPLY < <(compgen " + what + " -- \"$cur\")";
  };
  switch (value.kind) {
    case Value::Kind::Words:
      return compgen("-W " + shell_quoted(joined(value.words)));
    case Value::Kind::Directory:
      return "compopt -o filenames\n        " + compgen("-d");
    case Value::Kind::User:
      return compgen("-u");
    case Value::Kind::Command:
      return compgen("-c");
    case Value::Kind::File:
      return ":";  // left to readline
    case Value::Kind::None:
      break;
  }
  return "compopt +o default +o bashdefault";
}

void write_bash(const std::vector<Command>& commands, std::ostream& out) {
  out << "# Completion of egressctl for bash, made by: egressctl completion bash\n"
         "_egressctl() {\n"
         "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} path='' word i\n"
         "  local options='' commands='' valued='' taken=0 skip=0 rest=0\n"
         "  COMPREPLY=()\n"
         "  # readline cuts --option=value in three.\n"
         "  if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then\n"
         "    prev=${COMP_WORDS[COMP_CWORD - 2]}\n"
         "  fi\n"
         "  _egressctl_words\n"
         "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
         "    word=${COMP_WORDS[i]}\n"
         "    if ((rest)); then taken=$((taken + 1)); continue; fi\n"
         "    if [[ $word == = ]]; then skip=1; continue; fi\n"
         "    if ((skip)); then skip=0; continue; fi\n"
         "    if [[ $word == -- ]]; then rest=1; continue; fi\n"
         "    if [[ \" $valued \" == *\" $word \"* ]]; then skip=1; continue; fi\n"
         "    if [[ $word == -* ]]; then continue; fi\n"
         "    if [[ \" $commands \" == *\" $word \"* ]]; then\n"
         "      path=${path:+$path }$word\n"
         "      _egressctl_words\n"
         "    else\n"
         "      taken=$((taken + 1))\n"
         "      # What follows the command to run is its own.\n"
         "      if [[ $path == exec ]]; then rest=1; fi\n"
         "    fi\n"
         "  done\n"
         "  if ((!rest)); then\n"
         "    case \"$path $prev\" in\n";
  for (const Command& command : commands) {
    for (const Option& option : command.options) {
      if (!option.takes_value) continue;
      std::string pattern;
      for (const auto& name : option.names)
        pattern += (pattern.empty() ? "" : " | ") + shell_quoted(command.joined(" ") + " " + name);
      out << "      " << pattern << ")\n        " << bash_action(option.value)
          << "\n        return ;;\n";
    }
  }
  out << "    esac\n"
         "    if [[ $cur == -* ]]; then\n"
         "      mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$cur\")\n"
         "      return\n"
         "    fi\n"
         "    if [[ -n $commands ]]; then\n"
         "      mapfile -t COMPREPLY < <(compgen -W \"$commands\" -- \"$cur\")\n"
         "      return\n"
         "    fi\n"
         "  fi\n"
         "  case \"$path $taken\" in\n";
  for (const Command& command : commands) {
    for (std::size_t i = 0; i < command.positionals.size(); ++i)
      out << "    " << shell_quoted(command.joined(" ") + " " + std::to_string(i)) << ") "
          << bash_action(command.positionals[i].value) << " ;;\n";
  }
  out << "  esac\n"
         "}\n"
         "# The options and commands that may stand after $path, and which options take a value.\n"
         "_egressctl_words() {\n"
         "  case $path in\n";
  for (const Command& command : commands) {
    std::vector<std::string> names, valued, below;
    for (const Option& option : command.options) {
      names.insert(names.end(), option.names.begin(), option.names.end());
      if (option.takes_value) valued.insert(valued.end(), option.names.begin(), option.names.end());
    }
    for (const auto& [name, text] : command.below) below.push_back(name);
    out << "    " << shell_quoted(command.joined(" "))
        << ")\n      options=" << shell_quoted(joined(names))
        << "\n      valued=" << shell_quoted(joined(valued))
        << "\n      commands=" << shell_quoted(joined(below)) << " ;;\n";
  }
  out << "  esac\n"
         "}\n"
         "complete -o bashdefault -o default -F _egressctl egressctl\n";
}

// --- zsh

std::string zsh_action(const Value& value) {
  switch (value.kind) {
    case Value::Kind::Words:
      return "(" + joined(value.words) + ")";
    case Value::Kind::Directory:
      return "_files -/";
    case Value::Kind::User:
      return "_users";
    case Value::Kind::Command:
      return "_command_names -e";
    case Value::Kind::File:
      return "_files";
    case Value::Kind::None:
      break;
  }
  return "()";
}

// For texts within [ ] of _arguments, and before a colon.
std::string zsh_text(std::string text) {
  for (const char* c : {"\\", "[", "]", ":"}) text = replaced(text, c, std::string("\\") + c);
  return text;
}

std::string zsh_function(const Command& command) {
  const std::string path = replaced(command.joined("_"), "-", "_");
  return "_egressctl" + (path.empty() ? "" : "_" + path);
}

void write_zsh(const std::vector<Command>& commands, std::ostream& out) {
  out << "#compdef egressctl\n"
         "# Completion of egressctl for zsh, made by: egressctl completion zsh\n";
  for (const Command& command : commands) {
    out << zsh_function(command) << "() {\n";
    // Not `commands`: that is zsh's own, and what completes commands reads it.
    if (!command.below.empty())
      out << "  local curcontext=$curcontext state line ret=1\n"
             "  local -a below\n";
    out << "  _arguments" << (command.below.empty() ? " -S" : " -C");
    for (const Option& option : command.options) {
      for (const auto& name : option.names) {
        std::string spec = name;
        if (option.takes_value && name.starts_with("--")) spec += "=";
        spec += "[" + zsh_text(option.text) + "]";
        if (option.takes_value)
          spec += ":" + zsh_text(name.substr(name.find_first_not_of('-'))) + ":" +
                  zsh_action(option.value);
        out << " \\\n    " << shell_quoted(spec);
      }
    }
    if (!command.below.empty()) {
      out << " \\\n    '1:command:->command' '*::argument:->argument' && ret=0\n"
             "  case $state in\n"
             "    command)\n"
             "      below=(\n";
      for (const auto& [name, text] : command.below)
        out << "        " << shell_quoted(name + ":" + zsh_text(text)) << '\n';
      out << "      )\n"
             "      _describe command below && ret=0 ;;\n"
             "    argument)\n"
             "      case $words[1] in\n";
      for (const auto& [name, text] : command.below) {
        Command below;
        below.path = command.path;
        below.path.push_back(name);
        out << "        " << name << ") " << zsh_function(below) << " && ret=0 ;;\n";
      }
      out << "      esac ;;\n"
             "  esac\n"
             "  return ret\n"
             "}\n";
      continue;
    }
    std::size_t place = 0;
    for (const Positional& positional : command.positionals) {
      const std::string message = ":" + zsh_text(positional.name) + ":";
      if (positional.value.kind == Value::Kind::Command)
        out << " \\\n    '(-)1" << message << zsh_action(positional.value)
            << "' '*::arguments:_normal'";
      else
        out << " \\\n    "
            << shell_quoted((positional.repeats ? "*" : std::to_string(++place)) + message +
                            zsh_action(positional.value));
    }
    out << "\n}\n";
  }
  out << "# Loaded by compinit, or sourced.\n"
         "if [[ $zsh_eval_context[-1] == loadautofunc ]]; then\n"
         "  _egressctl \"$@\"\n"
         "else\n"
         "  compdef _egressctl egressctl\n"
         "fi\n";
}

// --- fish

std::string fish_action(const Value& value) {
  switch (value.kind) {
    case Value::Kind::Words:
      return " -x -a " + shell_quoted(joined(value.words));
    case Value::Kind::Directory:
      return " -x -a '(__fish_complete_directories)'";
    case Value::Kind::User:
      return " -x -a '(__fish_complete_users)'";
    case Value::Kind::Command:
      return " -x -a '(__fish_complete_command)'";
    case Value::Kind::File:
      return " -r -F";
    case Value::Kind::None:
      break;
  }
  return " -x";
}

void write_fish(const std::vector<Command>& commands, std::ostream& out) {
  out << "# Completion of egressctl for fish, made by: egressctl completion fish\n"
         "# The commands before the cursor are exactly these, and nothing positional follows "
         "them.\n"
         "function __egressctl_at\n"
         "    set -l path\n"
         "    set -l skip 0\n"
         "    for word in (commandline -opc)[2..-1]\n"
         "        if test $skip = 1\n"
         "            set skip 0\n"
         "        else if contains -- \"$path $word\"";
  for (const Command& command : commands)
    for (const Option& option : command.options)
      if (option.takes_value)
        for (const auto& name : option.names)
          out << " \\\n            " << shell_quoted(command.joined(" ") + " " + name);
  out << "\n            set skip 1\n"
         "        else if not string match -q -- '-*' $word\n"
         "            set path (string trim -- \"$path $word\")\n"
         "        end\n"
         "    end\n"
         "    test \"$path\" = \"$argv\"\n"
         "end\n"
         "complete -c egressctl -f\n";
  for (const Command& command : commands) {
    const std::string at =
        "complete -c egressctl -n " + shell_quoted("__egressctl_at " + command.joined(" "));
    for (const auto& [name, text] : command.below)
      out << at << " -a " << name << " -d " << shell_quoted(text) << '\n';
    for (const Option& option : command.options) {
      out << at;
      for (const auto& name : option.names)
        out << (name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1));
      if (option.takes_value) out << fish_action(option.value);
      out << " -d " << shell_quoted(option.text) << '\n';
    }
    if (command.positionals.empty()) continue;
    const Positional& first = command.positionals.front();
    if (first.value.kind == Value::Kind::Command)
      out << at << fish_action(first.value) << '\n'
          << "complete -c egressctl -n '__fish_seen_subcommand_from " << command.path.back()
          << "' -F\n";
    else if (first.value.kind != Value::Kind::None)
      out << at << replaced(fish_action(first.value), " -r", "") << " -d "
          << shell_quoted(first.name) << '\n';
  }
}

}  // namespace

bool write_completion(const CLI::App& app, const std::string& shell, std::ostream& out) {
  std::vector<Command> commands;
  collect(app, {}, commands);
  if (shell == "bash")
    write_bash(commands, out);
  else if (shell == "zsh")
    write_zsh(commands, out);
  else if (shell == "fish")
    write_fish(commands, out);
  else
    return false;
  return true;
}

}  // namespace egressd::cli
