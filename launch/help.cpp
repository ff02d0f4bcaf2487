// SPDX-License-Identifier: Apache-2.0
#include "launch/help.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <map>

#include "launch/version.h"
#include "runtime/core/exit_codes.h"

namespace neoloom::launch {
namespace {

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

/// Returns the options that can be completed, and described: not --help, which all commands have.
std::vector<const CLI::Option*> options_of(const CLI::App& app) {
  return app.get_options([](const CLI::Option* option) { return option->get_name() != "--help"; });
}

/// Breaks a text into lines of at most `width` characters, each after `indent`.
std::string wrapped(const std::string& text, size_t width, const std::string& indent) {
  std::string out, line;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    if (!line.empty() && line.size() + 1 + word.size() > width) {
      out += indent + line + "\n";
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
    at = end + 1;
  }
  return line.empty() ? out : out + indent + line + "\n";
}

std::string exit_code_text() {
  std::string text;
  for (const core::ExitCode& each : core::kExitCodes) text += fmt::format("  {:>2}  {}\n", each.code, each.meaning);
  return text;
}

void add_footer(CLI::App& command, const std::string& name) {
  constexpr size_t kColumns = 100;
  std::string footer = wrapped(command.get_footer(), kColumns, "");
  if (!footer.empty()) footer += "\n";
  footer += "Examples:\n";
  for (const std::string& example : examples_of(name)) footer += "  " + example + "\n";
  footer += "\nExit codes:\n" + exit_code_text();
  footer.pop_back();  // CLI11 ends the line
  command.footer(footer);
}

/// "TEXT", "FILE", "peft|merged"; empty for a flag.
std::string operand_of(const CLI::Option& option) {
  if (!option.get_option_text().empty()) return option.get_option_text();
  if (option.get_type_size() == 0 && option.nonpositional()) return "";
  const std::string name = option.get_type_name();
  return name.substr(0, name.find(':'));
}

/// Escapes text for roff: backslashes, dashes, bars, and signs that begin a request.
std::string roff(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if (c == '|') {
      out += "|\\:";  // a line may end here
    } else {
      out += c;
    }
  }
  return out.starts_with('.') || out.starts_with('\'') ? "\\&" + out : out;
}

std::string examples_in_roff(const std::string& command) {
  std::string out;
  for (const std::string& example : examples_of(command))
    out += fmt::format(".PP\n.nf\n.RS\n{}\n.RE\n.fi\n", roff(example));
  return out;
}

std::string options_in_roff(const CLI::App& command) {
  std::string out;
  for (const CLI::Option* option : options_of(command)) {
    const std::string operand = option->nonpositional() ? operand_of(*option) : "";
    out += fmt::format(".TP\n\\fB{}\\fR{}\n{}\n", roff(option->get_name()),
                       operand.empty() ? "" : " \\fI" + roff(operand) + "\\fR",
                       roff(option->get_description().empty() ? "Required." : option->get_description()));
  }
  return out;
}

std::string command_in_roff(const CLI::App& command, const std::string& path) {
  std::string out =
      fmt::format(".SS neoloom {}\n{}.\n{}", roff(path), roff(command.get_description()), options_in_roff(command));
  for (const CLI::App* inner : commands_of(command)) out += command_in_roff(*inner, path + " " + inner->get_name());
  return out + examples_in_roff(path);
}

/// What may stand after an option.
struct Operand {
  std::vector<std::string> choices;  // of "auto|none|PATH": auto, none
  bool file = false;                 // a file, a folder, or something else that is not known here
};

/// Reads words with small letters as fixed values, of "auto|none|PATH" or CLI11's "TEXT:{distinct,occurrences}".
Operand operand_words(const CLI::Option& option) {
  std::string text = option.get_option_text();
  char separator = '|';
  if (text.empty()) {
    text = option.get_type_name();
    const size_t open = text.find('{');
    if (open != std::string::npos) text = text.substr(open + 1, text.find('}') - open - 1);
    separator = open == std::string::npos ? '|' : ',';
  }
  Operand operand;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(separator, at), text.size());
    const std::string word = text.substr(at, end - at);
    const bool fixed = std::any_of(word.begin(), word.end(), [](unsigned char c) { return std::islower(c) != 0; });
    if (fixed) operand.choices.push_back(word);
    operand.file = operand.file || !fixed;
    at = end + 1;
  }
  return operand;
}

