// SPDX-License-Identifier: Apache-2.0
#include "launch/command_line.h"

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>

#include "launch/version.h"
#include "runtime/core/error.h"

namespace neoloom::launch {
namespace {

void add_overrides(CLI::App* command, std::vector<std::string>& overrides) {
  command->add_option("--set", overrides, "Override a configuration key: group.key=value; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false)
      ->take_all();
}

void add_model_options(CLI::App* command, ModelArguments& arguments) {
  auto* run = command->add_option("--run", arguments.run, "Run folder (trainer_config.output_dir of a training run)");
  auto* model = command->add_option("--model", arguments.model, "Model folder, or hub id in Hugging Face's cache");
  auto* adapter = command->add_option("--adapter", arguments.adapter, "PEFT adapter folder on top of --model");
  run->excludes(model);
  adapter->needs(model);
  add_overrides(command, arguments.overrides);
}

void add_train(CLI::App& app, TrainArguments& arguments) {
  CLI::App* command =
      app.add_subcommand("train", "Fine-tune (or, without peft_config, train) a model; resumes by itself");
  command->add_option("--config", arguments.config, "YAML or JSON configuration")->required();
  add_overrides(command, arguments.overrides);
  command->add_option(
      "--resume", arguments.resume,
      "auto: the newest valid checkpoint; none: start afresh; or a checkpoint file, or a folder of them");
  command->add_option("--expect_ranks", arguments.expect_ranks, "End with an error unless the job has this many ranks");
  command->add_flag("--extend", arguments.extend, "Allow a larger max_steps or num_train_epochs than the checkpoint's");
  command->add_flag("--print-config", arguments.print_config, "Print the resolved configuration and end");
  command->add_flag("--dry-run", arguments.dry_run,
                    "Read model header and data, print counts, memory and steps; write nothing");
}

void add_plan(CLI::App& app, PlanArguments& arguments) {
  CLI::App* command = app.add_subcommand(
      "plan", "Memory of a rank, bytes per all-reduce, steps and least time of a run, before it is started");
  command->add_option("--config", arguments.config, "YAML or JSON configuration")->required();
  add_overrides(command, arguments.overrides);
  command->add_option("--ranks", arguments.ranks, "Ranks of the run (default 1)")->check(CLI::PositiveNumber);
  command->add_option("--ranks_per_node", arguments.ranks_per_node, "Ranks that share a machine (default: all)")
      ->check(CLI::PositiveNumber);
}

void add_evaluate(CLI::App& app, EvaluateArguments& arguments) {
  CLI::App* command = app.add_subcommand("evaluate", "Loss and metrics on labelled data, as one JSON object");
  add_model_options(command, arguments.model);
  command->add_option("--data", arguments.data, "Labelled data; default: the run's validation file");
  command->add_option("--output", arguments.output, "Also write the JSON object to this file");
}

void add_predict(CLI::App& app, PredictArguments& arguments) {
  CLI::App* command = app.add_subcommand("predict", "Labels and scores for every input row, as JSONL");
  add_model_options(command, arguments.model);
  command->add_option("--input", arguments.input, "Rows to label")->required();
  command->add_option("--output", arguments.output, "JSONL file; default: standard output");
}

void add_generate(CLI::App& app, GenerateArguments& arguments) {
  CLI::App* command = app.add_subcommand("generate", "Continue a prompt");
  add_model_options(command, arguments.model);
  model::GenerationOptions& options = arguments.options;
  command->add_option("--prompt", arguments.prompt, "Text to continue");
  command->add_option("--prompt_file", arguments.prompt_file, "File with one prompt a line")->excludes("--prompt");
  command->add_option("--max_tokens", options.max_tokens, "New tokens at most")->check(CLI::NonNegativeNumber);
  command->add_option("--temperature", options.temperature, "0: greedy")->check(CLI::NonNegativeNumber);
  command->add_option("--top_k", options.top_k, "Keep the k likeliest tokens; 0: off")->check(CLI::NonNegativeNumber);
  command->add_option("--top_p", options.top_p, "Keep the likeliest tokens of this total probability; 1: off")
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--repetition_penalty", options.repetition_penalty, "1: off; about 1.2 is usual")
      ->check(CLI::PositiveNumber);
  command->add_option("--repetition_penalty_range", options.repetition_penalty_range,
                      "Last tokens the penalty looks at; 0: off, negative: all");
  command
      ->add_option_function<std::string>(
          "--repetition_penalty_counting",
          [&options](const std::string& name) { options.count_occurrences = name == "occurrences"; },
          "distinct: each id once; occurrences: once per occurrence")
      ->check(CLI::IsMember({"distinct", "occurrences"}));
  command->add_option("--seed", options.seed, "Same seed and prompt: same text");
  command->add_flag("--json", arguments.json, "One JSON object a prompt");
}

void add_export(CLI::App& app, ExportArguments& arguments) {
  CLI::App* command = app.add_subcommand("export", "Write an adapter (peft) or a merged transformers folder (merged)");
  add_model_options(command, arguments.model);
  command->add_option("--format", arguments.format)->check(CLI::IsMember({"peft", "merged"}));
  command->add_option("--dtype", arguments.dtype, "Type of merged weights: float32, float16 or bfloat16");
  command->add_option("--output", arguments.output, "Folder to write")->required();
}

void add_tokenize(CLI::App& app, TokenizeArguments& arguments) {
  CLI::App* command = app.add_subcommand("tokenize", "Print token ids of each line as a JSON array, or decode them");
  command->add_option("--tokenizer", arguments.tokenizer, "Folder with the tokenizer's files")->required();
  auto* input =
      command->add_option("--input", arguments.input, "File with one text (or, with --decode, one array) a line");
  command->add_option("--text", arguments.text, "A literal text")->excludes(input);
  command->add_flag("--decode", arguments.decode, "Input lines are JSON arrays of ids; print text");
}

void add_checkpoint(CLI::App& app, CheckpointArguments& arguments) {
  CLI::App* command = app.add_subcommand("checkpoint", "Look at checkpoints");
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

}  // namespace

CommandLine parse_command_line(int argc, char** argv) {
  CommandLine line;
  CLI::App app("neoloom: distributed LoRA fine-tuning of GPT-Neo", "neoloom");
  app.set_version_flag("--version", version_text());
  app.require_subcommand(1);
  add_train(app, line.train);
  add_plan(app, line.plan);
  add_evaluate(app, line.evaluate);
  add_predict(app, line.predict);
  add_generate(app, line.generate);
  add_export(app, line.export_);
  add_tokenize(app, line.tokenize);
  add_checkpoint(app, line.checkpoint);
  app.add_subcommand("doctor", "Versions, devices, transports, and a self-test of every device")
      ->add_option("--device", line.doctor_device, "auto, cpu or cuda");
  std::vector<std::string> topic;
  app.add_subcommand("help", "Help for a command")->add_option("COMMAND", topic);
  try {
    app.parse(argc, argv);
    const std::string name = app.get_subcommands().front()->get_name();
    if (name != "help") {
      line.command = name;
    } else {
      const CLI::App* about = &app;
      for (const std::string& word : topic) about = about->get_subcommand(word);
      line.text = about->help();
    }
  } catch (const CLI::CallForHelp&) {
    const auto chosen = app.get_subcommands();
    line.text = chosen.empty() ? app.help() : chosen.front()->help();
  } catch (const CLI::CallForVersion&) {
    line.text = version_text() + "\n";
  } catch (const CLI::OptionNotFound& error) {
    core::fail(core::ErrorKind::kUsage, "no command named {}; neoloom help lists them", fmt::join(topic, " "));
  } catch (const CLI::ParseError& error) {
    const auto chosen = app.get_subcommands();
    core::fail(core::ErrorKind::kUsage, "{} (neoloom help{} shows the options)", error.what(),
               chosen.empty() ? "" : " " + chosen.front()->get_name());
  }
  return line;
}

}  // namespace neoloom::launch
