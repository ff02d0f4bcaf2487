// SPDX-License-Identifier: Apache-2.0
#include "launch/command_line.h"

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>

#include "launch/help.h"
#include "launch/version.h"
#include "runtime/core/error.h"
#include "runtime/core/text.h"

namespace neoloom::launch {
namespace {

/// Returns a check that says in words what it expects: CLI11's own checks name a bound of 309 digits. `holds` gets the
/// whole text as a number.
template <typename T>
std::function<std::string(const std::string&)> expect(const std::string& expected, bool (*holds)(T)) {
  return [=](const std::string& text) -> std::string {
    T value{};
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = code == std::errc() && end == text.data() + text.size();
    return whole && holds(value) ? "" : fmt::format("expected {}, found {}", expected, core::quoted(text));
  };
}

auto count() {
  return expect<int64_t>("an integer of at least 0", [](int64_t value) { return value >= 0; });
}
auto positive_integer() {
  return expect<int64_t>("an integer of at least 1", [](int64_t value) { return value >= 1; });
}
auto positive_number() {
  return expect<double>("a number above 0", [](double value) { return value > 0.0 && std::isfinite(value); });
}

void add_overrides(CLI::App* command, std::vector<std::string>& overrides) {
  command->add_option("--set", overrides, "Override a configuration key: group.key=value; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false)
      ->take_all();
}

/// Adds the options that name a configuration. At least one of them is required.
void add_config(CLI::App* command, ConfigFiles& files) {
  command->add_option("--config", files.whole, "YAML or JSON file with one or more groups; may be repeated")
      ->type_name("FILE")
      ->allow_extra_args(false)
      ->take_all();
  for (const std::string option : {"--model_config", "--peft_config", "--tokenizer_config", "--trainer_config"}) {
    const std::string group = option.substr(2);
    const auto store = [&files, group](const std::string& path) { files.group[group] = path; };
    command->add_option_function<std::string>(option, store, "YAML or JSON file with the keys of this group alone")
        ->type_name("FILE");
  }
  command->callback([&files] {
    if (files.empty()) throw CLI::RequiredError("--config");
  });
}

void add_checkpoint_option(CLI::App* command, CLI::Option* run, std::string& checkpoint) {
  command
      ->add_option("--checkpoint", checkpoint,
                   "Take the state of this checkpoint of --run in place of the result: a step, last, or a file")
      ->type_name("STEP|FILE")
      ->needs(run);
}

void add_model_options(CLI::App* command, ModelArguments& arguments) {
  auto* run = command->add_option("--run", arguments.run, "Run folder (trainer_config.output_dir of a training run)");
  auto* model = command->add_option("--model", arguments.model, "Model folder, or hub id");
  auto* adapter = command->add_option("--adapter", arguments.adapter, "PEFT adapter folder on top of --model");
  run->excludes(model);
  adapter->needs(model);
  add_checkpoint_option(command, run, arguments.checkpoint);
  add_overrides(command, arguments.overrides);
}

/// The same for a command that takes several models.
void add_models_options(CLI::App* command, ModelsArguments& arguments) {
  const auto several = [command](const char* option, std::vector<std::string>& words, const char* help) {
    return command->add_option(option, words, help)->type_name("[NAME=]FOLDER")->take_all();
  };
  auto* run =
      several("--run", arguments.runs, "Run folder (trainer_config.output_dir of a training run); may be repeated");
  auto* model = command->add_option("--model", arguments.model, "Model folder, or hub id");
  auto* adapter = several("--adapter", arguments.adapters, "PEFT adapter folder on top of --model; may be repeated");
  run->excludes(model);
  adapter->needs(model);
  add_checkpoint_option(command, run, arguments.checkpoint);
  command->add_flag("--no_calibration", arguments.no_calibration,
                    "Scores of the plain logits, without the calibration.json beside the weights");
  command->footer(
      "Several runs or adapters of one base share its weights. The output then has an object for each, under its NAME "
      "or the name of its folder.");
  add_overrides(command, arguments.overrides);
}

void add_init(CLI::App& app, InitArguments& arguments) {
  CLI::App* command = app.add_subcommand("init", "Write a first configuration, guessed from a data file");
  auto* data = command->add_option(
      "DATA", arguments.data, "Training data, a file or a pattern: CSV, TSV, JSON lines, JSON array, Parquet, text");
  command->add_option("--validation", arguments.validation, "Validation data; default: a tenth of the training data")
      ->needs(data);
  command->add_option("--model", arguments.model, "Model folder, or hub id (default EleutherAI/gpt-neo-125m)");
  auto* from =
      command
          ->add_option("--from", arguments.from,
                       "What TrainingArguments.to_json_string() and LoraConfig.save_pretrained() wrote, in any order")
          ->type_name("FILE");
  command->add_option("--output", arguments.output, "File to write, which must not exist (default run.yaml)");
  command->callback([data, from] {
    if (data->count() + from->count() == 0) throw CLI::RequiredError("DATA, or --from,");
  });
}

void add_train(CLI::App& app, TrainArguments& arguments) {
  CLI::App* command =
      app.add_subcommand("train", "Fine-tune (or, without peft_config, train) a model; resumes by itself");
  add_config(command, arguments.config);
  add_overrides(command, arguments.overrides);
  command
      ->add_option("--resume", arguments.resume,
                   "auto (default): the newest valid checkpoint; none: start at step 0, in a folder without "
                   "checkpoints; or a checkpoint file, or a folder of checkpoints")
      ->option_text("auto|none|PATH");
  command
      ->add_option("--expect_ranks", arguments.expect_ranks,
                   "End with an error unless the job has this many ranks (default: any number)")
      ->check(positive_integer());
  const auto level = [command, &arguments](const char* option, const char* name, const char* help) {
    return command->add_flag_callback(
        option, [&arguments, name] { arguments.level = name; }, help);
  };
  auto* verbose = level("--verbose", "debug", "Also print details, as logging.level: debug does");
  level("--quiet", "warning", "Only warnings, errors and how the run ended, as logging.level: warning does")
      ->excludes(verbose);
  command->add_flag("--extend", arguments.extend, "Allow a larger max_steps or num_train_epochs than the checkpoint's");
  command->add_flag("--print-config", arguments.print_config, "Print the resolved configuration and end");
  command->add_flag("--dry-run", arguments.dry_run,
                    "Read model header and data, print counts, memory and steps; write nothing");
}

void add_prepare(CLI::App& app, PrepareArguments& arguments) {
  CLI::App* command = app.add_subcommand(
      "prepare", "Download, tokenise and convert what a run reads, on a login node, so that its job starts at once");
  add_config(command, arguments.config);
  add_overrides(command, arguments.overrides);
}

void add_plan(CLI::App& app, PlanArguments& arguments) {
  CLI::App* command = app.add_subcommand(
      "plan", "Memory per device, bytes per all-reduce, steps and expected time of a run, without starting it");
  add_config(command, arguments.config);
  add_overrides(command, arguments.overrides);
  command->add_option("--ranks", arguments.ranks, "Ranks of the run (default 1)")->check(positive_integer());
  command
      ->add_option("--ranks_per_node", arguments.ranks_per_node,
                   "Ranks per machine (default: as many as this machine has cores or GPUs for)")
      ->check(positive_integer());
  command->add_flag("--measure", arguments.measure,
                    "Measure this CPU's GEMM rates for the expected time first, in a few seconds, and keep them in "
                    "runtime.cache_dir");
  command
      ->add_option("--device", arguments.device,
                   "Plan for this device of a rank: cpu, a GPU whose rates and memory its data sheet states, or cuda "
                   "with --gflops and --memory_gb (default: runtime.device)")
      ->option_text("cpu|cuda|a10|a30|a40|a100-40|a100-80|a100-80-sxm|h100|h100-pcie|h200|l4|l40s|rtx3090|rtx4090");
  const auto number = [command](const char* option, double& value, const char* help) {
    command->add_option(option, value, help)->check(positive_number());
  };
  number("--gflops", arguments.gflops, "GFLOP/s that the GEMMs of a rank reach, in place of measured or assumed ones");
  number("--memory_gb", arguments.memory_gb,
         "Memory in GB of the GPU, or of a machine for CPUs (default: of the data sheet, or what is free here)");
  number("--link_gbps", arguments.link_gbps, "Speed of the links between ranks in Gbit/s (default 100)");
  number("--latency_us", arguments.latency_us, "Latency of these links in microseconds (default 10)");
}

void add_evaluate(CLI::App& app, EvaluateArguments& arguments) {
  CLI::App* command = app.add_subcommand("evaluate", "Loss and metrics on labelled data, as one JSON object");
  add_models_options(command, arguments.models);
  command->add_option("--data", arguments.data,
                      "Labelled data, a file or a pattern such as 'dev-*.csv'; default: the run's validation file");
  command->add_option("--output", arguments.output, "Also write the JSON object to this file");
}

void add_predict(CLI::App& app, PredictArguments& arguments) {
  CLI::App* command = app.add_subcommand("predict", "Labels and scores for every input row, as JSONL");
  add_models_options(command, arguments.models);
  command
      ->add_option("--input", arguments.input,
                   "Rows to label, a file or a pattern such as 'new-*.csv'; -: the lines of standard input, each when "
                   "it comes, as "
                   "JSONL or what --set data.format says")
      ->required();
  command->add_option("--output", arguments.output, "JSONL file; default, and -: standard output");
  command
      ->add_option(
          "--keep", arguments.keep,
          "Columns of the input to write beside the predictions, e.g. id,text; KEY=COLUMN gives one another key")
      ->type_name("COLUMN,...")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->take_all();
}

void add_generate(CLI::App& app, GenerateArguments& arguments) {
  CLI::App* command = app.add_subcommand("generate", "Continue a prompt");
  add_model_options(command, arguments.model);
  model::GenerationOptions& options = arguments.options;
  command->add_option("--prompt", arguments.prompt, "Text to continue");
  command
      ->add_option("--prompt_file", arguments.prompt_file,
                   "File with one prompt a line; .jsonl, .ndjson, .json: objects with \"prompt\", with the template's "
                   "columns, or "
                   "with \"messages\"; -: JSONL on standard input, each line answered when it comes")
      ->excludes("--prompt");
  command->add_flag("--no_template", arguments.no_template,
                    "Prompts are whole texts, whatever the run's data.template");
  command->add_option("--max_tokens", options.max_tokens, "New tokens at most (default 100)")->check(count());
  command->add_option("--temperature", options.temperature, "0: greedy (default 1)")
      ->check(expect<double>("a number of at least 0 (0: greedy)",
                             [](double value) { return value >= 0.0 && std::isfinite(value); }));
  command->add_option("--top_k", options.top_k, "Keep the k likeliest tokens; 0: off (default 50)")->check(count());
  command->add_option("--top_p", options.top_p, "Keep the likeliest tokens of this total probability; 1: off (default)")
      ->check(expect<double>("a number above 0 and at most 1 (1: off)",
                             [](double value) { return value > 0.0 && value <= 1.0; }));
  command->add_option("--repetition_penalty", options.repetition_penalty, "1: off (default); about 1.2 is usual")
      ->check(expect<double>("a number above 0 (1: off)",
                             [](double value) { return value > 0.0 && std::isfinite(value); }));
  command
      ->add_option("--min_p", options.min_p,
                   "Drop tokens below this share of the likeliest one's probability; 0: off (default)")
      ->check(expect<double>("a number from 0 (off) to 1", [](double value) { return value >= 0.0 && value <= 1.0; }));
  command
      ->add_option("--no_repeat_ngram_size", options.no_repeat_ngram_size,
                   "No sequence of so many tokens twice; 0: off (default)")
      ->check(count());
  command->add_option("--min_new_tokens", options.min_new_tokens, "No stop token before (default 0)")->check(count());
  command->add_option("--stop_strings", arguments.stop_strings, "A text ends before the first of these")
      ->check([](const std::string& text) { return std::string(text.empty() ? "expected a text, found \"\"" : ""); });
  command->add_option("--num_return_sequences", arguments.num_return_sequences, "Texts a prompt (default 1)")
      ->check(positive_integer());
  command->add_option("--batch_size", arguments.batch_size, "Texts at a time on each rank (default 8)")
      ->check(positive_integer());
  command
      ->add_option("--repetition_penalty_range", options.repetition_penalty_range,
                   "Last tokens the penalty looks at; 0: off, negative: all (default 10)")
      ->check(expect<int64_t>("an integer", [](int64_t) { return true; }));
  command
      ->add_option_function<std::string>(
          "--repetition_penalty_counting",
          [&options](const std::string& name) { options.count_occurrences = name == "occurrences"; },
          "distinct (default): each id once; occurrences: once per occurrence")
      ->check(CLI::IsMember({"distinct", "occurrences"}));
  command->add_option("--seed", options.seed, "Same seed and prompt: same text (default 0)")
      ->check(expect<uint64_t>("an integer of at least 0", [](uint64_t) { return true; }));
  command->add_flag("--json", arguments.json, "One JSON object a prompt");
  command->footer(
      "Options that are not given come from the model folder's generation_config.json, then from the defaults.");
  command->callback([command, &arguments] {
    for (const CLI::Option* option : command->get_options()) {
      if (option->count() > 0) arguments.given.insert(option->get_name());
    }
  });
}

void add_export(CLI::App& app, ExportArguments& arguments) {
  CLI::App* command = app.add_subcommand("export", "Write an adapter (peft) or a merged transformers folder (merged)");
  add_model_options(command, arguments.model);
  command->add_option("--format", arguments.format, "peft: an adapter folder (default); merged: a whole model")
      ->check(CLI::IsMember({"peft", "merged"}))
      ->option_text("peft|merged");
  command->add_option("--dtype", arguments.dtype, "Type of merged weights: float32 (default), float16 or bfloat16")
      ->option_text("float32|float16|bfloat16");
  command
      ->add_option("--max_shard_size", arguments.max_shard_bytes,
                   "Largest file of merged weights, such as 2GB (default 5GB)")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true))
      ->option_text("SIZE");
  command->add_option("--output", arguments.output, "Folder to write")->required();
}

void add_tokenize(CLI::App& app, TokenizeArguments& arguments) {
  CLI::App* command = app.add_subcommand("tokenize", "Print token ids of each line as a JSON array, or decode them");
  command->add_option("--tokenizer", arguments.tokenizer, "Folder with the tokenizer's files, or hub id")->required();
  auto* input =
      command->add_option("--input", arguments.input, "File with one text (or, with --decode, one array) a line");
  command->add_option("--text", arguments.text, "A literal text")->excludes(input);
  command->add_flag("--decode", arguments.decode, "Input lines are JSON arrays of ids; print text");
}

void add_download(CLI::App& app, DownloadArguments& arguments) {
  CLI::App* command = app.add_subcommand("download", "Fetch a model of the hub into Hugging Face's cache");
  command->add_option("NAME", arguments.name, "Hub id: organisation/name")->required();
  command->add_option("--revision", arguments.revision, "Branch, tag or commit (default main)");
}

void add_checkpoint(CLI::App& app, CheckpointArguments& arguments) {
  CLI::App* command = app.add_subcommand("checkpoint", "List, inspect and verify checkpoints");
  command->require_subcommand(1);
  const auto add = [&](const char* verb, const char* operand, const char* help) {
    CLI::App* sub = command->add_subcommand(verb, help);
    sub->add_option(operand, arguments.path)->required();
    sub->callback([&arguments, verb] { arguments.verb = verb; });
  };
  add("list", "DIR", "Steps, sizes and validity of a run's checkpoints");
  add("inspect", "FILE", "Attributes and tensors of one checkpoint");
  add("verify", "FILE", "Exit code 0 when the file is whole, 5 when it is not");
}

void add_status(CLI::App& app, StatusArguments& arguments) {
  CLI::App* command = app.add_subcommand("status", "What a run is doing, or how it ended; the exit code tells scripts");
  command->add_option("--run", arguments.run, "Run folder (trainer_config.output_dir of a training run)")->required();
  command->add_flag("--json", arguments.json, "One JSON object");
  command->footer(
      "The exit code tells the state: 0 finished, 10 running, 11 stopped on request, 12 failed, 13 dead (ended "
      "without a word)");
}

void add_top(CLI::App& app, TopArguments& arguments) {
  CLI::App* command = app.add_subcommand("top", "A run on the terminal, drawn again every few seconds");
  command->add_option("--run", arguments.run, "Run folder (trainer_config.output_dir of a training run)")->required();
  command->add_option("--interval", arguments.interval_seconds, "Seconds between two pictures (default 2)")
      ->check(expect<double>("a number of seconds from 0.1 to 86400",
                             [](double value) { return value >= 0.1 && value <= 86400.0; }))
      ->option_text("SECONDS");
  command->add_flag("--once", arguments.once, "Print one picture; so it does where standard output is no terminal");
  command->footer("q or Ctrl-C ends it. With one picture, the exit code tells the state as that of status.");
}

void add_doctor(CLI::App& app, DoctorArguments& arguments) {
  CLI::App* command = app.add_subcommand("doctor", "Versions, devices, transports, limits, and a self-test of them");
  command->add_option("--device", arguments.device, "auto (default), cpu or cuda")->option_text("auto|cpu|cuda");
  command->add_option("--output_dir", arguments.output_dir,
                      "Folder whose disk is tested, as trainer_config.output_dir (default: the current one)");
  command->add_flag("--json", arguments.json, "One JSON object");
}

void add_report(CLI::App& app, ReportArguments& arguments) {
  CLI::App* command =
      app.add_subcommand("report", "One HTML file of a run, or of several: curves, metrics, speed, time");
  command
      ->add_option("--run", arguments.runs, "Run folders (trainer_config.output_dir of training runs); may be repeated")
      ->required()
      ->type_name("[NAME=]FOLDER");
  command->add_option("--output", arguments.output, "HTML file; default, for one run: report.html in its folder");
  command->footer(
      "The file loads nothing from a network and runs no script. Runs that differ only by their seed give a mean and a "
      "spread.");
}

/// What `neoloom help` is asked for.
struct Topic {
  std::vector<std::string> command;
  bool man = false;
  std::string completion;  // shell
};

void add_help(CLI::App& app, Topic& topic) {
  CLI::App* command = app.add_subcommand("help", "Help for a command, the manual page, completion for a shell");
  auto* name = command->add_option("COMMAND", topic.command, "Command; default: all of them");
  auto* man = command->add_flag("--man", topic.man, "Print the manual page (neoloom.1)");
  command->add_option("--completion", topic.completion, "Print the script that completes commands and options")
      ->check(CLI::IsMember({"bash"}))
      ->option_text("bash")
      ->excludes(name)
      ->excludes(man);
  man->excludes(name);
}

std::unique_ptr<CLI::App> make_app(CommandLine& line, Topic& topic) {
  auto app = std::make_unique<CLI::App>("neoloom: distributed LoRA fine-tuning of GPT-Neo", "neoloom");
  app->set_version_flag("--version", version_text());
  app->require_subcommand(1);
  add_init(*app, line.init);
  add_train(*app, line.train);
  add_prepare(*app, line.prepare);
  add_plan(*app, line.plan);
  add_evaluate(*app, line.evaluate);
  add_predict(*app, line.predict);
  add_generate(*app, line.generate);
  add_export(*app, line.export_);
  add_tokenize(*app, line.tokenize);
  add_download(*app, line.download);
  add_checkpoint(*app, line.checkpoint);
  add_status(*app, line.status);
  add_top(*app, line.top);
  add_report(*app, line.report);
  add_doctor(*app, line.doctor);
  add_help(*app, topic);
  add_examples(*app);
  return app;
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  return names;
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& known) {
  const std::string near = core::nearest(word, known);
  return near.empty() ? "" : fmt::format("; did you mean {}?", near);
}

/// Returns the help that `topic` names. It comes from an app that has parsed nothing, because a parsed
/// one shows the help of the command that was chosen.
std::string help_text(const Topic& topic) {
  CommandLine unused;
  Topic unused_topic;
  const std::unique_ptr<CLI::App> app = make_app(unused, unused_topic);
  if (topic.man) return man_page(*app);
  if (!topic.completion.empty()) return bash_completion(*app);
  const CLI::App* about = app.get();
  std::string before;  // the words in front of the command's own, as --help shows them
  for (const std::string& word : topic.command) {
    const auto named = about->get_subcommands([&](const CLI::App* command) { return command->get_name() == word; });
    core::require(!named.empty(), core::ErrorKind::kUsage, "no command named {}{}; the commands are: {}",
                  core::quoted(word), did_you_mean(word, command_names(*about)),
                  fmt::join(command_names(*about), ", "));
    before += (before.empty() ? "" : " ") + about->get_name();
    about = named.front();
  }
  return about->help(before);
}

/// Says which word CLI11 did not expect: an option with a typing error, or something left over.
std::string unexpected_word(const CLI::App& command, const std::vector<std::string>& words) {
  std::vector<std::string> known;
  for (const CLI::Option* option : command.get_options()) known.push_back(option->get_name());
  for (const std::string& word : words) {
    const std::string name = word.substr(0, word.find('='));
    if (!name.starts_with("-") || name.size() < 2 || command.get_option_no_throw(name) != nullptr) continue;
    return fmt::format("{} has no option {}{}", command.get_name(), core::quoted(name), did_you_mean(name, known));
  }
  return {};
}

[[noreturn]] void fail_parsing(const CLI::App& app, const CLI::ParseError& error,
                               const std::vector<std::string>& words) {
  const auto chosen = app.get_subcommands();
  if (chosen.empty()) {
    const std::string word = words.empty() ? "" : words.front();
    const std::string what = word.empty()            ? "give a command"
                             : word.starts_with("-") ? fmt::format("neoloom has no option {}", core::quoted(word))
                                                     : fmt::format("no command named {}{}", core::quoted(word),
                                                                   did_you_mean(word, command_names(app)));
    core::fail(core::ErrorKind::kUsage, "{}; the commands are: {} (neoloom help says more)", what,
               fmt::join(command_names(app), ", "));
  }
  const CLI::App& command = *chosen.front();
  if (const std::vector<std::string> verbs = command_names(command); !verbs.empty() && words.size() > 1) {
    const bool known = std::find(verbs.begin(), verbs.end(), words[1]) != verbs.end();
    core::require(known || words[1].starts_with("-"), core::ErrorKind::kUsage,
                  "{} has no command {}{}; it has {} (neoloom help {} says more)", command.get_name(),
                  core::quoted(words[1]), did_you_mean(words[1], verbs), fmt::join(verbs, ", "), command.get_name());
  }
  std::string problem = error.what();
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr) {
    if (const std::string found = unexpected_word(command, words); !found.empty()) problem = found;
  }
  core::fail(core::ErrorKind::kUsage, "{} (neoloom help {} shows the options)", problem, command.get_name());
}

}  // namespace

CommandLine parse_command_line(int argc, char** argv) {
  CommandLine line;
  Topic topic;
  const std::unique_ptr<CLI::App> app = make_app(line, topic);
  try {
    app->parse(argc, argv);
    const std::string name = app->get_subcommands().front()->get_name();
    if (name == "help") {
      line.text = help_text(topic);
    } else {
      line.command = name;
    }
  } catch (const CLI::CallForHelp&) {
    line.text = app->help();  // of the command that was chosen
  } catch (const CLI::CallForVersion&) {
    line.text = version_text() + "\n";
  } catch (const CLI::ParseError& error) {
    fail_parsing(*app, error, {argv + std::min(argc, 1), argv + argc});
  }
  return line;
}

}  // namespace neoloom::launch