/// Whether a word that follows no option directly may be a file: DATA, but not COMMAND; the second one after --from.
bool takes_files(const CLI::Option& option) {
  const std::string name = option.nonpositional() ? operand_of(option) : option.get_name();
  if (option.nonpositional() && !option.get_allow_extra_args()) return false;
  return name == "DATA" || name.ends_with("DIR") || name.ends_with("FILE") || name.ends_with("FOLDER");
}

/// Parts of the script that completes in bash.
struct BashCases {
  std::vector<std::string> paths;  // of commands, each as a pattern: ' train', 'checkpoint list'
  std::string values, words;       // cases: what stands after an option, or elsewhere
};

void add_bash_cases(const CLI::App& command, const std::string& path, const std::string& pattern, BashCases& cases) {
  cases.paths.push_back("'" + pattern + "'");
  std::vector<std::string> offered = {"--help"};
  bool files = false;
  for (const CLI::Option* option : options_of(command)) {
    files = files || takes_files(*option);
    if (!option->nonpositional()) continue;
    offered.push_back(option->get_name());
    if (operand_of(*option).empty()) continue;
    const Operand operand = operand_words(*option);
    cases.values += fmt::format("    '{} {}') words='{}'{} ;;\n", path, option->get_name(),
                                fmt::join(operand.choices, " "), operand.file ? " files=1" : "");
  }
  const std::vector<const CLI::App*> verbs = commands_of(command);
  for (const CLI::App* verb : verbs) offered.push_back(verb->get_name());
  cases.words += fmt::format("      '{}') words='{}'{} ;;\n", path, fmt::join(offered, " "), files ? " files=1" : "");
  for (const CLI::App* verb : verbs) {
    const std::string name = path + " " + verb->get_name();
    add_bash_cases(*verb, name, name, cases);
  }
}

}  // namespace

std::vector<std::string> examples_of(const std::string& command) {
  const std::map<std::string, std::vector<std::string>> examples = {
      {"", {"neoloom init train.csv", "neoloom train --config run.yaml"}},
      {"init",
       {"neoloom init train.csv --validation dev.csv --model EleutherAI/gpt-neo-125m",
        "neoloom init train.csv --from training_args.json adapter_config.json --output mine.yaml"}},
      {"train",
       {"neoloom train --config run.yaml --set trainer_config.learning_rate=1e-4",
        "neoloom train --config run.yaml --extend --set trainer_config.num_train_epochs=5"}},
      {"plan",
       {"neoloom plan --config run.yaml --ranks 8 --ranks_per_node 4 --measure",
        "neoloom plan --config run.yaml --ranks 16 --ranks_per_node 8 --device h100"}},
      {"prepare",
       {"neoloom prepare --config run.yaml",
        "neoloom prepare --config run.yaml --set runtime.cache_dir=/shared/neoloom-cache"}},
      {"evaluate",
       {"neoloom evaluate --run runs/mine --data test.csv",
        "neoloom evaluate --run a=runs/lr1 --run b=runs/lr2 --data test.csv --output metrics.json"}},
      {"predict",
       {"neoloom predict --run runs/mine --input new.csv --output labels.jsonl --keep id,text",
        "neoloom predict --model EleutherAI/gpt-neo-125m --adapter runs/mine/adapter --input 'new-*.csv'"}},
      {"generate",
       {"neoloom generate --run runs/mine --prompt \"Once\" --max_tokens 100 --temperature 0.8 --top_k 50",
        "neoloom generate --run runs/mine --prompt_file prompts.jsonl --num_return_sequences 3 --json"}},
      {"export",
       {"neoloom export --run runs/mine --format merged --dtype float16 --output merged",
        "neoloom export --run runs/mine --output adapter"}},
      {"tokenize",
       {"neoloom tokenize --tokenizer runs/mine/adapter --text \"a text\"",
        "neoloom tokenize --tokenizer runs/mine/adapter --input ids.jsonl --decode"}},
      {"download",
       {"neoloom download EleutherAI/gpt-neo-125m", "neoloom download EleutherAI/gpt-neo-1.3B --revision main"}},
      {"checkpoint",
       {"neoloom checkpoint list runs/mine/checkpoints",
        "neoloom checkpoint verify runs/mine/checkpoints/step-000000000350.h5"}},
      {"checkpoint list",
       {"neoloom checkpoint list runs/mine/checkpoints", "neoloom checkpoint list runs/other/checkpoints"}},
      {"checkpoint inspect",
       {"neoloom checkpoint inspect runs/mine/checkpoints/step-000000000350.h5",
        "neoloom checkpoint inspect backup/step-000000000100.h5"}},
      {"checkpoint verify",
       {"neoloom checkpoint verify runs/mine/checkpoints/step-000000000350.h5",
        "neoloom checkpoint verify backup/step-000000000100.h5"}},
      {"status", {"neoloom status --run runs/mine", "neoloom status --run runs/mine --json"}},
      {"top", {"neoloom top --run runs/mine", "neoloom top --run runs/mine --once"}},
      {"report",
       {"neoloom report --run runs/mine", "neoloom report --run a=runs/lr1 b=runs/lr2 --output compared.html"}},
      {"doctor", {"neoloom doctor --device cpu", "neoloom doctor --output_dir runs --json"}},
      {"help", {"neoloom help train", "neoloom help --completion bash"}},
  };
  const auto found = examples.find(command);
  return found == examples.end() ? std::vector<std::string>{} : found->second;
}

void add_examples(CLI::App& app) {
  add_footer(app, "");
  for (CLI::App* command : app.get_subcommands([](CLI::App*) { return true; })) {
    add_footer(*command, command->get_name());
    for (CLI::App* inner : command->get_subcommands([](CLI::App*) { return true; }))
      add_footer(*inner, command->get_name() + " " + inner->get_name());
  }
}

std::string man_page(const CLI::App& app) {
  std::string out = fmt::format(
      ".TH NEOLOOM 1 \"\" \"neoloom {}\" \"User Commands\"\n.SH NAME\nneoloom \\- {}\n.SH SYNOPSIS\n.B neoloom\n"
      ".I COMMAND\n[\\fIOPTIONS\\fR]\n.SH DESCRIPTION\n{}\n.SH COMMANDS\n",
      roff(version()), roff("distributed LoRA fine-tuning of GPT-Neo"),
      roff("Each command runs alone or under mpirun. A configuration is one YAML or JSON file; configs/README.md lists "
           "every key and environment variable. --help shows the options of a command."));
  for (const CLI::App* command : commands_of(app)) out += command_in_roff(*command, command->get_name());
  out += ".SH EXIT STATUS\n";
  for (const core::ExitCode& each : core::kExitCodes)
    out += fmt::format(".TP\n.B {}\n{}\n", each.code, roff(std::string(each.meaning)));
  out +=
      ".PP\nneoloom status, and top with one picture, have their own: 0 finished, 10 running, 11 stopped on request, "
      "12 failed, 13 dead.\n";
  return out + ".SH EXAMPLES\n" + examples_in_roff("");
}

std::string bash_completion(const CLI::App& app) {
  BashCases cases;
  std::vector<std::string> names;
  for (const CLI::App* command : commands_of(app)) {
    names.push_back(command->get_name());
    add_bash_cases(*command, command->get_name(), " " + command->get_name(), cases);
  }
  const std::string all = fmt::format("{}", fmt::join(names, " "));
  return fmt::format(R"(# Completion of neoloom {0} for bash, made by: neoloom help --completion bash
_neoloom() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}} command='' words='' files='' i
  if [ "$prev" = '=' ]; then prev=${{COMP_WORDS[COMP_CWORD - 2]}}; fi
  if [ "$cur" = '=' ]; then cur=''; fi
  for ((i = 1; i < COMP_CWORD; ++i)); do
    case "$command ${{COMP_WORDS[i]}}" in
      {1}) command="$command ${{COMP_WORDS[i]}}" command=${{command# }} ;;
    esac
  done
  case "$command $prev" in
    'help help') words='{2}' ;;
{3}  esac
  if [ -z "$words$files" ] || [ "${{cur#-}}" != "$cur" ]; then
    files=''
    case "$command" in
      '') words='{2} --help --version' ;;
{4}    esac
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
  # Without a match, bash completes names of files (complete -o default).
  if [ -n "$files" ] && [ ${{#COMPREPLY[@]}} -gt 0 ]; then
    mapfile -t -O ${{#COMPREPLY[@]}} COMPREPLY < <(compgen -f -- "$cur")
    compopt -o filenames 2> /dev/null  # fails outside of a completion
  fi
}}
complete -o default -F _neoloom neoloom
)",
                     version(), fmt::join(cases.paths, " | "), all, cases.values, cases.words);
}

}  // namespace neoloom::launch
